"""The documentation builds without a warning, and leaves out nothing that a user meets."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import afterwit.agents
import afterwit.envs
import afterwit.world_models
from afterwit.runs.command_line.main import main
from afterwit.runs.training.run_log import read_metrics
from tests.house.import_graph import SOURCE

DOCS = SOURCE / "docs"
RUNS = {
    "byol-explore": ["maze", "--model", "byol-explore", "--noise", "sticky"],
    "byol-hindsight": ["maze", "--noise", "on-demand"],
    "published": ["maze", "--variant", "published"],
    "rnd": ["gym", "--model", "rnd"],
    "icm": ["maze", "--model", "icm", "--noise", "none"],
    "atari": ["atari-small", "--model", "rnd", "--noise", "on-demand"],
}


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-E", "-W", "--keep-going", "-n", "-q"]
    build = [*command, "-d", str(tmp_path / "trees"), str(DOCS), str(tmp_path / "html")]
    result = subprocess.run(build, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    model = (tmp_path / "html/models/rnd.html").read_text()
    assert 'href="../generated/source.html#afterwit.world_models.models.rnd.RND.forward"' in model
    assert "<math" in model and "cdn." not in model  # formulas need no network


@pytest.mark.parametrize(
    "module", (afterwit.world_models, afterwit.envs, afterwit.agents), ids=lambda m: m.__name__
)
def test_the_api_page_has_every_public_name(module: object) -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    names = [f"{module.__name__}.{name}" for name in module.__all__]  # type: ignore[attr-defined]
    assert [name for name in names if not re.search(rf":: {re.escape(name)}\n", page)] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_every_logged_number_is_explained(name: str, tmp_path: Path) -> None:
    page = (DOCS / "is-it-curiosity.md").read_text(encoding="utf-8")
    size = ["--env.num-envs", "4", "--total-steps", "4000", "--log-interval", "1000", "--quiet"]
    assert main(["train", *RUNS[name], *size, "--out", str(tmp_path / "run")]) == 0
    logged = {number for entry in read_metrics(tmp_path / "run") for number in entry}
    assert sorted(number for number in logged if f"`{number}`" not in page) == []


def test_every_page_is_in_a_table_of_contents() -> None:
    listed = set()
    for page in DOCS.rglob("*.md"):
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
            lines = [line for line in tree.splitlines() if line and not line.startswith(":")]
            listed |= {(page.parent / f"{line}.md").resolve() for line in lines}
    pages = {p.resolve() for p in DOCS.rglob("*.md") if "generated" not in p.parts}
    pages -= {p for p in pages if "_build" in p.parts}
    assert pages - listed == {(DOCS / "index.md").resolve()}
