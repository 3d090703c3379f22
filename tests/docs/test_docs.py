"""The documentation builds without a warning, and leaves out nothing that a user meets."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import afterwit.agents
import afterwit.envs
import afterwit.world_models
from afterwit.runs.command_line.main import main
from afterwit.runs.evaluation.trained_agent import load_agent
from afterwit.runs.training.run_log import read_metrics
from tests.house.import_graph import ORDER, ROOMS, SOURCE

DOCS = SOURCE / "docs"
RUNS = {
    "byol-explore": ["maze", "--model", "byol-explore", "--noise", "sticky"],
    "byol-hindsight": ["maze", "--noise", "on-demand"],
    "published": ["maze", "--variant", "published"],
    "rnd": ["gym", "--model", "rnd"],
    "icm": ["maze", "--model", "icm", "--noise", "none"],
    "counts": ["maze-branches", "--model", "counts"],
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
    assert broken_links(tmp_path / "html") == []
    api = (tmp_path / "html/api.html").read_text()
    assert [name for name in public_names() if f'id="{name}"' not in api] == []


class Links(HTMLParser):
    """What a page links to and embeds, and the places in it that can be linked to."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name in ("href", "src"):
                self.links.append(value)
            elif value and name == "id":
                self.places.add(value)


def broken_links(site: Path) -> list[str]:
    """Links of the built pages, but for those of listed sources, that lead nowhere on the site."""
    pages = {path: Links() for path in site.rglob("*.html") if "_modules" not in path.parts}
    for path, page in pages.items():
        page.feed(path.read_text(encoding="utf-8"))
    broken = []
    for path, page in pages.items():
        for link in page.links:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            known = target not in pages or not url.fragment or url.fragment in pages[target].places
            if not target.is_file() or not known:
                broken.append(f"{path.relative_to(site)}: {link}")
    return broken


def public_names() -> list[str]:
    modules = (afterwit.world_models, afterwit.envs, afterwit.agents)
    names = [f"{module.__name__}.{name}" for module in modules for name in module.__all__]
    return [*names, f"{load_agent.__module__}.{load_agent.__name__}"]


def test_the_api_page_has_every_public_name() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    missing = [name for name in public_names() if not re.search(rf":: {re.escape(name)}\n", page)]
    assert missing == []


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_every_logged_number_is_explained(name: str, tmp_path: Path) -> None:
    page = (DOCS / "is-it-curiosity.md").read_text(encoding="utf-8")
    size = ["--env.num-envs", "4", "--total-steps", "4000", "--log-interval", "1000", "--quiet"]
    assert main(["train", *RUNS[name], *size, "--out", str(tmp_path / "run")]) == 0
    logged = {number for entry in read_metrics(tmp_path / "run") for number in entry}
    assert sorted(number for number in logged if f"`{number}`" not in page) == []


def test_how_it_works_has_the_order_of_the_packages() -> None:
    page = (DOCS / "how-it-works.md").read_text(encoding="utf-8")
    rows = [re.findall(r"`([\w/]+)`", row.split("|")[1]) for row in page.splitlines() if "|" in row]
    rooms = [(f"{room}/",) for room in ROOMS if room != "runs"]
    packages = [(f"runs/{row[0]}", *row[1:]) for row in ORDER]
    assert [tuple(row) for row in rows if row] == [*rooms, *packages]


def test_generated_pages_that_are_kept_are_those_of_the_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(DOCS)
    kept = importlib.import_module("generate").kept(DOCS)
    old = [path.name for path, text in kept.items() if path.read_text(encoding="utf-8") != text]
    assert old == [], "make docs writes them anew"
    assert len(kept) == 7


def test_every_page_is_in_a_table_of_contents() -> None:
    listed = set()
    for page in DOCS.rglob("*.md"):
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
            lines = [line for line in tree.splitlines() if line and not line.startswith(":")]
            listed |= {(page.parent / f"{line}.md").resolve() for line in lines}
    pages = {p.resolve() for p in DOCS.rglob("*.md") if "generated" not in p.parts}
    pages -= {p for p in pages if "_build" in p.parts}
    assert pages - listed == {(DOCS / "index.md").resolve()}


def test_pages_name_only_tests_that_are_there() -> None:
    for page in [*DOCS.rglob("*.md"), SOURCE / "README.md", SOURCE / "CONTRIBUTING.md"]:
        for name in re.findall(r"tests/[\w/]*\w+\.py", page.read_text(encoding="utf-8")):
            assert (SOURCE / name).exists(), f"{page.name}: {name}"


def test_the_numbers_of_the_noises_are_those_of_the_results() -> None:
    page = (DOCS / "noises.md").read_text(encoding="utf-8")
    results = (DOCS / "results" / "method.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [a-z-]+ \| 0\..*", page, re.M)
    assert len(rows) == 6
    for row in rows:
        name, *numbers = re.findall(r"[a-z-]+(?= \|)|-?\d\.\d\d \[[^]]+\]|0\.\d\d|\d+%", row)
        assert len(numbers) == 8
        there = "".join(line for line in results.splitlines() if line.startswith(f"| {name} |"))
        assert [number for number in numbers if number not in there] == [], row
