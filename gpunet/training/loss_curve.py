"""The curves of loss and accuracy while a network trains: in a notebook, and in a file."""

from __future__ import annotations

import io
import os
import sys
import time
from typing import Any

from gpunet.errors import InvalidValueError
from gpunet.plotting import check_figure_path, save_figure
from gpunet.training.callbacks import Callback, Run
from gpunet.training.history import EpochRecord

_SECONDS_BETWEEN_DRAWINGS = 1.0


class LossCurve(Callback):
    """Draws loss and accuracy over the epochs, anew after an epoch, at most once a second, and at the end.

    In a notebook the figure is below the cell; elsewhere only in a file.

    Parameters
    ----------
    path : path or None
        A file that is replaced at each drawing; its ending (.png, .svg, .pdf) says the format. None for no file.

    Raises
    ------
    MissingDependencyError
        The package matplotlib is not installed.
    InvalidValueError, InvalidTypeError
        It is no path, or matplotlib does not know its ending; or there is none, and this is no notebook.
    OSError
        While training: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._path = None if path is None else check_figure_path(path)
        self._handle: Any = None  # of what is shown in a notebook
        if path is None and not _is_notebook():
            raise InvalidValueError("path: None, and this is no notebook. Expected a file for the figure.")

    def on_fit_start(self, run: Run) -> None:
        self._drawn, self._epochs_drawn, self._handle = -_SECONDS_BETWEEN_DRAWINGS, len(run.history), None

    def on_epoch_end(self, run: Run, record: EpochRecord) -> None:
        if time.perf_counter() - self._drawn >= _SECONDS_BETWEEN_DRAWINGS:
            self._draw(run)

    def on_fit_end(self, run: Run) -> None:
        if len(run.history) > self._epochs_drawn:
            self._draw(run)

    def _draw(self, run: Run) -> None:
        figure, _ = run.history.figure()
        if self._path is not None:
            save_figure(figure, self._path)
        if _is_notebook():
            self._show(figure)
        self._drawn, self._epochs_drawn = time.perf_counter(), len(run.history)

    def _show(self, figure: Any) -> None:
        from IPython.display import Image, display

        drawing = io.BytesIO()
        figure.savefig(drawing, format="png")
        image = Image(data=drawing.getvalue())
        if self._handle is None:
            self._handle = display(image, display_id=True)
        else:
            self._handle.update(image)


def _is_notebook() -> bool:
    """Return whether this runs in a kernel of Jupyter, which shows figures."""
    ipython = sys.modules.get("IPython")
    return getattr(None if ipython is None else ipython.get_ipython(), "kernel", None) is not None
