"""Self-contained HTML pages: style, tables, embedded pictures."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from afterwit.runs.output.figure_style import Picture
from afterwit.runs.output.files import PAGE, atomic_write

CSS = """
:root{color-scheme:light} *{box-sizing:border-box}
body{margin:0 auto;max-width:1060px;padding:1.5rem 1rem 4rem;
  font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;color:#222;background:#fff}
h1{font-size:1.05rem;color:#6b6b6b;font-weight:600;margin:0 0 .5rem}
h2{font-size:1.3rem;margin:2.8rem 0 .6rem} h3{font-size:1rem;margin:1.8rem 0 .4rem}
.lead{font-size:1.45rem;line-height:1.35;margin:.3rem 0 .6rem;max-width:46rem}
ul.notes{margin:.3rem 0 1.4rem;padding-left:1.1rem;color:#444;max-width:46rem}
.note{color:#6b6b6b;font-size:.9rem;max-width:46rem}
img,video{max-width:100%;height:auto;display:block}
video{width:560px;image-rendering:pixelated;margin:.6rem 0}
.wide{overflow-x:auto;margin:.8rem 0} .wide img{min-width:640px;width:100%}
.grid{display:grid;gap:.6rem 1rem;
  grid-template-columns:repeat(auto-fill,minmax(min(100%,310px),1fr))}
.maps{grid-template-columns:repeat(auto-fill,minmax(min(100%,420px),1fr))} .grid img{width:100%}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}
td,th{padding:.22rem .7rem .22rem 0;text-align:right;white-space:nowrap}
th{font-weight:600;color:#6b6b6b;border-bottom:1px solid #bbb;vertical-align:bottom;
  white-space:normal}
td:first-child,th:first-child{text-align:left}
tr.mean td{font-weight:600;border-top:1px solid #e4e4e4} tr.run td:first-child{padding-left:1rem}
pre{overflow-x:auto;font-size:.8rem;background:#f6f6f6;padding:.8rem}
.prose td{white-space:normal;text-align:left;vertical-align:top} .prose th{text-align:left}
.prose td:first-child{white-space:nowrap} .prose td:nth-child(3){color:#555;font-size:.95em}
.names td:nth-child(2),.names th:nth-child(2){text-align:left}
tr.good td:first-child{color:#1a7f37;font-weight:600}
tr.bad td:first-child{color:#b42318;font-weight:600}
tr.open td:first-child{color:#6b6b6b;font-weight:600} tr.first td{border-top:1px solid #e4e4e4}
summary{cursor:pointer;padding:.2rem 0} code{font-size:.88em;overflow-wrap:anywhere}
"""


def page(title: str, body: Sequence[str], style: str = "") -> str:
    """Return a whole page with the parts of `body`. `style` is CSS of its own."""
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width,'
        f' initial-scale=1"><title>{escape(title)}</title>'
    )
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{CSS}{style}</style></head>\n<body>\n'
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def write_html(title: str, body: Sequence[str], out: Path) -> Path:
    """Write OUT/report.html with the parts of `body`. Returns its path."""
    path = out / PAGE
    with atomic_write(path) as file:
        # a folder's name need not be Unicode
        file.write(page(title, body).encode(errors="backslashreplace"))
    return path


def image(picture: Picture) -> str:
    """Return an <img> tag with the picture embedded."""
    data = base64.b64encode(picture.png).decode()
    return f'<img alt="{escape(picture.alt)}" src="data:image/png;base64,{data}">'


def film(video: bytes) -> str:
    """Return a <video> tag with an mp4 embedded, which plays by itself, again and again."""
    data = base64.b64encode(video).decode()
    return (
        f'<video autoplay loop muted controls playsinline src="data:video/mp4;base64,{data}">'
        "</video>"
    )


def table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Return an HTML table. `rows` are (CSS class, cells); everything is escaped."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        f'<tr class="{kind}">{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for kind, cells in rows
    )
    return (
        f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def as_text(name: str, value: float | None) -> str:
    """Return a number as text: shares as percent, other numbers with two digits, – if missing."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.1%}" if name.startswith(("reached/", "share_")) else f"{value:,.2f}"
