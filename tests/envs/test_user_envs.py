"""Environments of a user, in a module of the user.

They train, checkpoint and are evaluated, or an error of one line says why not.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from afterwit.envs.gym import Gym, GymConfig
from afterwit.envs.specs import EnvironmentFault, reraise_as
from afterwit.runs.command_line.main import main
from afterwit.runs.configs.comparison import world_name
from afterwit.runs.configs.presets import gym
from afterwit.runs.configs.run_config import read_config
from afterwit.runs.evaluation.trained_agent import load_agent
from afterwit.runs.training.run import Run
from afterwit.runs.training.run_log import read_metrics

NAME = "persons_own_worlds"
FAST = [
    "--total-steps",
    "400",
    "--env.num-envs",
    "2",
    "--log-interval",
    "200",
    "--quiet",
    "--learner.torso.hidden",
    "8",
    "--learner.torso.channels",
    "4",
    "--learner.torso.blocks",
    "1",
]


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("module")
    shutil.copy(Path(__file__).with_name("own_worlds.py"), folder / f"{NAME}.py")
    return folder


@pytest.fixture
def train_own(
    module: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Any:
    """Trains on an environment of the module. Returns the exit code and stderr."""
    monkeypatch.syspath_prepend(str(module))

    def run_command(*line: str) -> tuple[Any, str]:
        try:
            code: Any = main(list(line))
        except SystemExit as stopped:  # tyro, where a config is refused
            code = stopped.code
        return code, " ".join(capsys.readouterr().err.split("\x1b")[0].split("\n"))

    def train(name: str, *options: str) -> tuple[Any, str]:
        return run_command(
            "train",
            "gym",
            "--id",
            f"{NAME}:{name}-v0",
            "--out",
            str(tmp_path / "run"),
            *FAST,
            *options,
        )

    train.command = run_command  # type: ignore[attr-defined]
    return train


ICM = ("--model", "icm")
WORLDS: dict[str, tuple[str, ...]] = {
    "Own": (),
    "Infos": ICM,
    "Ones": ("--model", "rnd"),
    "Starts": (),
    "Last": ("--model", "rnd"),
    "Plane": ICM,
    "Floats": ICM,
    "Small": ICM,
    "Stack": ICM,
    "Integers": ICM,
    "Bools": ICM,
    "Required": ICM,
    "Anything": ICM,
    "Rooms": ICM,
    "Strict": (*ICM, "--env.kwargs", "size=8", "mode=hard"),
}


@pytest.mark.parametrize("name", WORLDS)
def test_a_persons_world_trains_checkpoints_and_is_evaluated(
    name: str, train_own: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    code, stderr = train_own(name, *WORLDS[name])
    assert code == 0 and (not stderr or "collapse alarm" in stderr), stderr
    assert train_own.command("evaluate", str(folder), "--episodes", "3")[0] == 0
    results = json.loads((folder / "evaluation.json").read_text())["results"]
    assert results["return"]["mean"] == 7.0 and results["length"]["mean"] == 7.0
    logged = read_metrics(folder)[-1]
    counted = {
        key
        for key in logged
        if key.startswith(
            ("share_of_", "explored/", "reached/", "noise/", "episode/rooms", "episode/cells")
        )
    }
    if name == "Rooms":
        assert {
            "share_of_time/noise_on",
            "share_of_time/room_change",
            "explored/rooms",
            "explored/cells",
            "reached/R1",
        } <= counted
        assert logged["explored/rooms"] == 7 and logged["explored/cells"] == 1
        assert (
            logged["share_of_time/noise_on"] == pytest.approx(4 / 8, abs=0.1)
            and logged["reached/R1"] == 1
            and logged["reached/R2"] == 0
        )
    else:
        assert not counted
    config = read_config(folder)
    assert (
        config.env.id == f"{NAME}:{name}-v0"
        and json.loads((folder / "config.json").read_text())["learner"]["torso"]["encoder"]
        == "auto"
    )  # type: ignore[union-attr]
    env = gymnasium.make(
        f"{NAME}:{name}-v0",
        **(
            {"size": 8} if name == "Strict" else {"render_mode": None} if name == "Required" else {}
        ),
    )
    agent, observation = load_agent(folder), env.reset(seed=0)[0]
    actions = {int(agent.act(observation, index == 0)) for index in range(40)}
    assert (
        all(env.action_space.contains(np.int64(action)) for action in actions) and len(actions) > 1
    )
    assert load_agent(folder, num_envs=2).act(np.stack([observation] * 2), True).shape == (2,)


def test_the_arguments_of_a_constructor_are_kept_and_told_apart(
    train_own: Any, tmp_path: Path
) -> None:
    assert train_own("Strict", "--model", "icm", "--env.kwargs", "size=8", "mode=hard")[0] == 0
    folder = tmp_path / "run"
    config = read_config(folder)
    assert config.env.kwargs == ("size=8", "mode=hard")  # type: ignore[union-attr]
    assert world_name(config) == f"{NAME}:Strict-v0 (size=8, mode=hard)"
    assert (
        train_own.command("evaluate", str(folder), "--episodes", "2", "--set", 'kwargs=["size=8"]')[
            0
        ]
        == 0
    )
    recorded: Any = json.loads((folder / "evaluation.json").read_text())
    assert recorded["environment"]["kwargs"] == ["size=8"] and recorded["changes"] == {
        "kwargs": ["size=8"]
    }
    assert train_own.command("train", "--resume", str(folder), "--quiet")[0] == 0


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "misses": (("Strict",), "missing 1 required positional argument: 'size'"),
    "misspelt": (
        ("Strict", "--env.kwargs", "size=8", "mood=hard"),
        "unexpected keyword argument 'mood'",
    ),
    "raises": (("Strict", "--env.kwargs", "size=9"), "KeyError: 'size is 9"),
    "no value": (
        ("Strict", "--env.kwargs", "size"),
        "env.kwargs takes name=value, such as size=8 mode=hard, not 'size'",
    ),
    "twice": (("Strict", "--env.kwargs", "size=8", "size=9"), "sets an argument twice"),
    "no name": (("Strict", "--env.kwargs", "a-b=8"), "names 'a-b'"),
    "render mode": (("Drawn", "--env.kwargs", "render_mode=human"), "env.kwargs sets render_mode"),
    "no spaces": (("Spaceless",), "observation_space"),
    "no space": (("NoSpace",), "its observation_space is None"),
    "no reset": (("NoReset",), "the environment NoSuch raised TypeError"),
    "reset gives nothing": (
        ("Nothing",),
        "the environment NoSuch: reset() must return (observation, info), it returned None",
    ),
    "reset raises": (("Broken",), "raised Custom: ('a', 'b')"),
    "cannot say why": (("Mute",), "raised Speechless"),
    "steps as in 2021": (
        ("Old",),
        (
            "the environment NoSuch: step() must return (observation, reward, terminated,"
            " truncated, info), it returned 4 values"
        ),
    ),
    "resets as in 2021": (
        ("OldReset",),
        "the environment NoSuch: reset() must return (observation, info), it returned float64 (4,)",
    ),
    "no dict": (("Tuples",), "returned info ('not', 'a dict'); it must be a dict"),
    "declares nothing known": (
        ("Misspelt",),
        "metadata['afterwit_tells'] has 'rooms'; choose from noise_on",
    ),
    "cells uncounted": (("Uncounted",), "metadata['afterwit_cells'] is None"),
    "does not tell": (("Silent",), "but environment 0 did not report it"),
    "dict": (("Dicts",), "wrap it so that it is a Box"),
    **{
        f"raises {name}": ((f"Raising-{name}",), f"Raising-{name}-v0' cannot be made: ")
        for name in (
            "value",
            "type",
            "assertion",
            "key",
            "custom",
            "import",
            "os",
            "speechless",
            "exit",
            "base",
            "generator",
            "memory",
            "no-memory",
        )
    },
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_world_that_cannot_be_trained_is_named_in_one_line(why: str, train_own: Any) -> None:
    (name, *options), message = REFUSED[why]
    code, stderr = train_own(name, *options)
    assert code == 2 and message.replace("NoSuch", f"{name}-v0") in " ".join(stderr.split()), stderr
    assert "Traceback" not in stderr and (
        stderr.startswith("afterwit: ") or "For full helptext" in stderr
    ), stderr


FLOATS_WANTED = "from step(); its observation space says float32 (4,)"
WRONG_VALUES = {
    ("observation", "none"): f"an observation that is None {FLOATS_WANTED}",
    ("observation", "columns"): f"an observation that is float32 (4, 1) {FLOATS_WANTED}",
    ("observation", "more"): "an observation that is float64 (5,) from step(); its",
    ("observation", "texts"): "an observation that is <U1 (4,) from step(); its",
    ("observation", "ragged"): "an observation from step() that is no array",
    ("observation", "gradient"): "an observation from step() that is no array: ",
    ("observation", "mapping"): "an observation that is {'observation': 1} from step(); its",
    ("observation", "large"): "an observation with 1e+300 from step(); float32 cannot hold it",
    ("reward", "none"): "a reward that is None from step(); it must be one finite number",
    ("reward", "words"): "a reward that is '1.5' from step()",
    ("reward", "two"): "a reward that is float64 (2,) from step()",
    ("reward", "list"): "a reward that is [1.0, 2.0] from step()",
    ("reward", "complex"): "a reward that is (1+2j) from step()",
    ("reward", "thousands"): "a reward that is 1000",
    ("reward", "largest"): "rewards with 1e+300 (environment 0 of 2), which float32 cannot hold",
    ("terminated", "text"): "terminated that is 'False' from step(); it must be True or False",
    ("terminated", "none"): "terminated that is None from step()",
    ("truncated", "none"): "truncated that is None from step()",
    ("truncated", "count"): "truncated that is 2 from step()",
    ("truncated", "nan"): "truncated that is nan from step()",
    ("terminated", "two"): "terminated that is float64 (2,) from step()",
    ("info", "none"): "info None; it must be a dict",
    ("info", "list"): "info [1.0, 2.0]; it must be a dict",
}


@pytest.mark.parametrize(("what", "which"), WRONG_VALUES)
def test_what_a_step_returns_wrongly_is_named(what: str, which: str, train_own: Any) -> None:
    assert_named(
        make_stepper(what, which),
        f"the environment Returns-v0 returned {WRONG_VALUES[what, which]}",
    )


BYTES_WANTED = "from step(); its observation space says uint8 (4,)"
WRONG_NUMBERS = {
    ("Bytes", "floats"): f"an observation that is float64 (4,) {BYTES_WANTED}",
    ("Bytes", "many"): "an observation from 0 to 256 from step(); uint8 holds 0 to 255",
    ("Bytes", "few"): "an observation from -1 to 2 from step(); uint8 holds 0 to 255",
    ("Wide", "large"): "observations with 1e+300 (environment 0 of 2), which float32 cannot hold",
}


@pytest.mark.parametrize(("name", "which"), WRONG_NUMBERS)
def test_numbers_that_a_space_cannot_hold_are_named(name: str, which: str, train_own: Any) -> None:
    assert_named(
        make_stepper("observation", which, name),
        f"the environment {name}-v0 returned {WRONG_NUMBERS[name, which]}",
    )


def make_stepper(what: str, which: str, name: str = "Returns", **config: Any) -> Any:
    env = Gym(
        GymConfig(
            f"{NAME}:{name}-v0", num_envs=2, kwargs=(f"what={what}", f"which={which}"), **config
        ),
        0,
    )
    env.reset()

    def steps() -> list[Any]:
        return [env.step(np.zeros(2, int)) for _ in range(9)]

    return steps


def assert_named(call: Any, message: str) -> None:
    with pytest.raises(EnvironmentFault) as raised:
        call()
    assert str(raised.value).startswith(message) and "\n" not in str(raised.value), raised.value


@pytest.mark.parametrize(
    ("what", "which"),
    [
        ("observation", "numbers"),
        ("observation", "doubles"),
        ("reward", "one"),
        ("reward", "tensor"),
        ("reward", "zero"),
        ("reward", "count"),
        ("terminated", "zero"),
        ("truncated", "flag"),
    ],
)
@pytest.mark.parametrize("noise", ("none", "pixel"))
def test_what_means_the_same_is_taken_whatever_numpy_is_set_to(
    what: str, which: str, noise: str, train_own: Any
) -> None:
    with np.errstate(all="raise"):
        steps = make_stepper(what, which, noise=noise)()
    assert [step.terminal.tolist() for step in steps].count([True, True]) == 1
    assert steps[0].observation.dtype == np.float32
    assert steps[4].reward[0] == (
        {"zero": 0.0, "count": 2.0}.get(which, 1.0) if what == "reward" else 1.0
    )


@pytest.mark.parametrize("at", ("reset", "step"))
@pytest.mark.parametrize("error", ("exit", "base", "generator", "cannot"))
def test_a_world_that_leaves_while_it_is_trained_is_named(
    error: str, at: str, train_own: Any
) -> None:
    """Otherwise sys.exit(0) would end a training as if it had finished."""
    code, stderr = train_own(
        "Leaves", "--model", "icm", "--env.kwargs", f"at={at}", f"error={error}"
    )
    named = {
        "exit": "SystemExit: 0",
        "base": "Base: gone",
        "generator": "GeneratorExit",
        "cannot": "OSError: stuck",
    }[error]
    assert (
        code == 2
        and f"the environment Leaves-v0 raised {named} (" in stderr
        and "Traceback" not in stderr
    ), stderr


@pytest.mark.parametrize("error", ("exit", "base", "generator", "cannot"))
def test_a_world_that_leaves_while_it_is_closed_or_drawn_is_named_once(
    error: str, train_own: Any
) -> None:
    named = {
        "exit": "SystemExit: 0",
        "base": "Base: gone",
        "generator": "GeneratorExit",
        "cannot": "OSError: stuck",
    }[error]
    for at, message in (("close", "closed"), ("render", "drawn")):
        env = Gym(
            GymConfig(
                f"{NAME}:Leaves-v0", num_envs=2, render=True, kwargs=(f"at={at}", f"error={error}")
            ),
            0,
        )
        env.reset()
        assert_named(getattr(env, at), f"the environment Leaves-v0 cannot be {message}: {named}")


@pytest.mark.parametrize(
    ("line", "stderr"),
    [
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("import sys; sys.exit()", "SystemExit"),
        ("raise BaseException('no')", "BaseException: no"),
    ],
)
def test_a_module_that_leaves_while_it_is_imported_is_named(
    line: str, stderr: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_leaving_world.py").write_text(line)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path not in ("", str(tmp_path))])
    before = list(sys.path)
    with pytest.raises(ValueError) as raised:
        GymConfig("a_leaving_world:Here-v0")
    assert (
        str(raised.value) == f"unknown Gymnasium environment 'a_leaving_world:Here-v0': {stderr}"
        and sys.path == before
    )


def test_ctrl_c_in_a_persons_code_stays_one() -> None:
    with pytest.raises(KeyboardInterrupt), reraise_as("the environment"):
        raise KeyboardInterrupt
    with (
        pytest.raises(
            EnvironmentFault,
            match=r"^mine raised LookupError: two words \(test_user_envs.py line \d+\)$",
        ),
        reraise_as("mine raised", where=True),
    ):
        raise LookupError("two\nwords")


def test_a_world_that_cannot_be_closed_costs_nothing(train_own: Any, tmp_path: Path) -> None:
    code, stderr = train_own("Shut")
    assert (
        code == 0
        and stderr.count("Shut-v0") == 1
        and "stuck fast" in " ".join(stderr.split())
        and "Traceback" not in stderr
    ), stderr
    assert (tmp_path / "run" / "checkpoint.pt").is_file()


def test_a_world_whose_torch_computes_in_doubles_is_trained_in_floats(
    train_own: Any, tmp_path: Path
) -> None:
    try:
        assert train_own("Doubles") == (0, "") and torch.get_default_dtype() == torch.float64
        assert train_own.command("evaluate", str(tmp_path / "run"), "--episodes", "2") == (0, "")
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(
        value.dtype != torch.float64
        for value in load_agent(tmp_path / "run").policy.state_dict().values()
    )


OF_ANOTHER_KIND = {
    "room": ("300", "1.5", "-1", "hall", "[1,2]", "null", "true"),
    "cell": ("9",),
    "noise_on": ("0.5", "2", "x"),
    "trackers": ("1", "[[1]]", "[0.5]", "[1,0,1]", "[[1],[1,2]]", "[]"),
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in OF_ANOTHER_KIND.items() for value in values]
)
def test_a_declared_entry_of_another_kind_is_named(key: str, value: str, train_own: Any) -> None:
    code, stderr = train_own(
        "Wrong", "--model", "icm", "--env.kwargs", f"key={key}", f"value={value}"
    )
    assert (
        code == 2
        and stderr.startswith("afterwit: the environment Wrong-v0 returned ")
        and key in stderr
        and "Traceback" not in stderr
    ), stderr
    assert stderr.count("afterwit: ") == 1


@pytest.mark.parametrize("value", ("0.5", "2", "x", "[true,false]"))
def test_noise_on_top_does_not_hide_it(value: str, train_own: Any) -> None:
    code, stderr = train_own(
        "Wrong", *ICM, "--env.noise", "pixel", "--env.kwargs", "key=noise_on", f"value={value}"
    )
    assert (
        code == 2
        and stderr.startswith("afterwit: the environment Wrong-v0 returned noise_on")
        and "Traceback" not in stderr
    ), stderr


def test_worlds_that_draw_from_the_global_state_are_the_same_for_a_seed(train_own: Any) -> None:
    def rollout(seed: int) -> list[np.ndarray[Any, Any]]:
        env = Gym(GymConfig(f"{NAME}:Global-v0", num_envs=2), seed)
        return [env.reset().observation] + [
            env.step(np.zeros(2, int)).observation for _ in range(9)
        ]

    once, again, other = rollout(1), rollout(1), rollout(2)
    np.testing.assert_array_equal(once, again)
    assert (np.array(once) != np.array(other)).all()
    assert (once[0][0] != once[0][1]).any(), "environments of a run differ"


def test_runs_of_one_seed_see_the_same_of_a_world_that_draws_from_the_global_state(
    train_own: Any,
) -> None:
    config = gym(model="rnd", id=f"{NAME}:Global-v0")
    seen = []
    for seed in (3, 3, 4):
        run = Run(replace(config, env=replace(config.env, num_envs=2), unroll_length=9, seed=seed))
        for _ in range(3):
            run.step()
        assert run.trajectory is not None
        seen.append(run.trajectory.obs)
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])


def test_making_an_environment_leaves_the_global_state_alone(train_own: Any) -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    expected = draws()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    Gym(GymConfig(f"{NAME}:Global-v0", num_envs=2), 1)
    assert draws() == expected


FRAMES = {
    "none": "drew NoneType",
    "floats": "drew float64 (16, 20, 3)",
    "gray": "drew uint8 (16, 20)",
    "empty": "drew list",
    "text": "drew str",
    "error": "cannot be drawn: LookupError: no screen",
    "growing": "all frames must be of one size",
}


def test_videos_are_made_of_frames_or_of_the_last_of_a_list_and_all_else_is_one_line(
    train_own: Any, tmp_path: Path
) -> None:
    pytest.importorskip("imageio_ffmpeg")
    folder = tmp_path / "run"
    assert train_own("Drawn", "--model", "icm")[0] == 0
    video = ("evaluate", str(folder), "--episodes", "2", "--video")
    for what in ("frame", "list"):
        assert train_own.command(*video, "--set", f'kwargs=["what={what}"]')[0] == 0
        assert (folder / "video.mp4").stat().st_size > 500
        (folder / "video.mp4").unlink()
        (folder / "evaluation.json").unlink()  # other settings do not replace it
    for what, message in FRAMES.items():
        code, stderr = train_own.command(*video, "--set", f'kwargs=["what={what}"]')
        assert (
            code == 2
            and stderr.startswith("afterwit: the environment Drawn-v0 ")
            and message in stderr
            and "Traceback" not in stderr
        ), stderr
    for name, message in (
        ("Listed", None),
        ("Undrawn", "Undrawn-v0 cannot be drawn: it was made with render_mode None; make it with"),
    ):
        code, stderr = train_own.command(*video, "--set", f"id={NAME}:{name}-v0")
        assert (
            (code == 0)
            if message is None
            else (code == 2 and message in stderr and "Traceback" not in stderr)
        ), stderr
        (folder / "evaluation.json").unlink(missing_ok=True)


def test_a_module_in_the_working_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command `afterwit` has its own folder on sys.path, not the working folder."""
    program = """
import gymnasium
gymnasium.register("Here-v0", entry_point="a_world_here:Here")
"""
    (tmp_path / "a_world_here.py").write_text(program)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path not in ("", str(tmp_path))])
    with pytest.raises(ValueError, match="No module named 'a_world_here'"):
        GymConfig("a_world_here:Here-v0")
    monkeypatch.chdir(tmp_path)
    assert GymConfig("a_world_here:Here-v0").label == "a_world_here:Here-v0"
