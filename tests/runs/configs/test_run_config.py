"""Configs of earlier versions: fields that are gone are dropped where they mean nothing."""

from __future__ import annotations

from typing import Any

import pytest

from afterwit.runs.configs.presets import maze
from afterwit.runs.configs.run_config import from_dict, to_dict


def with_field(name: str, value: object) -> dict[str, Any]:
    data = to_dict(maze())
    data["learner"]["world_model"][name] = value
    return data


def test_a_field_that_is_gone_is_dropped_where_it_changed_nothing() -> None:
    assert from_dict(with_field("expected_reads", "belief")) == maze()


@pytest.mark.parametrize("value", ("action", "actions", None, ["belief"]))
def test_a_field_that_is_gone_and_meant_something_is_named(value: object) -> None:
    with pytest.raises(ValueError, match=r"expected_reads is .*, which this version"):
        from_dict(with_field("expected_reads", value))
