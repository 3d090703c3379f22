"""Turns `world_models/open_loop.py: pair_mask` in a page into a link to that function's source.

The name must be on the page `generated/source.md`, so that a function that is gone is an error.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

REFERENCE = re.compile(r"((?:envs|world_models|agents|runs)/[\w/]+)\.py: ([\w.]+)")


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
        kind = "automethod" if "." in name else kind_of(importlib.import_module(dotted), name)
        parts += ["```{eval-rst}", f".. {kind}:: {dotted}.{name}", "```", ""]
    return "\n".join(parts)


def kind_of(module: ModuleType, name: str) -> str:
    return "autoclass" if inspect.isclass(getattr(module, name)) else "autofunction"
