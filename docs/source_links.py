"""Turns `world_models/open_loop.py: pair_mask` in a page into a link to that function's source.

The name must be on the page `generated/source.md`, so that a function that is gone is an error.
"""

from __future__ import annotations

import importlib
import inspect
import re
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

REFERENCE = re.compile(r"(?<![\w/])((?:envs|world_models|agents|runs)/[\w/]+)\.py: ([\w.]+)")


class SourceLinks(SphinxTransform):
    default_priority = 5

    def apply(self, **options: Any) -> None:
        for node in list(self.document.findall(nodes.literal)):
            found = REFERENCE.fullmatch(node.astext())
            if found and isinstance(node.parent, nodes.Element):
                target = f"afterwit.{found[1].replace('/', '.')}.{found[2]}"
                link = addnodes.pending_xref(
                    "", refdomain="py", reftype="obj", reftarget=target, refwarn=True,
                    refdoc=self.env.docname,
                )  # fmt: skip
                link += node.deepcopy()
                node.replace_self(link)


def page(docs: Path) -> str:
    """The page with every function and class that some page refers to."""
    texts = [path.read_text(encoding="utf-8") for path in docs.rglob("*.md")]
    found = sorted({pair for text in texts for pair in REFERENCE.findall(text)})
    parts = ["# Source", "", "What other pages refer to. Each entry links to its source.", ""]
    for module, name in found:
        dotted = f"afterwit.{module.replace('/', '.')}"
        kind = kind_of(importlib.import_module(dotted), name)
        parts += ["```{eval-rst}", f".. {kind}:: {dotted}.{name}", "```", ""]
    return "\n".join(parts)


def kind_of(module: ModuleType, name: str) -> str:
    """The directive that documents a function, a class, or Class.method."""
    owner, _, attribute = name.partition(".")
    if not attribute:
        return "autoclass" if inspect.isclass(getattr(module, name)) else "autofunction"
    inner = inspect.getattr_static(getattr(module, owner), attribute)
    return "autoproperty" if isinstance(inner, property | cached_property) else "automethod"
