"""The page of `afterwit watch`: a frame whose parts its script fetches again and again."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

from afterwit.runs.output import html
from afterwit.runs.output.text import in_one_line

# The sections of the page, in its order, and their headings.
SECTIONS = {"head": "", "film": "The newest episode", "map": "The map", "curves": "The run so far"}
STYLE = """
.facts{margin:.2rem 0 .7rem;color:#444;font-variant-numeric:tabular-nums}
.state{display:inline-block;padding:0 .6rem;margin-right:.5rem;border-radius:1rem;color:#fff;
  font-size:.85rem;font-weight:600;background:#6b6b6b}
.state.training{background:#0077bb} .state.finished{background:#1a7f37}
.bar{height:6px;border-radius:3px;background:#e9e9e9;overflow:hidden}
.bar div{height:100%;background:#0077bb;transition:width .6s}
.problem{color:#b42318;max-width:46rem;overflow-wrap:anywhere}
h2{margin-top:2rem} section:has(>.part:empty){display:none}
#lost{position:sticky;top:0;margin:0;padding:.4rem .8rem;background:#fdecea;color:#b42318}
video{width:auto;max-width:min(100%,640px);max-height:26rem;margin:0 0 .4rem}
"""
LOST = '<p id="lost" hidden>afterwit watch has ended: this is what it showed last.</p>'
SECONDS = 2  # from one look at a part to the next
# A part is fetched with the version that the page has, and answered with 204 if that is the newest.
# A new version is swapped in once its pictures are decoded, so that nothing flickers.
SCRIPT = """
async function refresh(part) {
  const lost = document.getElementById("lost");
  try {
    if (!document.hidden) {
      const answer = await fetch(`/part/${part.id}?have=${part.dataset.version}`);
      const text = await answer.text();
      lost.hidden = true;
      if (text) {
        const fresh = document.createElement("div");
        fresh.innerHTML = text;
        const pictures = [...fresh.querySelectorAll("img")];
        await Promise.allSettled(pictures.map(picture => picture.decode()));
        part.replaceChildren(...fresh.childNodes);
        part.dataset.version = answer.headers.get("X-Version") || "";
      }
      const lead = part.querySelector(".lead");
      if (lead) document.title = lead.dataset.title;
    }
  } catch (error) {
    lost.hidden = false;
  }
  setTimeout(refresh, SECONDS * 1000, part);
}
document.querySelectorAll(".part").forEach(part => refresh(part));
"""


def whole_page(folder: Path, parts: Mapping[str, tuple[str, str]]) -> str:
    """Return the page.

    Args:
      folder: the run folder.
      parts: name -> HTML and version of what is known of a part already.
    """
    body = [LOST, f"<h1>Afterwit: watching {escape(str(folder))}</h1>"]
    for name, heading in SECTIONS.items():
        content, version = parts.get(name, ("", ""))
        title = f"<h2>{heading}</h2>" if heading else ""
        part = f'<div class="part" id="{name}" data-version="{version}">{content}</div>'
        body.append(f"<section>{title}{part}</section>")
    body.append(f"<script>const SECONDS = {SECONDS};{SCRIPT}</script>")
    return html.page("Afterwit", body, STYLE)


def problem(text: str) -> str:
    """Return what went wrong as one line of HTML."""
    return f'<p class="problem">{escape(in_one_line(text))}</p>'
