"""Columns that have names: a network that knows them takes them in any order, and no others."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas
import pytest

import gpunet
from gpunet.data import scale_inputs
from tests.helpers.cli import shell, write_blobs

Ask = Callable[[gpunet.Network, Any], Any]
LABELS = np.arange(60) % 2
INPUTS = np.random.default_rng(1).standard_normal((60, 3))

ASKS: dict[str, Ask] = {
    "scale_inputs": scale_inputs,
    "predict": lambda network, X: network.predict(X),
    "predict_proba": lambda network, X: network.predict_proba(X),
    "logits": lambda network, X: network.logits(X),
    "loss_and_gradients": lambda network, X: network.loss_and_gradients(X, LABELS)[0],
    "evaluate": lambda network, X: gpunet.evaluate(network, X, LABELS).loss,
    "fit": lambda network, X: gpunet.fit(network, X, LABELS, epochs=1)["loss"],
    "validation": lambda network, X: gpunet.fit(network, INPUTS, LABELS, epochs=1, validation=(X, LABELS))[
        "validation_loss"
    ],
}


class Table:
    """A DataFrame of another library: all that is known of it is that it is an array with names of columns."""

    def __init__(self, values: npt.NDArray[Any], columns: Any) -> None:
        self.values, self.columns = values, columns

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self.values


@pytest.fixture
def trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[gpunet.Network, npt.NDArray[Any]]:
    """A network that the shell trained, and the features."""
    monkeypatch.chdir(tmp_path)
    features, _ = write_blobs(Path("places.csv"))
    model = shell(capsys, "train", "places.csv", "--target", "place", "--epochs", 2, "--layers", 8, "--json").json
    return gpunet.load(model["model"], device="cpu"), features


NAMES = ["width", "height", "depth"]


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())
def test_columns_in_another_order_are_put_into_the_networks(ask: Ask, trained: Any) -> None:
    network, features = trained
    frame = pandas.DataFrame(features, columns=NAMES)
    expected = ask(gpunet.load("runs/places/model.safetensors", device="cpu"), frame)
    assert np.array_equal(ask(network, frame[["depth", "width", "height"]]), expected)


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())
@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        (["width", "height", "length"], "lacks the column 'depth'"),
        (["a", "b", "c"], "lacks the column 'width'"),
        (["width", "height"], "lacks the column 'depth'"),
        (["width", "height", "depth", "place"], "has a column 'place'"),
        (["width", "height", "depth", "depth"], "has 4 columns of 3 names"),
    ],
)
def test_other_columns_are_refused(columns: list[str], problem: str, ask: Ask, trained: Any) -> None:
    network, _ = trained
    before = network.get_parameters()
    with pytest.raises(gpunet.InvalidValueError, match=rf"^(validation )?X: {problem}\. Expected the columns"):
        ask(network, pandas.DataFrame(np.zeros((60, len(columns))), columns=columns))
    assert all(np.array_equal(values, before[name]) for name, values in network.get_parameters().items())


@pytest.mark.parametrize(
    "columns",
    [range(3), [0, "height", "depth"], [("width", 1), ("height", 1), ("depth", 1)], [], lambda: NAMES, 3, None],
)
def test_columns_without_names_go_by_their_order(columns: Any, trained: Any) -> None:
    network, features = trained
    assert np.array_equal(network.predict(Table(features, columns)), network.predict(features))


def test_a_network_of_arrays_without_names_goes_by_their_order(tmp_path: Path, capsys: Any) -> None:
    """The names that stand for the columns of an NPZ file are nobody's."""
    features = INPUTS
    np.savez(tmp_path / "arrays.npz", X=features, y=LABELS)
    out = tmp_path / "run"
    model = shell(capsys, "train", tmp_path / "arrays.npz", "--epochs", 1, "--layers", 4, "--out", out, "--json").json
    network = gpunet.load(model["model"], device="cpu")
    for ask in ASKS.values():
        expected = ask(gpunet.load(model["model"], device="cpu"), features)
        assert np.array_equal(ask(copy.deepcopy(network), pandas.DataFrame(features, columns=NAMES)), expected)


def test_no_library_of_tables_is_needed(trained: Any) -> None:
    network, features = trained
    swapped = Table(features[:, ::-1], NAMES[::-1])
    assert np.array_equal(scale_inputs(network, swapped), scale_inputs(network, features))
    assert np.array_equal(network.predict(swapped), network.predict(features))


@pytest.mark.parametrize(
    "metadata", [{}, {"data": None}, {"data": {}}, {"data": {"feature_names": 3}}, {"data": {"feature_names": ["a"]}}]
)
def test_a_network_that_knows_no_names_takes_all(metadata: dict[str, Any]) -> None:
    network = gpunet.Network([2, 2], device="cpu")
    network.metadata = metadata
    features = np.random.default_rng(0).standard_normal((5, 2))
    assert np.array_equal(network.predict(pandas.DataFrame(features, columns=["b", "a"])), network.predict(features))
