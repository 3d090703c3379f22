"""The page about a run while it trains: its parts, its server, and runs in every condition."""

from __future__ import annotations

import fcntl
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, redirect_stderr
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch

from afterwit.envs.atari_places import CELLS, SIDE
from afterwit.envs.maze import MazeConfig
from afterwit.runs.command_line.main import main
from afterwit.runs.configs.presets import atari_small, maze
from afterwit.runs.output.files import LOCK, is_locked, locked_folder
from afterwit.runs.training import checkpoint
from afterwit.runs.training.exit_codes import run_and_report
from afterwit.runs.training.loop import start
from afterwit.runs.training.run_log import METRICS
from afterwit.runs.watching import film as filming
from afterwit.runs.watching import pictures, server, status
from afterwit.runs.watching.server import Part, Server, Watch
from tests.runs.written_runs import Page, log, make, small

CONFIG = replace(
    maze("byol-hindsight", "on-demand"),
    env=MazeConfig(num_envs=4, noise="on-demand", episode_steps=12),
    unroll_length=6,
    total_steps=96,
    log_interval=24,
    checkpoint_interval=48,
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


class Played:
    """Has played a film in this process, where `play_apart` would start another one."""

    def __init__(self, run: Path, out: Path, output: BinaryIO):
        with redirect_stderr(io.StringIO()) as said:
            self.returncode = run_and_report(lambda: filming.play(run, out))
        output.write(said.getvalue().encode())

    def poll(self) -> int:
        return self.returncode


ALL_CURVES = pictures.SHOWN


@pytest.fixture(autouse=True)
def one_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes time: one curve stands for all."""
    monkeypatch.setattr(pictures, "SHOWN", ("learner/entropy",))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has finished. No test may change it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    start(CONFIG, folder, progress=False)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def look_at(folder: Path, scratch: Path) -> Watch:
    scratch.mkdir(parents=True, exist_ok=True)
    return Watch(folder, scratch)


@pytest.fixture
def served(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(filming, "play_apart", Played)
    with Server(look_at(run, tmp_path / "scratch")) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def get(served: Server, path: str, **headers: str) -> tuple[int, str, str]:
    """Return the status, the text and the version of an answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", served.server_port)) as connection:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers.get("X-Version", "")


def test_each_part_of_a_run_is_served(
    served: Server, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "SHOWN", ALL_CURVES)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    head = get(served, "/part/head")[1]
    assert "byol-hindsight, seed 0, on the maze with on-demand noise" in head
    assert ">finished<" in head and "96 of 96 agent steps (100%)" in head and "left" not in head
    curves = get(served, "/part/curves")[1]
    titles = re.findall('alt="(.*?)"', curves)
    for words in ("R1: share", "random pixels", "Intrinsic reward", "Entropy", "Seeks noise"):
        assert sum(words in title for title in titles) >= 1, words
    assert "Where the agent was, and was paid" in get(served, "/part/map")[1]
    assert "is being played" in get(served, "/part/film")[1]
    played = get(served, "/part/film")[1]
    assert Page(played).tags[0] == "video" and "checkpoint at 96 agent steps: 12 agent" in played
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_part_is_sent_and_drawn_only_when_it_is_new(
    served: Server, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REST", 0.0)
    code, _, version = get(served, "/part/curves?have=")
    assert code == 200 and version and get(served, "/part/map")[2] != version
    assert get(served, f"/part/curves?have={version}") == (204, "", version)
    with (run / METRICS).open("a") as file:
        file.write('{"agent_steps": 97, "episode/cou')  # being written at this moment
    assert get(served, f"/part/curves?have={version}")[0] == 204
    entry = json.loads((run / METRICS).read_text().splitlines()[-2]) | {"learner/entropy": 0.5}
    (run / METRICS).write_text(json.dumps(entry) + "\n")
    assert get(served, f"/part/curves?have={version}")[0] == 200


def test_the_page_loads_nothing_from_elsewhere(served: Server) -> None:
    get(served, "/part/map")
    code, text, _ = get(served, "/")
    page = Page(text)
    assert code == 200 and {"script", "style", "img"} <= set(page.tags)
    assert all(link.startswith("data:") for link in page.links)
    assert ">finished<" in text and re.search('id="map" data-version="[0-9a-f]{16}"', text)


def test_only_this_machine_is_answered(served: Server) -> None:
    assert served.server_address[0] == "127.0.0.1"
    assert get(served, "/", Host="elsewhere.example:80")[0] == 403
    assert get(served, "/", Host="localhost:9")[0] == 200  # through a tunnel
    assert get(served, "/etc/passwd")[0] == get(served, "/part/../config.json")[0] == 404


def test_a_fault_is_named_on_the_page(
    served: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(server, "head", lambda folder: 1 / 0)
    code, text, _ = get(served, "/part/head")
    assert code == 500 and "head: a fault of Afterwit" in text
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    folder = make(tmp_path / "run", small(), [], maps=False)
    watch = look_at(folder, tmp_path / "scratch")
    assert "0 of 1,000 agent steps (0%)" in watch.look("head")[0]
    assert "after 50 agent steps" in watch.look("curves")[0]
    assert "the first checkpoint comes after" in watch.look("film")[0]
    assert watch.look("map")[0] == ""
    (folder / METRICS).unlink()
    with locked_folder(folder, 0):
        assert "the first log entry comes after 50 agent steps" in watch.look("head")[0]


def test_maps_of_another_maze_are_left_out(tmp_path: Path) -> None:
    folder = make(tmp_path / "<run>", small(), log(0.5))
    np.savez(folder / "maps.npz", visits=np.ones((10, 4)), pay=np.ones((10, 4)))
    text = pictures.map_html(folder, tmp_path)
    assert text.startswith('<p class="note">&lt;run&gt; has maps of another version of the maze')
    (folder / "maps.npz").unlink()
    assert "The map comes with the first checkpoint" in pictures.map_html(folder, tmp_path)


def test_a_run_trains_while_its_folder_is_locked(tmp_path: Path) -> None:
    folder = make(tmp_path / "run", small(), log(0.5)[:4])
    with locked_folder(folder, 0):
        head = status.head(folder)
        assert ">training<" in head and "100 agent steps/s · 6 s left · logged" in head
    head = status.head(folder)
    assert ">stopped<" in head and f"afterwit train --resume {folder}" in head


def test_the_error_of_a_stopped_run_is_shown(tmp_path: Path) -> None:
    folder = make(tmp_path / "run", small(), log(0.5)[:4])
    (folder / "error.txt").write_bytes(b"Traceback\nKeyError: '<door\xff>'\n")
    assert "<pre>Traceback\nKeyError: &#x27;&lt;door\\xff&gt;&#x27;</pre>" in status.head(folder)
    with locked_folder(folder, 0):  # it goes on
        assert "KeyError" not in status.head(folder)
    os.utime(folder / "error.txt", (0, 0))  # it has gone on, and was stopped
    assert ">stopped<" in status.head(folder) and "KeyError" not in status.head(folder)


def test_a_run_that_vanishes_leaves_what_was_seen(run: Path, tmp_path: Path) -> None:
    watch = look_at(run, tmp_path / "scratch")
    before = {name: watch.look(name) for name in ("head", "map", "curves")}
    shutil.rmtree(run)
    head = watch.look("head")[0]
    assert "run is gone" in head and head.endswith(before["head"][0])
    assert [watch.look(name) for name in ("map", "curves")] == [before["map"], before["curves"]]


def test_a_damaged_checkpoint_is_said_and_the_last_film_stays(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filming, "play_apart", Played)
    monkeypatch.setattr(filming, "REST", 0.0)
    good = (run / checkpoint.NAME).read_bytes()
    (run / checkpoint.NAME).write_bytes(good[:-100])
    watch = look_at(run, tmp_path / "scratch")
    watch.look("film")
    said = '<p class="problem">No new film: .*pt is damaged.*</p>'
    assert re.fullmatch(said, watch.look("film")[0])
    assert "problem" not in watch.look("curves")[0] + watch.look("map")[0]
    (run / checkpoint.NAME).write_bytes(good)
    watch.look("film")
    video = watch.look("film")[0]
    assert video.startswith("<video")
    (run / checkpoint.NAME).write_bytes(good[:100])
    watch.look("film")
    assert re.fullmatch(said + re.escape(video), watch.look("film")[0])
    assert list((tmp_path / "scratch").glob("film*")) == []


def test_a_long_episode_is_cut(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filming, "MAX_SECONDS", 1e-9)
    assert filming.play(run, tmp_path / "film") == 0
    result = json.loads((tmp_path / "film" / "evaluation.json").read_text())
    assert result["config"]["device"] == "cpu" and result["limit"]["max_seconds"] == 1e-9
    assert "steps: 6 agent steps, cut short there; return 0.0." in filming.caption(result)


def test_a_film_rests(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filming, "play_apart", Played)
    film = filming.Film(run, tmp_path)
    film.html()
    assert film.html().startswith("<video") and film.number == 1
    (run / checkpoint.NAME).write_bytes((run / checkpoint.NAME).read_bytes())
    film.html()
    assert film.number == 1 and film.next > time.monotonic()
    film.next = 0.0
    film.html()
    assert film.number == 2


def test_figures_rest(tmp_path: Path) -> None:
    made: list[int] = []

    def make_slowly() -> str:
        made.append(1)
        time.sleep(0.02)
        return str(len(made))

    part = Part(make_slowly, tmp_path / "file")
    for _ in range(3):
        (tmp_path / "file").write_text("x" * len(list(tmp_path.iterdir())) * (len(made) + 1))
        assert part.look()[0] == "1"
    part.next = 0.0
    assert part.look()[0] == "2"


def test_what_cannot_be_made_is_tried_again(tmp_path: Path) -> None:
    answers: list[Any] = [ValueError("line\n<two>"), "good"]

    def make_next() -> str:
        answer = answers.pop(0)
        if isinstance(answer, str):
            return answer
        raise answer

    part = Part(make_next, tmp_path / "file")
    assert part.look()[0] == r'<p class="problem">line\n&lt;two&gt;</p>'
    part.next = 0.0
    assert part.look()[0] == part.look()[0] == "good"


def test_rooms_that_were_seen_are_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rooms, cells = np.zeros(256, bool), np.zeros((256, SIDE, SIDE), bool)
    rooms[[1, 4]] = cells[1, 2, 3] = cells[4] = True
    packed = {"rooms": np.packbits(rooms), "cells": np.packbits(cells.reshape(CELLS))}
    arrays = {f"explored_{name}": torch.from_numpy(bits) for name, bits in packed.items()}
    monkeypatch.setattr(checkpoint, "load", lambda *_: {"statistics": {"arrays": arrays}})
    config = replace(atari_small(), total_steps=1000, log_interval=50)
    folder = make(tmp_path / "run", config, log(0.5, explored__rooms=2.0), maps=False)
    assert "after 50,000 agent steps" in pictures.map_html(folder, tmp_path)
    (folder / checkpoint.NAME).touch()
    text = pictures.map_html(folder, tmp_path)
    assert "2 rooms seen so far" in text and "squares" in text
    assert "Rooms seen so far, all episodes" in pictures.curves_html(folder, tmp_path)


def test_durations() -> None:
    seconds = (0, 0.4, 59, 60, 3599, 3600, 12_000, 90_000)
    texts = ["0 s", "0 s", "59 s", "1 min", "59 min", "1 h 0 min", "3 h 20 min", "1 d 1 h"]
    assert [status.duration(number) for number in seconds] == texts


def test_a_look_at_the_lock_refuses_nobody(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "nowhere") and not (tmp_path / "nowhere").exists()
    with locked_folder(tmp_path, 0):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)
    with (tmp_path / LOCK).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # as `is_locked` does for a moment
        looked = threading.Timer(0.02, file.close)
        looked.start()
        with locked_folder(tmp_path, 0):
            assert is_locked(tmp_path)
        looked.join()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is no run folder: it has no config.json"),
        (["."], ". is no run folder: it has no config.json"),
        (["run", "--port", "70000"], "port is 70000; it must be 1 to 65535, or 0 for any free one"),
        (["run", "--port", "TAKEN"], "cannot be had (Address already in use); choose another"),
    ],
)
def test_what_cannot_be_watched_is_said_in_one_line(
    tmp_path: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "run", small(), log(0.5))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = [port if word == "TAKEN" else word for word in arguments]
        assert main(["watch", *words]) == 2
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1


@pytest.mark.slow
def test_ctrl_c_ends_it_quietly(run: Path, tmp_path: Path) -> None:
    """The real command, with the process that plays the film."""
    with subprocess.Popen(
        [sys.executable, "-m", "afterwit", "watch", str(run)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path), "HOME": str(tmp_path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        port = int(re.findall(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())[0])
        with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
            connection.request("GET", "/part/film")
            assert "is being played" in connection.getresponse().read().decode()
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == process.stderr.read() == ""
    assert process.returncode == 0
    assert list(tmp_path.glob("afterwit-watch-*")) == []


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_shows_it(served: Server) -> None:
    get(served, "/part/film")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000"]
    page = subprocess.run(
        [str(CHROMIUM), *options, "--dump-dom", served.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert "<title>100% byol-hindsight, seed 0</title>" in page
    assert page.count("<img") == 2 and "<video" in page and '<p id="lost" hidden="">' in page
