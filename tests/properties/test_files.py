"""Random files in the folders of runs and studies, and random names on their pages."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from matplotlib import rc_context

from afterwit.envs.gym import GymConfig
from afterwit.envs.maze import build_map
from afterwit.runs.configs.presets import maze
from afterwit.runs.configs.run_config import read_config, write_config
from afterwit.runs.evaluation.evaluation_result import NAME as EVALUATION
from afterwit.runs.evaluation.evaluation_result import is_unicode
from afterwit.runs.evaluation.scores import scores
from afterwit.runs.output import provenance
from afterwit.runs.output.figure_style import STYLE, Picture, save
from afterwit.runs.output.text import in_one_line
from afterwit.runs.reports.comparison_page import evaluation, write_report
from afterwit.runs.reports.curves import Curve, panel
from afterwit.runs.reports.groups import make_groups
from afterwit.runs.reports.maze_maps import log_share
from afterwit.runs.reports.report_summary import summarise
from afterwit.runs.reports.run_results import read_run
from afterwit.runs.studies.definitions import STUDIES
from afterwit.runs.studies.page import write_study_report
from afterwit.runs.studies.run_study import NAME as MANIFEST
from afterwit.runs.studies.run_study import merge_manifest, read_manifest, write_manifest
from afterwit.runs.training.many_runs import finished
from afterwit.runs.training.run_log import MAPS, METRICS
from tests.properties.strategies import HOSTILE, JSON, NAMES
from tests.runs.written_runs import Page, log, make, small

pytest.importorskip("rliable.library", reason="pip install -e '.[study]'")
pytestmark = pytest.mark.filterwarnings("ignore:Glyph")  # for characters that no font has
# The fixture's folder is shared: each example makes it anew or leaves it as it was.
one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


MANGLED = st.one_of(
    st.binary(max_size=40),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.just(b"[" * 100_000),
    st.just(b"9" * 5000),
    st.just(b""),
)


def replaced(data: Any, way: list[Any], value: Any) -> Any:
    """Return plain JSON data with one value replaced.

    `way` leads to the value: a number chooses among the entries of a dict or list.
    """
    data = json.loads(json.dumps(data))
    inner, last = data, None
    for step in way:
        keys = (
            list(inner)
            if isinstance(inner, dict)
            else list(range(len(inner)))
            if isinstance(inner, list)
            else []
        )
        if not keys:
            break
        holder, last = inner, keys[step % len(keys)]
        inner = holder[last]
    if last is None:
        return value
    holder[last] = value
    return data


def study_folder(home: Path) -> Path:
    study = STUDIES["maze"]().select(("none", "brownian"), ("rnd", "icm"), (0,), {})
    home.mkdir()
    manifest = merge_manifest(study, study.cells(), home)
    manifest.sessions.append(
        {"command": "afterwit study maze", "date": "today", "commit": "c0ffee"}
    )
    write_manifest(manifest, home)
    for cell in study.cells():
        make(home / cell.folder, replace(cell.config, total_steps=1000), log(0.5))
    return home


EVALUATED = {
    "results": {"return": {"mean": 1.5, "low": 1, "high": 2}},
    "human_normalised": {"mean": 0.1},
    "episodes": 3,
    "policy": "greedy",
}
SESSIONS = [{"command": "afterwit train maze", "date": "today"}]


def read_all(run: Path) -> None:
    """Read everything that a report shows of a run, and turn it into words and colours."""
    read = read_run(run)
    evaluation(read)
    (group,) = make_groups([read])
    for name in ("visits", "pay"):
        log_share(group.maps(name))
    summarise([group])


READERS: dict[str, Callable[[Path], Any]] = {
    "config.json": read_config,
    EVALUATION: read_all,
    METRICS: read_all,
    MAPS: read_all,
    provenance.NAME: provenance.record,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """The folders of a complete run and of a study of four."""
    home = tmp_path_factory.mktemp("files")
    run = make(home / "run", small(), log(0.5)[:3])
    (run / EVALUATION).write_text(json.dumps(EVALUATED))
    (run / provenance.NAME).write_text(json.dumps(SESSIONS))
    yield run, study_folder(home / "study")


def check_reading(path: Path, data: bytes, read: Callable[[], Any]) -> None:
    """Check that `read` works, or names the file in one line, and leaves the file as it is."""
    whole = path.read_bytes()
    path.write_bytes(data)
    try:
        read()
    except ValueError as error:
        line = in_one_line(str(error))
        assert path.name in line or f"{path.parent} has logged nothing yet" in line, line
        assert path.read_bytes() == data
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("name", [name for name in READERS if name != METRICS])
@given(data=MANGLED)
def test_any_bytes_in_a_file_of_a_run_are_read_or_the_file_is_named(
    folders: tuple[Path, Path], name: str, data: bytes
) -> None:
    run = folders[0]
    check_reading(run / name, data, lambda: READERS[name](run))


@pytest.mark.parametrize("name", ["config.json", EVALUATION, METRICS, provenance.NAME])
@given(way=st.lists(st.integers(0, 40), max_size=4), value=JSON)
def test_any_value_in_a_file_of_a_run_is_read_or_the_file_is_named(
    folders: tuple[Path, Path], name: str, way: list[int], value: Any
) -> None:
    run = folders[0]
    text = (run / name).read_text()
    if name == METRICS:
        *earlier, last = text.splitlines()
        data = "\n".join([*earlier, json.dumps(replaced(json.loads(last), way[:2], value))]) + "\n"
    else:
        data = json.dumps(replaced(json.loads(text), way, value))
    check_reading(run / name, data.encode(), lambda: READERS[name](run))
    check_reading(run / name, data.encode(), lambda: finished(run))


@given(
    shape=st.just([10, build_map().walls.size]) | st.lists(st.integers(0, 3), max_size=3),
    kind=st.sampled_from(["f4", "i8", "U3", "bool", "object", "c8"]),
)
def test_any_arrays_in_maps_are_read_or_the_file_is_named(
    folders: tuple[Path, Path], shape: list[int], kind: str
) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, visits=np.ones(shape).astype(kind), pay=np.ones((10, build_map().walls.size))
    )
    check_reading(folders[0] / MAPS, buffer.getvalue(), lambda: read_all(folders[0]))


@given(
    way=st.lists(st.integers(0, 40), max_size=4),
    value=JSON | st.sampled_from(["../../run", "/etc", "..", ""]),
)
@example(way=[5, 0, 3], value="../../run")
def test_any_value_in_a_studys_manifest_is_read_or_the_file_is_named(
    folders: tuple[Path, Path], way: list[int], value: Any
) -> None:
    home = folders[1]
    data = replaced(json.loads((home / MANIFEST).read_text()), way, value)
    check_reading(home / MANIFEST, json.dumps(data).encode(), lambda: read_manifest(home))


@given(data=MANGLED)
def test_any_bytes_in_a_studys_manifest_are_refused_by_name(
    folders: tuple[Path, Path], data: bytes
) -> None:
    home = folders[1]
    check_reading(home / MANIFEST, data, lambda: read_manifest(home))


def test_a_studys_folders_lie_in_the_study(folders: tuple[Path, Path]) -> None:
    home = folders[1]
    whole = (home / MANIFEST).read_text()
    for outside in ("../run", str(folders[0]), "none/../../run"):
        data = json.loads(whole)
        data["cells"][0]["folder"] = outside
        (home / MANIFEST).write_text(json.dumps(data))
        with pytest.raises(ValueError, match=r"must lie in the study's own folder"):
            read_manifest(home)
    (home / MANIFEST).write_text(whole)


# --- names on pages


class Skeleton(HTMLParser):
    """Collects every tag with the names of its attributes, and the text between."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: set[tuple[str, ...]] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add((tag, *sorted(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def seen(name: str) -> str:
    """Return the longest plain part of a name, which stands on a page in every form of the name."""
    return max(
        "".join(c if c.isalnum() and c.isascii() else " " for c in name).split() or [""], key=len
    )


