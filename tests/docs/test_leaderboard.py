"""The pages of the leaderboard and of the method have the numbers of their ledger."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from afterwit.runs.studies.ledger import read_ledger
from afterwit.runs.studies.ledger_study import ledger_study
from afterwit.runs.studies.standings import Standings, standings, standings_markdown
from afterwit.runs.studies.variants import TUNED
from afterwit.world_models.registry import MIXTURES, WORLD_MODELS
from tests.house.import_graph import SOURCE

pytest.importorskip("scipy.stats", reason="pip install -e '.[study]'")
RESULTS = SOURCE / "docs" / "results"
WORDS = ("", "one seed", "two seeds", "three seeds", "four seeds", "five seeds")


@pytest.fixture(scope="module")
def found() -> Standings:
    study = ledger_study(RESULTS / "ledgers" / "noisy-tv.csv", Path("nowhere"))
    result = standings(study)
    assert result is not None
    return replace(result, worlds=result.common)


def test_the_table_is_that_of_the_ledger(found: Standings) -> None:
    page = (RESULTS / "leaderboard.md").read_text(encoding="utf-8")
    assert f"\n{standings_markdown(found)}\n" in page
    assert {each.method for each in found.methods} > set(WORLD_MODELS) - set(MIXTURES)


@pytest.mark.parametrize(
    ("mark", "worlds"),
    (
        ("maze", ("brownian", "pixel", "frozen")),
        ("branches", ("branches-none", "branches-on-demand", "branches-sticky")),
    ),
)
def test_the_tables_of_other_worlds_are_those_of_the_ledger(
    found: Standings, mark: str, worlds: tuple[str, ...]
) -> None:
    page = (RESULTS / "leaderboard.md").read_text(encoding="utf-8")
    told = page.split(f"<!-- {mark} -->")[1].split(f"<!-- /{mark} -->")[0].strip().splitlines()
    names, *rows = (line.strip("| ").split(" | ") for line in told if "---" not in line)
    assert tuple(names[1:]) == worlds
    scores = {f"`{each.method}`": each.scores for each in found.methods}
    for method, *cells in rows:
        for world, cell in zip(worlds, cells, strict=True):
            runs = scores[method].get(world)
            single = "" if runs is None else " ".join(f"{score:.2f}" for score in runs)
            assert cell == ("not run" if runs is None else f"{runs.mean():.2f} ({single})")
    assert {row[0].strip("`") for row in rows} > set(WORLD_MODELS) - set(MIXTURES)


def test_the_table_of_no_ops_is_that_of_the_ledger() -> None:
    page = (RESULTS / "leaderboard.md").read_text(encoding="utf-8")
    text = page.split("## Does it seek the noise?")[1].split("\n## ")[0]
    told = {row[0]: row[1:] for row in re.findall(r"\| `([\w-]+)` \| (.*?) \| (.*?) \|", text)}
    rows = read_ledger(RESULTS / "ledgers" / "noisy-tv.csv")
    for method, columns in told.items():
        for world, column in zip(("on-demand", "none"), columns, strict=True):
            runs = [
                row["share_of_time/noop"]
                for row in rows
                if (row["world"], row["method"]) == (world, method)
            ]
            single = " ".join(f"{share:.2f}" for share in runs)
            assert column == f"{sum(runs) / len(runs):.2f} ({single})", method
    assert len(told) == 18


def test_each_page_of_a_bonus_says_its_own_scores(found: Standings) -> None:
    told = []
    for each in found.methods:
        path = SOURCE / "docs" / "models" / f"{each.method}.md"
        if not path.exists():  # random, and the part of NGU, which has no page of its own
            continue
        text = " ".join(path.read_text(encoding="utf-8").split())
        score = r"(0\.\d\d)"
        pattern = (
            r"\*\*With an agent in the noisy maze\*\*[^!]*?means of (\w+ seeds?) .*?:"
            rf" {score} without noise, {score} with pixels on demand, {score} with sticky actions"
        )
        (said,) = re.findall(pattern, text)
        runs = [each.scores[world] for world in ("none", "on-demand", "sticky")]
        assert said == (WORDS[len(runs[0])], *(f"{scores.mean():.2f}" for scores in runs)), path
        assert f"results/leaderboard/{each.method}.png" in text
        results = text.split("## Results")[1]
        for field, value in TUNED.get(each.method, {}).items():
            option = f"--{field.replace('_', '-')}" + ("" if value is True else f" {value:g}")
            assert option in results, f"{path} does not say how the leaderboard was run"
        told.append(each.method)
    assert len(told) == 13


@pytest.mark.parametrize(
    ("title", "measure", "form", "unit"),
    [("**Score**", "score_all", "{:.2f}", 1), ("**R4, the last chamber", "R4_last", "{:.0f}", 100)],
)
def test_the_method_s_tables_are_those_of_the_ledger(
    title: str, measure: str, form: str, unit: float
) -> None:
    page = (RESULTS / "method.md").read_text(encoding="utf-8").split(title)[1].split("\n**")[0]
    ledger = read_ledger(RESULTS / "ledgers" / "noisy-tv.csv")
    names, _, *lines = [line for line in page.splitlines() if line.startswith("|")]
    methods = [cell.strip() for cell in names.split("|")[2:-1]]
    assert len(lines) == 6 and len(methods) == 3
    percent = "%" if unit == 100 else ""
    for line in lines:
        world, *cells = (cell.strip() for cell in line.split("|")[1:-1])
        for method, cell in zip(methods, cells, strict=True):
            found = {
                row["seed"]: unit * row[measure]
                for row in ledger
                if (row["world"], row["method"]) == (world, method)
            }
            runs = [found[seed] for seed in (5, 6, 7, 8, 9)]
            single = " ".join(form.format(number) for number in runs)
            assert cell == f"{form.format(sum(runs) / 5)}{percent} ({single})", (world, method)
