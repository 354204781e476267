"""Loss and accuracy drawn while a network trains: in a file, and in a notebook."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import gpunet
from gpunet.training import loss_curve
from tests.helpers.networks import learnable, small_network


def fit(*callbacks: gpunet.Callback, epochs: int = 4) -> gpunet.History:
    X, y = learnable(60)
    return gpunet.fit(small_network(), X, y, epochs=epochs, validation=(X, y), callbacks=callbacks)


class Looking(gpunet.Callback):
    """Keeps what the file is after each epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: list[bytes] = []

    def on_epoch_end(self, run: gpunet.Run, record: gpunet.EpochRecord) -> None:
        self.found.append(self.path.read_bytes())


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_file_is_there_after_the_first_epoch_and_complete_at_the_end(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"curve{suffix}"
    looking = Looking(path)
    history = fit(gpunet.LossCurve(path), looking)
    assert looking.found[0].startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    assert path.read_bytes() == history.plot(tmp_path / f"expected{suffix}").read_bytes()
    assert path.read_bytes() != looking.found[0]


def test_it_is_drawn_at_most_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, drawn = [0.0], []
    monkeypatch.setattr(loss_curve, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(loss_curve, "save_figure", lambda figure, path: drawn.append(now[0]))

    class Lasting(gpunet.Callback):
        def on_epoch_end(self, run: gpunet.Run, record: gpunet.EpochRecord) -> None:
            now[0] += 0.4

    fit(gpunet.LossCurve(tmp_path / "curve.png"), Lasting(), epochs=8)
    assert drawn == pytest.approx([0.0, 1.2, 2.4, 3.2])


def test_in_a_notebook_one_figure_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    display = pytest.importorskip("IPython.display")
    shown: list[Any] = []

    class Handle:
        def update(self, image: Any) -> None:
            shown.append(("again", image.data[:4]))

    def show(image: Any, display_id: bool) -> Handle:
        shown.append(("new", image.data[:4]))
        return Handle()

    monkeypatch.setattr(display, "display", show)
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setattr(loss_curve, "_SECONDS_BETWEEN_DRAWINGS", 0.0)
    curve = gpunet.LossCurve()
    fit(curve)
    assert shown == [("new", b"\x89PNG"), *[("again", b"\x89PNG")] * 3]
    fit(curve, epochs=1)  # another call, another figure
    assert shown[4:] == [("new", b"\x89PNG")]


def test_a_run_that_ends_by_an_error_is_drawn_as_far_as_it_came(tmp_path: Path) -> None:
    class Failing(gpunet.Callback):
        def on_epoch_end(self, run: gpunet.Run, record: gpunet.EpochRecord) -> None:
            if record.epoch == 3:
                raise ArithmeticError

    path = tmp_path / "curve.png"
    looking = Looking(path)
    with pytest.raises(ArithmeticError):
        fit(gpunet.LossCurve(path), looking, Failing())
    assert path.read_bytes() != looking.found[0]


def test_a_regression_has_no_accuracy_to_draw() -> None:
    X, _ = learnable(40)
    network = small_network(loss="squared_error")
    history = gpunet.fit(network, X, X[:, :3], epochs=2, validation=(X, X[:, :3]))
    assert [axes.get_ylabel() for axes in history.figure()[0].axes] == ["loss"]
    figure, free = fit().figure(beside=2)
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "accuracy", "", ""]
    assert free == figure.axes[2:]


@pytest.mark.parametrize(
    ("path", "message"), [("curve.doc", "ends in '.doc'"), (5, "Expected a path"), (None, "this is no notebook")]
)
def test_what_cannot_be_drawn_is_told_before_training(path: Any, message: str) -> None:
    with pytest.raises((gpunet.InvalidValueError, gpunet.InvalidTypeError), match=f"path: .*{message}"):
        gpunet.LossCurve(path)