def safe(page: Path, tags: set[tuple[str, ...]], name: str) -> None:
    html = page.read_text(encoding="utf-8")
    skeleton = Skeleton(html)
    assert skeleton.tags <= tags, skeleton.tags - tags
    assert seen(name) in skeleton.text
    assert all(link.startswith("data:") for link in Page(html).links)


def as_folder(name: str) -> str:
    """Return a name as a file system accepts it."""
    return (
        "".join(c for c in name if c not in "/\0" and not "\ud800" <= c <= "\udbff")
        .encode(errors="surrogateescape")[:200]
        .decode(errors="ignore")
        .strip(".")
        or "plain"
    )


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are laid out but not drawn, and intervals are rough.

    `test_pictures_take_any_name` draws one.
    """

    def skip(figure: Any, out: Path, name: str, alt: str) -> Picture:
        return Picture("", alt, b"")

    monkeypatch.setattr("afterwit.runs.reports.comparison_page.save", skip)
    monkeypatch.setattr("afterwit.runs.studies.page.save", skip)
    for module in ("scores", "intervals"):
        monkeypatch.setattr(f"afterwit.runs.evaluation.{module}.REPETITIONS", 10)


@settings(max_examples=6)
@example(name=HOSTILE)
@given(name=NAMES.filter(is_unicode))
def test_pictures_take_any_name(name: str, folders: tuple[Path, Path]) -> None:
    (group,) = make_groups([read_run(folders[0])])
    with rc_context(STYLE):
        figure = panel([replace(group, label=name)], Curve("reached/R2", name))
        picture = save(figure, folders[0].parent, f"../{name}", name)
    path = folders[0].parent / picture.file
    assert (
        path.read_bytes() == picture.png
        and path.parent == folders[0].parent
        and "/" not in picture.file
        and len(picture.file) < 150
    )


@settings(one_folder, max_examples=6)
@example(name=HOSTILE)
@given(name=NAMES.filter(is_unicode))
def test_a_report_shows_any_name_and_nothing_that_it_brings(
    name: str, tmp_path: Path, undrawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Gymnasium takes few names; a config from elsewhere may hold any
    monkeypatch.setattr(GymConfig, "__post_init__", lambda self: None)
    plain, out = reported(tmp_path / "plain", "plain"), tmp_path / "out"
    tags = Skeleton(write_report([plain], out).read_text(encoding="utf-8")).tags
    folder = reported(tmp_path / as_folder(name), name)
    before = {path.name for path in tmp_path.iterdir()}
    safe(write_report([folder], out), tags, name)
    assert {path.name for path in tmp_path.iterdir()} == before
    (group,) = json.loads((out / "summary.json").read_text())["groups"]
    assert group["world"] == name and f"reached/{name}" in group["last_tenth"]


def reported(folder: Path, name: str) -> Path:
    """Return the folder of a run whose game, numbers and evaluation have this name."""
    entries = [
        entry | {f"reached/{name}": 0.5, f"learner/intrinsic_{name}": 0.5} for entry in log(0.5)[:2]
    ]
    make(folder, replace(small(), env=GymConfig(id=name)), entries, maps=False)
    evaluated = {"results": {name: {"mean": 1.5}}, "policy": name, name: name}
    (folder / EVALUATION).write_text(json.dumps(evaluated))
    return folder


@settings(one_folder, max_examples=2)
@example(name=HOSTILE)
@given(name=NAMES.filter(is_unicode))
def test_a_studys_report_shows_any_name_and_nothing_that_it_brings(
    name: str, tmp_path: Path, undrawn: None, folders: tuple[Path, Path]
) -> None:
    home = tmp_path / "study"
    if not home.exists():
        shutil.copytree(folders[1], home)
    written = json.loads((folders[1] / MANIFEST).read_text())
    (home / MANIFEST).write_text(json.dumps(renamed_manifest(written, "plain")))
    tags = Skeleton(write_study_report(home).read_text(encoding="utf-8")).tags
    (home / MANIFEST).write_text(json.dumps(renamed_manifest(written, name)))
    safe(write_study_report(home), tags, name)
    assert {path.name for path in tmp_path.iterdir()} == {"study"}


def renamed_manifest(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a manifest whose study, world, method and session have this name."""

    def new_name(old: str) -> str:
        return name if old in ("brownian", "icm") else old

    result = manifest | {"study": name, "sessions": [{"command": name, "date": name}]}
    result |= {
        kind: {new_name(old): entry for old, entry in manifest[kind].items()}
        for kind in ("worlds", "methods")
    }
    return result | {
        "cells": [
            c | {"world": new_name(c["world"]), "method": new_name(c["method"])}
            for c in manifest["cells"]
        ]
    }


