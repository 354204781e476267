"""One HTML page with every experiment: figures and numbers are inside it, and nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import html
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import gpunet
from gpunet.files import write_text
from gpunet.lecture.building import Outcome
from gpunet.lecture.corrections import CORRECTIONS
from gpunet.lecture.experiment import Settings

PAGE = "index.html"
# A figure goes in as SVG, sharp at any size, unless its many points make that larger than this.
LARGEST_SVG = 600_000


def write_page(outcomes: Sequence[Outcome], settings: Settings, device: str, folder: Path) -> Path:
    """Write ``index.html`` beside the files of the experiments, and return its path.

    Parameters
    ----------
    outcomes : sequence of Outcome
        In the order of the rows. Those without an error have written their files into the folder.
    settings : Settings
    device : str
        What ``settings.device`` turned out to be.
    folder : Path
    """
    failed = [outcome for outcome in outcomes if outcome.error]
    parts = [
        _HEAD,
        _navigation(outcomes),
        _INTRODUCTION,
        _facts(settings, device),
        *([_failures(failed, len(outcomes))] if failed else []),
        *(_section(outcome, folder) for outcome in outcomes),
        _corrections(),
        "</main>\n</body>\n</html>\n",
    ]
    return write_text(folder / PAGE, "\n".join(parts))


def _navigation(outcomes: Sequence[Outcome]) -> str:
    links = "\n".join(
        f'<li><a href="#{outcome.experiment.name}"><span>{outcome.experiment.row}</span> '
        f"{html.escape(outcome.experiment.title)}</a></li>"
        for outcome in outcomes
    )
    return (
        f'<nav aria-label="Rows of the lecture">\n<ol>\n{links}\n'
        '<li><a href="#corrections">Corrections to the text</a></li>\n</ol>\n</nav>'
    )


def _facts(settings: Settings, device: str) -> str:
    command = ["gpunet", "lecture", "all", "--seed", str(settings.seed), "--device", settings.device]
    facts = {"seed": str(settings.seed), "device": device, "gpunet": gpunet.__version__, "NumPy": np.__version__}
    if settings.quick:
        command.append("--quick")
        facts["sizes"] = "quick: so small that what the lecture says need not show"
    listed = "\n".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>" for name, value in facts.items()
    )
    return f'<dl class="facts">\n{listed}\n</dl>\n<pre><code>{html.escape(shlex.join(command))}</code></pre>'


def _failures(failed: Sequence[Outcome], total: int) -> str:
    items = "\n".join(
        f'<li><a href="#{outcome.experiment.name}">{outcome.experiment.row} {outcome.experiment.name}</a>: '
        f"{html.escape(outcome.error)}</li>"
        for outcome in failed
    )
    heading = f"<p>{len(failed)} of {total} experiments failed.</p>"
    return f'<div class="failure" role="alert">\n{heading}\n<ul>\n{items}\n</ul>\n</div>'


def _section(outcome: Outcome, folder: Path) -> str:
    experiment = outcome.experiment
    lines = [
        f'<section id="{experiment.name}">',
        f"<h2><span>{experiment.row}</span> {html.escape(experiment.title)}</h2>",
        f'<p class="shows">{html.escape(experiment.shows)}</p>',
    ]
    if outcome.error:
        lines.append(f'<p class="failure">This experiment failed: {html.escape(outcome.error)}</p>')
    else:
        numbers = folder / f"{experiment.name}.json"
        paragraph = json.loads(numbers.read_text(encoding="utf-8"))["paragraph"]
        lines += [
            f'<figure><img alt="{html.escape(experiment.figure)}." src="{_figure(folder, experiment.name)}"></figure>',
            f"<p>{html.escape(paragraph)}</p>",
            *([_TIMED] if experiment.is_timed else []),
            f'<p class="files"><code>{experiment.command}</code> &middot; '
            f'<a download="{numbers.name}" href="{_data_uri(numbers, "application/json")}">its numbers as JSON</a></p>',
        ]
    return "\n".join([*lines, "</section>"])


def _figure(folder: Path, name: str) -> str:
    svg = folder / f"{name}.svg"
    # As images rather than as elements of the page: the ids inside two figures may be the same.
    is_small = svg.stat().st_size <= LARGEST_SVG
    return _data_uri(svg, "image/svg+xml") if is_small else _data_uri(svg.with_suffix(".png"), "image/png")


def _corrections() -> str:
    items = "\n".join(f"<li><strong>{rows}.</strong> {html.escape(text)}</li>" for rows, text in CORRECTIONS)
    return (
        '<section id="corrections">\n<h2>Corrections to the text</h2>\n'
        "<p>Where the lecture's text is wrong, garbled or ambiguous, the code does this.</p>\n"
        f"<ul>\n{items}\n</ul>\n</section>"
    )


def _data_uri(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


_TIMED = '<p class="shows">Its times are those of the machine that built this page; another run has others.</p>'

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fdfdfb; --faint: #5b6570; --line: #d9dde2; --link: #0b5cad;
  --alarm: #a31515; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e6ea; --paper: #16191d; --faint: #9aa5b1; --line: #343b44;
  --link: #7db8f5; --alarm: #ff8f80; } }
* { box-sizing: border-box; }
body { margin: 0; display: grid; grid-template-columns: 17rem minmax(0, 1fr); color: var(--ink);
  background: var(--paper); font: 1.05rem/1.6 Georgia, "Times New Roman", serif; }
nav { position: sticky; top: 0; height: 100vh; overflow-y: auto; padding: 1.5rem 1rem;
  font: 0.85rem/1.4 system-ui, sans-serif; border-right: 1px solid var(--line); }
nav ol { list-style: none; margin: 0; padding: 0; }
nav a { display: block; padding: 0.2rem 0.4rem; color: inherit; text-decoration: none; }
nav a:hover, nav a:focus { background: var(--line); }
nav span, h2 span { color: var(--faint); font-variant-numeric: tabular-nums; }
nav span { display: inline-block; min-width: 2rem; }
main { max-width: 62rem; padding: 2rem clamp(1rem, 4vw, 4rem); }
h1, h2 { font-family: system-ui, sans-serif; line-height: 1.25; }
section { padding-top: 1.5rem; border-top: 1px solid var(--line); margin-top: 2.5rem; }
section > p, main > p, section > ul { max-width: 44rem; }
a { color: var(--link); }
figure { margin: 1rem 0; padding: 0.5rem; background: #fff; border: 1px solid var(--line); border-radius: 4px; }
img { display: block; width: 100%; height: auto; }
code, pre { font: 0.85em/1.5 ui-monospace, Menlo, Consolas, monospace; }
pre { padding: 0.6rem 0.8rem; border: 1px solid var(--line); overflow-x: auto; }
.facts { display: flex; flex-wrap: wrap; gap: 0.3rem 1.5rem; font: 0.9rem/1.4 system-ui, sans-serif; }
.facts div { display: flex; gap: 0.4rem; }
.facts dt { color: var(--faint); }
.facts dd { margin: 0; }
.shows, .files { color: var(--faint); }
.files { font-size: 0.9rem; }
.failure { color: var(--alarm); border-left: 4px solid var(--alarm); padding-left: 0.8rem; }
@media (max-width: 60rem) { body { display: block; } nav { position: static; height: auto; max-height: 40vh;
  border-right: 0; border-bottom: 1px solid var(--line); } }
@media print { nav { display: none; } body { display: block; } figure { break-inside: avoid; } }
"""

_HEAD = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>k-layer neural networks, row by row</title>
<style>{_STYLE}</style>
</head>
<body>"""

_INTRODUCTION = """<main>
<h1>k-layer neural networks, row by row</h1>
<p>Each section is one row of lecture 4 of DD2424, run with gpunet: its networks were trained with the library's own \
layers, and what a paragraph says of a figure was computed from the figure's numbers.</p>"""
