"""One HTML page with every experiment: figures and numbers are inside it, and nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

import numpy as np

import gpunet
from gpunet.files import write_text
from gpunet.lecture.building import Outcome
from gpunet.lecture.corrections import CORRECTIONS
from gpunet.lecture.experiment import Settings

PAGE = "index.html"
TEMPLATE = Path(__file__).with_suffix(".html")
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
    command = ["gpunet", "lecture", "all", "--seed", str(settings.seed), "--device", settings.device]
    facts = {"seed": str(settings.seed), "device": device, "gpunet": gpunet.__version__, "NumPy": np.__version__}
    if settings.quick:
        command.append("--quick")
        facts["sizes"] = "quick: so small that what the lecture says need not show"
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        navigation=_lines(
            f'<li><a href="#{one.name}"><span>{one.row}</span> {escape(one.title)}</a></li>'
            for one in (outcome.experiment for outcome in outcomes)
        ),
        facts=_lines(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items()),
        command=escape(shlex.join(command)),
        failures=_failures(outcomes),
        sections=_lines(_section(outcome, folder) for outcome in outcomes),
        corrections=_lines(f"<li><strong>{rows}.</strong> {escape(text)}</li>" for rows, text in CORRECTIONS),
    )
    return write_text(folder / PAGE, page)


def _lines(parts: Iterable[str]) -> str:
    return "\n".join(parts)


def _failures(outcomes: Sequence[Outcome]) -> str:
    failed = [outcome for outcome in outcomes if outcome.error]
    if not failed:
        return ""
    items = (
        f'<li><a href="#{one.name}">{one.row} {one.name}</a>: {escape(error)}</li>'
        for one, error in ((outcome.experiment, outcome.error) for outcome in failed)
    )
    heading = f"<p>{len(failed)} of {len(outcomes)} experiments failed.</p>"
    return f'<div class="failure" role="alert">\n{heading}\n<ul>\n{_lines(items)}\n</ul>\n</div>'


def _section(outcome: Outcome, folder: Path) -> str:
    one = outcome.experiment
    parts = [
        f'<section id="{one.name}">',
        f"<h2><span>{one.row}</span> {escape(one.title)}</h2>",
        f'<p class="shows">{escape(one.shows)}</p>',
    ]
    if outcome.error:
        return _lines([*parts, f'<p class="failure">This experiment failed: {escape(outcome.error)}</p>', "</section>"])
    numbers = folder / f"{one.name}.json"
    paragraph = json.loads(numbers.read_text(encoding="utf-8"))["paragraph"]
    parts.append(f'<figure><img alt="{escape(one.figure)}." src="{_figure(folder, one.name)}"></figure>')
    parts.append(f"<p>{escape(paragraph)}</p>")
    if one.is_timed:
        timed = "Its times are those of the machine that built this page; another run has others."
        parts.append(f'<p class="shows">{timed}</p>')
    download = f'<a download="{numbers.name}" href="{_data_uri(numbers, "application/json")}">its numbers as JSON</a>'
    return _lines([*parts, f'<p class="files"><code>{one.command}</code> &middot; {download}</p>', "</section>"])


def _figure(folder: Path, name: str) -> str:
    svg = folder / f"{name}.svg"
    # As images rather than as elements of the page: the ids inside two figures may be the same.
    is_small = svg.stat().st_size <= LARGEST_SVG
    return _data_uri(svg, "image/svg+xml") if is_small else _data_uri(svg.with_suffix(".png"), "image/png")


def _data_uri(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
