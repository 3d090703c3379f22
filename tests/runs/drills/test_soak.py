"""The soak: its counts are right, and it names what grows."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from afterwit.runs.command_line.main import main
from afterwit.runs.drills.processes import SHM, Sample, family, sample, title
from afterwit.runs.drills.soak import growing_processes, judge, take_samples, write

FLAT = [Sample(float(n), 100 << 20, 2, 5, 20, 1, 4096) for n in range(100)]
NESTED = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"


def test_a_process_is_counted_with_its_children_their_files_and_segments() -> None:
    process = subprocess.Popen([sys.executable, "-c", NESTED], stdin=subprocess.PIPE)
    while len(family(process.pid)) < 2:
        pass
    with tempfile.NamedTemporaryFile(dir=SHM) as segment:
        segment.write(b"x" * 5000)
        segment.flush()
        more = sample(process.pid, 1.5)
    less = sample(process.pid, 2.5)
    assert (
        (more.seconds, more.processes) == (1.5, 2)
        and more.threads >= 2
        and more.files >= 6
        and more.memory > 2 << 20
    )
    assert list(more.parts) == [title(process.pid)] and more.parts[title(process.pid)] == {
        "memory": more.memory,
        "processes": 2,
        "threads": more.threads,
        "files": more.files,
    }
    assert more.segments - less.segments == 1 and more.shared - less.shared == 5000
    assert family(os.getpid())[0] == os.getpid() and set(family(process.pid)) < set(
        family(os.getpid())
    )
    assert take_samples(process.pid, 0.01)
    process.communicate()
    assert family(process.pid) == [] == take_samples(process.pid, 1)


def test_what_grows_after_the_warm_up_is_named() -> None:
    assert all(flat for _, _, flat in judge(FLAT).values())
    assert all(
        flat
        for _, _, flat in judge(
            [replace(each, memory=each.memory // 3, threads=1) for each in FLAT[:20]] + FLAT[20:]
        ).values()
    )
    leaks = {
        "memory": 1 << 20,
        "processes": 1,
        "threads": 1,
        "files": 1,
        "segments": 1,
        "shared": 4096,
    }
    for name, size in leaks.items():
        grown = [
            replace(each, **{name: getattr(each, name) + size * int(each.seconds // 10)})
            for each in FLAT
        ]
        assert [other for other, (_, _, flat) in judge(grown).items() if not flat] == [name]
    with pytest.raises(ValueError, match="19 samples are too few"):
        judge(FLAT[:19])


def test_the_processes_that_grow_are_named() -> None:
    parts = [
        {
            "raylet": {"files": 40 + int(each.seconds // 10)},
            "gcs_server": {"files": 30},
            "late": {"files": 1},
        }
        for each in FLAT
    ]
    samples = [
        replace(each, parts=part if index > 50 else {**part, "late": {}})
        for index, (each, part) in enumerate(zip(FLAT, parts, strict=True))
    ]
    assert growing_processes(samples, "files") == "raylet 43 to 49, late 0 to 1"
    assert growing_processes(samples, "threads") == ""


def test_samples_are_written_as_a_table_and_a_picture(tmp_path: Path) -> None:
    write(FLAT, tmp_path)
    lines = (tmp_path / "soak.csv").read_text().splitlines()
    assert (
        lines[0] == "seconds,memory,processes,threads,files,segments,shared" and len(lines) == 101
    )
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")


def test_a_soak_of_no_time_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drill", "--soak", "0", "--out", str(tmp_path / "out")]) == 2
    assert "soak is 0" in capsys.readouterr().err and not (tmp_path / "out").exists()
