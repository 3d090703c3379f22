"""The import graph of the house, read from its source: who imports whom, circles, chains.

`python -m tests.house.import_graph` prints it.
"""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
ROOMS = ("envs", "world_models", "agents", "runs")
# Within runs/, a package imports only from the packages of the lines above it.
ORDER = (
    ("output",),
    ("configs",),
    ("training",),
    ("evaluation", "benchmarks", "drills"),
    ("diagnostics", "reports", "representation"),
    ("studies", "watching"),
    ("command_line",),
)


@cache
def files() -> dict[str, Path]:
    """Every module of the house by its name, such as afterwit.runs.output.files."""
    return {
        ".".join(("afterwit", *path.relative_to(SOURCE).with_suffix("").parts)): path
        for room in ROOMS
        for path in sorted((SOURCE / room).rglob("*.py"))
    }


def imported(text: str) -> set[str]:
    """The names that a file imports, also inside functions and where only types are checked."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def module_of(name: str) -> str | None:
    """The module of the house that an imported name is, or lies in."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        module = ".".join(parts[:count])
        for found in (module, f"{module}.__init__"):
            if found in files():
                return found
    return None


@cache
def graph() -> dict[str, set[str]]:
    """Module -> the modules of the house that it imports."""
    return {
        name: {
            module
            for each in imported(path.read_text(encoding="utf-8"))
            if (module := module_of(each)) is not None and module != name
        }
        for name, path in files().items()
    }


def circle(edges: dict[str, set[str]]) -> list[str]:
    """The modules of one import circle; none if there is no circle."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def longest_chain(edges: dict[str, set[str]]) -> list[str]:
    """The longest chain of imports, from who imports to who is imported. Needs a graph without
    circles.
    """
    chains: dict[str, list[str]] = {}
    for name in TopologicalSorter(edges).static_order():
        below = max((chains[other] for other in edges.get(name, ())), key=len, default=[])
        chains[name] = [name, *below]
    return max(chains.values(), key=len)


def package(name: str) -> str:
    """What a module's place in the order is decided by: a room, or a package of runs/."""
    parts = name.split(".")
    return f"runs.{parts[2]}" if parts[1] == "runs" and len(parts) > 3 else parts[1]


def allowed(name: str) -> set[str]:
    """The packages that the modules of package `name` may import."""
    if not name.startswith("runs."):
        return set(ROOMS[: ROOMS.index(name) + 1])
    floor = next(number for number, row in enumerate(ORDER) if name[5:] in row)
    below = {f"runs.{each}" for row in ORDER[:floor] for each in row}
    return {*ROOMS[:3], name} | below


def main() -> None:
    edges = graph()
    print(f"{len(edges)} files, {sum(map(len, edges.values()))} imports")
    print("circles:", " -> ".join(circle(edges)) or "none")
    if not circle(edges):
        chain = longest_chain(edges)
        print(f"longest chain, {len(chain)} files:", " -> ".join(chain))
    for name, count in sorted(Counter(map(package, edges)).items()):
        print(f"  {name:<20} {count} files")


if __name__ == "__main__":
    main()
