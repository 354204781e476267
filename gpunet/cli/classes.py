"""Which classes a table turned out to have, and which rows of each a network learns: for people and for JSON."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpunet.data import DataSet, Split
from gpunet.data.splits import FEWEST_OF_A_CLASS
from gpunet.errors import counted

# A table of prices that is taken for classes has thousands; JSON has them all.
_MOST_LISTED = 20


@dataclass(frozen=True)
class ClassRows:
    """How many rows of a class there are, in all and in each part of a split."""

    name: str
    rows: int
    train: int
    validation: int
    test: int


def count_classes(data: DataSet, split: Split) -> list[ClassRows]:
    """Return the classes in the order of their labels; none for a regression."""
    if data.class_names is None or data.targets is None:
        return []
    labels = data.targets
    parts = [labels, labels[split.train], labels[split.validation], labels[split.test]]
    counts = [np.bincount(part, minlength=len(data.class_names)).tolist() for part in parts]
    return [ClassRows(name, *rows) for name, *rows in zip(data.class_names, *counts, strict=True)]


def class_lines(classes: list[ClassRows]) -> list[str]:
    """Return a line of the classes and their rows, and one of those that are too rare to be split."""
    if not classes:
        return []
    rare = [one for one in classes if one.rows < FEWEST_OF_A_CLASS]
    lines = [f"{counted(len(classes), 'class')} and their rows: {_listing(classes)}"]
    if rare:
        lines.append(f"all rows of {_listing(rare)} are for training, because a class of fewer than 3 cannot be split")
    return lines


def _listing(classes: list[ClassRows]) -> str:
    listed = [f"{one.name} ({one.rows:,})" for one in classes[:_MOST_LISTED]]
    if len(classes) > _MOST_LISTED:
        listed.append(f"... ({len(classes) - _MOST_LISTED:,} more)")
    return ", ".join(listed)
