"""``gpunet train --diagnose``: what goes on inside the network while it trains, as figures, JSON and a verdict."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy.typing as npt

from gpunet.diagnostics import Diagnosis, DiagnosticsCallback, Finding, Thresholds, draw_layers, draw_training, inspect
from gpunet.errors import counted
from gpunet.files import write_text
from gpunet.network import Network
from gpunet.plotting import save_figure

DIAGNOSTICS = "diagnostics"
# What a diverged run writes, beside an older diagnosis.
DIVERGED_DIAGNOSTICS = "diverged-diagnostics"
ROWS = 512
# Inspections of a run, however long it is.
RECORDS = 10
_DPI = 150


class RunDiagnosis:
    """Inspects a network while it trains and when it has, always on the same training rows.

    Parameters
    ----------
    X, y : array_like
        What the network trains on.
    epochs : int
    l2 : float

    Attributes
    ----------
    callback : DiagnosticsCallback
        For ``fit``.
    final : Diagnosis
        After :meth:`write`: of the network that was kept.
    """

    final: Diagnosis

    def __init__(self, X: npt.NDArray[Any], y: npt.NDArray[Any], epochs: int, l2: float) -> None:
        self.callback = DiagnosticsCallback(X, y, every=-(-epochs // RECORDS), rows=ROWS, l2=l2)
        self._l2 = l2

    def write(self, network: Network, folder: Path, name: str = DIAGNOSTICS) -> list[Path]:
        """Inspect the network as it is now and write figures and numbers of it and of the run.

        Returns
        -------
        list of Path
            The JSON file first.
        """
        X, y = self.callback.sample
        self.final = inspect(network, X, y, l2=self._l2)
        paths = [folder / f"{name}.json"]
        write_text(paths[0], json.dumps(self._to_dict(), allow_nan=False) + "\n")
        figures = {
            f"{name}-layers": draw_layers(
                self.final, title=f"Activations and gradients of {counted(self.final.rows, 'row')}"
            ),
            f"{name}-training": draw_training(self.callback.records),
        }
        for stem, figure in figures.items():
            for suffix in (".png", ".svg"):
                paths.append(save_figure(figure, folder / f"{stem}{suffix}", dots_per_inch=_DPI))
                figure.set_layout_engine("none")  # found once, kept for the next file
        return paths

    @property
    def findings(self) -> list[str]:
        """What looks wrong in the network that was kept, and the largest update of the run if it was too large."""
        return [*map(str, self.final.findings()), *_largest_update(self.callback.records)]

    def verdict(self) -> list[str]:
        """Return the lines that the shell prints."""
        if not self.findings:
            return [f"diagnosis of {self.final.rows} training rows: nothing unusual"]
        return [f"diagnosis of {self.final.rows} training rows:", *(f"  {finding}" for finding in self.findings)]

    def _to_dict(self) -> dict[str, Any]:
        return {
            "findings": self.findings,
            "thresholds": asdict(Thresholds()),
            "final": self.final.to_dict(),
            "training": [record.to_dict() for record in self.callback.records],
        }


def _largest_update(records: Sequence[Diagnosis]) -> list[str]:
    large: list[tuple[int | None, Finding]] = [
        (record.epoch, finding) for record in records for finding in record.findings() if finding.kind == "large_update"
    ]
    if not large:
        return []
    epoch, finding = max(large, key=lambda one: one[1].value)
    return [f"{finding}, in epoch {epoch}; a lower learning rate may help"]
