"""The progress bar that the shell and notebooks share."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import gpunet
from gpunet.cli import train
from tests.helpers.networks import learnable, small_network
from tests.training.test_windows import DeviceBackend, run


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def fit(*callbacks: gpunet.Callback, **arguments: Any) -> gpunet.History:
    X, y = learnable(60)
    return gpunet.fit(small_network(), X, y, epochs=3, validation=(X, y), callbacks=callbacks, **arguments)


def test_the_shell_has_the_same() -> None:
    assert train.ProgressBar is gpunet.ProgressBar


def test_in_a_terminal_it_shows_the_last_epoch_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stderr", terminal)

    class Slow(gpunet.Callback):
        """Lets the bar be drawn before it goes."""

        def on_epoch_end(self, run: gpunet.Run, record: gpunet.EpochRecord) -> None:
            bar._bar.refresh()

    bar = gpunet.ProgressBar()
    history = fit(bar, Slow())
    seen = terminal.getvalue()
    assert "epoch 3/3" in seen
    assert f"loss {history['loss'][-1]:.4f}  validation accuracy {history['validation_accuracy'][-1]:.4f}" in seen
    assert seen.endswith(("\x1b[1A\x1b[2K", "\x1b[2K"))  # the line is gone
    assert sys.stderr is terminal


def test_where_nobody_looks_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    fit(gpunet.ProgressBar())
    assert capsys.readouterr() == ("", "")


def test_in_a_notebook_it_is_a_widget_that_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich asks IPython where it is; the widget is ipywidgets', here without a kernel to show it."""
    display = pytest.importorskip("IPython.display")
    widgets = pytest.importorskip("ipywidgets")
    events: list[str] = []

    class Output(widgets.Output):
        def clear_output(self, *arguments: Any, **options: Any) -> None:
            events.append("drawn")

        def close(self) -> None:
            events.append("closed")

        @contextmanager
        def _captured(self) -> Iterator[None]:
            yield

        def __enter__(self) -> None:
            pass

        def __exit__(self, *error: object) -> None:
            pass

    shown: list[Any] = []
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr(widgets, "Output", Output)
    monkeypatch.setattr(display, "display", lambda *values, **options: shown.extend(values))
    history = fit(gpunet.ProgressBar())
    assert isinstance(shown[0], Output)
    assert (events[0], events[-1]) == ("drawn", "closed")
    assert any("epoch" in str(getattr(value, "text", value)) for value in shown[1:])
    assert len(history) == 3


def test_it_leaves_a_device_its_windows() -> None:
    unwatched, backend = DeviceBackend(), DeviceBackend()
    expected = run(unwatched)
    assert run(backend, callbacks=[gpunet.ProgressBar()]) == expected
    assert (backend.recordings, backend.looks) == (unwatched.recordings, unwatched.looks)


def test_a_missing_package_is_told_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    with pytest.raises(gpunet.MissingDependencyError, match="a progress bar needs the package 'rich'"):
        gpunet.ProgressBar()
