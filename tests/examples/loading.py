"""Run an example as a program, or load it as a module."""

from __future__ import annotations

import importlib.util
import os
import runpy
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType

from tests.house.import_graph import SOURCE

PROCESSES = get_context("forkserver")  # each is forked from one that has imported torch already
PROCESSES.set_forkserver_preload(["torch", "torch._dynamo", "gymnasium"])


def run(path: Path, *options: str, cwd: Path = SOURCE) -> str:
    """Run an example in a process of its own, and return what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        err.touch()  # for a process that fails before it runs anything
        process = PROCESSES.Process(target=program, args=(path, options, cwd, out, err))
        process.start()
        process.join(60)
        process.kill()
        assert process.exitcode == 0, (process.exitcode, err.read_text()[-2000:])
        return out.read_text()


def program(path: Path, options: tuple[str, ...], cwd: Path, out: Path, err: Path) -> None:
    for number, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    sys.argv, sys.path[0] = [str(path), *options], str(path.parent)
    runpy.run_path(str(path), run_name="__main__")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", SOURCE / f"examples/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
