"""Formulas as MathML, which browsers draw by themselves, without a network or a script."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml


def _write(translator: Any, formula: str, display: bool) -> None:
    html = latex2mathml.tex2mathml(formula, as_block=display)
    translator.body.append(f'<div class="math">{html}</div>' if display else html)
    raise nodes.SkipNode


def _visit(translator: Any, node: nodes.math) -> None:
    _write(translator, node.astext(), display=False)


def _visit_block(translator: Any, node: nodes.math_block) -> None:
    _write(translator, node.astext(), display=True)


inline = (_visit, None)
displayed = (_visit_block, None)
