"""Sphinx's settings. `make docs` builds the site, with warnings as errors and without a network."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import generate
import mathml
import source_links
from sphinx.application import Sphinx

project = "Afterwit"
author = "The Afterwit developers"
release = metadata.version("afterwit")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "Afterwit"
html_show_copyright = False
html_static_path = ["style"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
default_role = "code"
nitpicky = True
nitpick_ignore_regex = [("py:class", ".*")]  # types in signatures, which have no page here
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
autodoc_inherit_docstrings = False
autodoc_type_aliases = {"Array": "numpy.ndarray"}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_use_rtype = False
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True


def setup(app: Sphinx) -> dict[str, Any]:
    generate.write(Path(__file__).parent)
    app.add_transform(source_links.SourceLinks)
    app.add_html_math_renderer("mathml", mathml.inline, mathml.displayed)
    return {"parallel_read_safe": True}
