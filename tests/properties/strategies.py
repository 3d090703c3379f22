"""Strategies for hypothesis: values for all config fields, and hostile names."""

from __future__ import annotations

import math
import types
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hypothesis import Phase, settings
from hypothesis import strategies as st

from afterwit.agents import LearnerConfig
from afterwit.agents.policy import PolicyConfig
from afterwit.envs.make import ENVS
from afterwit.runs.configs.run_config import RunConfig
from afterwit.world_models.registry import WORLD_MODELS
from afterwit.world_models.torso import TorsoConfig

# Without the search for the smallest failing case: it takes minutes on a busy machine.
settings.register_profile(
    "afterwit",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=50,
    phases=(Phase.explicit, Phase.generate),
)
settings.load_profile("afterwit")

SMALL = {
    "num_envs": 2,
    "unroll_length": 3,
    "total_steps": 60,
    "hidden": 8,
    "image_size": 36,
    "latent": 3,
    "noise": 3,
    "critic_embedding": 3,
}
NAN, HUGE = (math.nan, math.inf, -math.inf), (2**31, 2**63, 10**30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
HOSTILE = (
    "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&lt;b&gt;\n\x00$\\frac$_{^/../%s{0}"
    + "x" * 300
)
NAMES = st.sampled_from(
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "'onload='x",
        "&lt;b&gt;&amp;",
        "a\nb\r\tc",
        "\x1b[2J\x00\x07",
        "$x^$",
        "$\\frac$",
        "_{",
        "%s{0}\\",
        "Ünï☃𝔘",
        "\u202edcba",
        "\ud800",
        "-->",
        "]]></style>",
        "x" * 300,
        " ",
        "..",
        "--out",
    ]
) | st.text(max_size=20)


def small(config: Any) -> Any:
    """Return a config in which everything that takes time is small."""
    sizes = {
        f.name: SMALL[f.name]
        for f in fields(config)
        if f.name in SMALL and isinstance(getattr(config, f.name), int)
    }
    return replace(config, **sizes)


def base(env: str, model: str) -> RunConfig:
    torso = TorsoConfig(
        hidden=8, channels=(2,), blocks=1, embedding=5, belief=6, action_embedding=3
    )
    learner = LearnerConfig(
        torso=torso, policy=PolicyConfig(hidden=4), world_model=small(WORLD_MODELS[model].Config())
    )
    return small(RunConfig(env=small(ENVS[env][0]()), learner=learner, unroll_length=3))


# Every environment and every world model at least once.
BASES = [base(env, "byol-hindsight") for env in ENVS] + [
    base("maze", model) for model in WORLD_MODELS if model != "byol-hindsight"
]


def leaves(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted path and type hint of every field that is not itself a config."""
    hints = get_type_hints(type(config))
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from leaves(value, f"{path}{field.name}.")
        else:
            yield path + field.name, hints[field.name]


def options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for values of a type.

    Integers are either absurd or so small that what they count takes no time.
    """
    if len(options(hint)) > 1:
        return st.one_of(*map(values, options(hint)))
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return st.sampled_from(inner)
    if origin is tuple and inner[-1] is ...:
        return st.lists(values(inner[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values, inner))
    if hint is float:
        return (
            st.sampled_from([0.0, -1.0, 0.5, 1.0, 5e-324, 1e300, *NAN])
            | st.floats(1e-6, 1)
            | st.floats()
        )
    if hint is int:
        return st.integers(-1, 5) | st.sampled_from(HUGE)
    known: dict[Any, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        str: NAMES,
        types.NoneType: st.none(),
    }
    return known[hint]  # a new type needs a new entry
