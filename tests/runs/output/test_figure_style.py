"""The colours of methods."""

from __future__ import annotations

import pytest

from afterwit.runs.output.figure_style import COLOURS, OTHER, method_colours


@pytest.mark.parametrize(
    "methods",
    [
        ("byol-hindsight", "z-noise", "rnd", "critic"),
        ("z-noise", "disagreement", "critic"),  # whose own colour would be the first free one
        ("ama", "mine:Bonus", "disagreement", "icm", "byol-explore", "theirs:Bonus"),
        ("random", "one", "two", "three", "four"),
    ],
)
def test_a_method_without_a_colour_gets_one_that_no_other_has(methods: tuple[str, ...]) -> None:
    found = method_colours(methods)
    assert list(found) == list(methods)
    assert all(found[name] == COLOURS[name] for name in methods if name in COLOURS)
    assert len(set(found.values())) == len(methods) and OTHER not in found.values()


def test_colours_that_are_used_up_leave_grey() -> None:
    found = method_colours([*map(str, range(20)), "rnd"])
    assert found["rnd"] not in [colour for name, colour in found.items() if name != "rnd"]
    assert list(found.values()).count(OTHER) == 20 - 7