@settings(one_folder, max_examples=1)
@example(name=HOSTILE)
@given(name=NAMES.filter(is_unicode))
def test_scores_take_any_name(name: str, tmp_path: Path, undrawn: None) -> None:
    home = tmp_path / as_folder(name)
    for index in range(2):
        write_config(replace(maze("rnd"), seed=index), home / str(index))
        (home / str(index) / EVALUATION).write_text(
            json.dumps({"results": {name: {"mean": index}}})
        )
    found = scores([home / "0", home / "1"], name, tmp_path / "out")
    assert found["measure"] == name and found["aggregates"]["rnd"]["mean"]["value"] == 0.5


def test_half_a_character_is_refused_with_its_file_and_a_folder_that_is_no_unicode_is_shown(
    tmp_path: Path, undrawn: None
) -> None:
    folder = tmp_path / os.fsdecode(b"run\xff<b>")
    make(folder, small(), log(0.5)[:2], maps=False)
    assert "run\\udcff&lt;b&gt;" in write_report([folder], tmp_path / "out").read_text(
        encoding="utf-8"
    )
    for name, data in (
        (EVALUATION, '{"results": {"\\ud800": {}}}'),
        (METRICS, '{"agent_steps": 1, "reached/\\ud800": 1}\n'),
    ):
        content = (folder / name).read_bytes() if (folder / name).exists() else None
        (folder / name).write_text(data)
        with pytest.raises(ValueError, match=name):
            write_report([folder], tmp_path / "out")
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
