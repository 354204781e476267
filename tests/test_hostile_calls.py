"""The public API called with values that make no sense: only typed errors, and nothing changed after one.

Every value is given for every argument; a longer run (``GPUNET_HOSTILE_CALLS=13000``) goes on with random pairs.
"""

from __future__ import annotations

import copy
import datetime
import decimal
import itertools
import os
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet import data_initializers, diagnostics
from tests.helpers.networks import learnable, small_network

X, Y = learnable(12)


class Raises:
    """Looks like an array and raises what a tensor with gradients does."""

    shape = (12, 6)

    def __array__(self, *arguments: Any, **options: Any) -> Any:
        raise RuntimeError("Can't call numpy() on a tensor\nthat requires grad")

    def __float__(self) -> float:
        raise RuntimeError("no")


class OnlyDlpack:
    """Gives its values by DLPack and in no other way."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


class BrokenDlpack(OnlyDlpack):
    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("cannot export a tensor on this device")


class RaisingCuda:
    @property
    def __cuda_array_interface__(self) -> Any:
        raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad")


class Unhashable:
    __hash__ = None  # type: ignore[assignment]


HOSTILE: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "True": lambda: True,
    "text": lambda: "a",
    "empty text": lambda: "",
    "bytes": lambda: b"1",
    "number as text": lambda: "0.5",
    "-1": lambda: -1,
    "0": lambda: 0,
    "1": lambda: 1,
    "0.5": lambda: 0.5,
    "NaN": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "complex": lambda: 1j,
    "NumPy complex": lambda: np.complex64(1),
    "huge integer": lambda: 10**400,
    "2**64": lambda: 2**64,
    "1e300": lambda: 1e300,
    "1e-45": lambda: 1e-45,
    "decimal": lambda: decimal.Decimal("sNaN"),
    "list": list,
    "dict": dict,
    "nested list": lambda: [["relu"]],
    "dict in a list": lambda: [{}],
    "set": lambda: {1, 2},
    "generator": lambda: (part for part in ()),
    "object": object,
    "class": lambda: int,
    "function": lambda: lambda *arguments, **options: "nothing",
    "unhashable": Unhashable,
    "raises": Raises,
    "raising CUDA": RaisingCuda,
    "broken DLPack": lambda: BrokenDlpack(X),
    "date": lambda: datetime.date(2026, 1, 1),
    "0-d array": lambda: np.array(1.0),
    "0-d integer array": lambda: np.array(1),
    "0-d object array": lambda: np.array(None),
    "one number": lambda: np.ones(1),
    "empty array": lambda: np.ones(0),
    "empty rows": lambda: np.ones((0, 6)),
    "no columns": lambda: np.ones((12, 0)),
    "three dimensions": lambda: np.ones((12, 6, 1)),
    "NaN array": lambda: np.full((12, 6), np.nan),
    "inf array": lambda: np.full((12, 6), np.inf),
    "large array": lambda: np.full((12, 6), 1e300),
    "subnormal weights": lambda: np.full(12, 1e-45),
    "subnormal weight": lambda: np.where(np.arange(12) == 5, 1e-40, 1.0),
    "tiny weights": lambda: np.full(12, 1e-300),
    "complex array": lambda: X + 1j,
    "complex matrix": lambda: np.ones((16, 6), complex),
    "text matrix": lambda: np.full((16, 6), "1.5"),
    "date matrix": lambda: np.zeros((16, 6), "datetime64[s]"),
    "duration matrix": lambda: np.zeros((16, 6), "timedelta64[s]"),
    "masked matrix": lambda: np.ma.MaskedArray(np.ones((16, 6)), mask=np.eye(16, 6)),
    "object matrix": lambda: np.ones((16, 6), object),
    "structured": lambda: np.zeros(12, "f4,f4"),
    "text array": lambda: np.full(12, "a"),
    "objects": lambda: np.full((12, 6), None),
    "dates": lambda: np.zeros((12, 6), "datetime64[s]"),
    "durations": lambda: np.zeros(12, "timedelta64[s]"),
    "masked": lambda: np.ma.MaskedArray(X, mask=X > 0),
    "ragged": lambda: [[1], [1, 2]],
    "labels too large": lambda: np.full(12, 3),
    "negative labels": lambda: -Y,
    "negative weights": lambda: -np.ones(12),
    "no weights": lambda: np.zeros(12),
    "mapping": lambda: {"W1": 1},
    "mapping of text": lambda: {"W1": np.full((16, 6), "x")},
    "mapping of complex": lambda: {"b2": np.ones(3, complex)},
    "mapping of unknown": lambda: {"W1": np.zeros((16, 6)), 3: 1},
    "mapping of None": lambda: {0: None},
    "mapping of complex labels": lambda: {1j: 1.0},
    "pair": lambda: (None, None),
    "pair of arrays": lambda: (X[:, :2], Y),
}

NETWORK_ARGUMENTS = (
    *("layer_sizes", "activation", "output_activation", "batch_norm", "scale_shift", "batch_norm_momentum"),
    *("batch_norm_epsilon", "bias_before_batch_norm", "dropout", "initializer", "initial_bias", "loss", "seed"),
    *("dtype", "precision", "device"),
)
FIT_ARGUMENTS = (
    *("network", "X", "y", "epochs", "batch_size", "optimizer", "l2", "clip_norm", "accumulate", "average", "shuffle"),
    "validation",
    *("class_weight", "sample_weight", "early_stopping", "callbacks", "checkpoint", "resume"),
)


def places() -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Return by name what is called, and its arguments where all is well."""
    data: dict[str, Any] = {"network": None, "X": X, "y": Y}
    found: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
        "Network": (gpunet.Network, dict.fromkeys(NETWORK_ARGUMENTS)),
        "fit": (gpunet.fit, dict.fromkeys(FIT_ARGUMENTS)),
        "SGD": (gpunet.SGD, {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
        "AdamW": (gpunet.AdamW, {"learning_rate": 0.1, "weight_decay": 0, "beta_1": 0, "beta_2": 0, "epsilon": 1}),
        "EarlyStopping": (gpunet.EarlyStopping, {"patience": 1, "minimum_change": 0, "monitor": "validation_loss"}),
        "StepRate": (gpunet.StepRate, {"initial": 0.1, "every": 3, "factor": 0.1}),
        "ReduceOnPlateauRate": (
            gpunet.ReduceOnPlateauRate,
            {"initial": 1, "factor": 0, "patience": 0, "threshold": 0, "cooldown": 0, "minimum": 0, "monitor": "loss"},
        ),
        "WeightAverage": (gpunet.WeightAverage, {"decay": 0.9}),
        "LossCurve": (gpunet.LossCurve, {"path": "curve.png"}),
        "evaluate": (gpunet.evaluate, data | {"sample_weight": None}),
        "inspect": (
            diagnostics.inspect,
            data | {"l2": 0, "sample_weight": None, "before": {}, "bins": 4},
        ),
        "check_gradients": (
            diagnostics.check_gradients,
            data | {"l2": 0, "sample_weight": None, "directions": 1, "step": 1e-5},
        ),
        "lsuv": (data_initializers.lsuv, {"network": None, "X": X, "tolerance": 0.1, "max_iterations": 9}),
        "data_dependent": (data_initializers.data_dependent, {"network": None, "X": X, "balance": None}),
        "export_onnx": (
            gpunet.export_onnx,
            {"network": None, "path": "model.onnx", "bare": False, "dtype": None, "input_dtype": None},
        ),
        "export_safetensors": (gpunet.export_safetensors, {"network": None, "path": "w.safetensors", "bare": False}),
        "load_state_dict": (gpunet.load_state_dict, {"network": None, "source": {}, "layers": None}),
        "load": (gpunet.load, {"path": "model.npz", "device": "cpu", "activations": (), "loss": None}),
        "Activation": (
            gpunet.Activation,
            {
                "name": "cube",
                "forward": lambda s: s**3,
                "derivative": lambda s: 3 * s**2,
                "derivative_of": "input",
                "cuda_forward": "s * s * s",
                "cuda_derivative": "3 * s * s",
            },
        ),
        "CustomLoss": (
            gpunet.CustomLoss,
            {
                "name": "absolute",
                "value": lambda outputs, targets: np.abs(outputs - targets).sum(axis=1),
                "gradient": lambda outputs, targets: np.sign(outputs - targets),
                "targets": "numbers",
            },
        ),
        "change_rates": (data_initializers.change_rates, {"network": None, "X": X}),
    }
    methods: dict[str, dict[str, Any]] = {
        "logits": {"X": X},
        "predict": {"X": X},
        "predict_proba": {"X": X},
        "loss_and_gradients": {"X": X, "y": Y, "l2": 0, "sample_weight": None, "input_gradient": False},
        "set_parameters": {"values": {}},
        "set_step": {"step": 3},
        "save": {"path": "model.npz"},
    }
    for method, arguments in methods.items():

        def call(network: gpunet.Network, method: str = method, **arguments: Any) -> Any:
            return getattr(network, method)(**arguments)

        found[method] = call, {"network": None, **arguments}

    for name in ("W1", "b2", "running_variance1"):

        def set_one(network: gpunet.Network, value: Any, name: str = name) -> None:
            network.set_parameters({name: value})

        found[f"set {name}"] = set_one, {"network": None, "value": 1}
    return found


PLACES = places()
# What a test calls itself: there, None is not gpunet's to refuse.
OWN = {"logits", "predict", "predict_proba", "loss_and_gradients", "set_parameters", "set_step", "save"}
# Integers that are only too large to wait for.
COUNTS, ENDLESS = {"epochs", "directions", "bins", "max_iterations"}, {"huge integer", "2**64"}
CONSTRUCTORS = {
    *("Network", "SGD", "AdamW", "EarlyStopping", "StepRate", "ReduceOnPlateauRate", "WeightAverage", "LossCurve"),
    *("load", "Activation", "CustomLoss"),
}


class Model:
    """A network that has been trained, with its optimiser, and what they were."""

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.y = np.abs(np.tanh(X[:, :3])) if "loss" in arguments else Y
        self.restore()

    def restore(self) -> None:
        self.network, self.optimizer = small_network(**self.arguments), gpunet.Adam()
        gpunet.fit(self.network, X, self.y, epochs=1, optimizer=self.optimizer)
        self.before = self.state()

    def state(self) -> list[Any]:
        moments = self.optimizer.moments.values()
        arrays = [self.network.flat_parameters, self.network.flat_state, self.network.step_count.on_device, *moments]
        counts = (self.network.steps, self.optimizer.step)
        return [*(array.tobytes() for array in arrays), counts, copy.copy(self.network.metadata)]


def call(model: Model, place: str, hostile: dict[str, Any]) -> bool:
    """Make one call; return whether it was refused. Anything but a typed error, or a change after one, fails."""
    function, usual = PLACES[place]
    arguments = dict(usual)
    if place == "Network":
        arguments = {"layer_sizes": [6, 16, 3], "device": "cpu"}
    elif place == "fit":
        arguments = {"X": X, "y": Y, "epochs": 1, "optimizer": model.optimizer}
    if place not in CONSTRUCTORS:
        arguments["network"] = model.network
    if "y" in arguments:
        arguments["y"] = model.y
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", RuntimeWarning)  # overflow, which numbers of 1e300 ask for
            function(**arguments | hostile)
    except gpunet.GpunetError as error:
        message = str(error)
        assert "\n" not in message, (place, hostile, message)
        assert len(message) > 10, (place, hostile, message)
        # A run that began, and diverged, goes back to good weights, and its optimiser starts afresh.
        if not isinstance(error, gpunet.TrainingDivergedError):
            assert model.state() == model.before, (place, hostile)
        else:
            model.restore()
        return True
    except BaseException as error:
        raise AssertionError(f"{place}({hostile}) raised {error!r}") from error
    if place not in CONSTRUCTORS:
        model.restore()
    return False


def combinations() -> list[tuple[str, str, str]]:
    return [
        (place, argument, value)
        for place, (_, arguments) in PLACES.items()
        for argument in arguments
        for value in HOSTILE
        if not (argument == "network" and (place in OWN or place.startswith("set ")))
        and not (argument in COUNTS and value in ENDLESS)
    ]


KINDS = [{}, {"loss": "squared_error", "dropout": 0.2}, {"loss": "sigmoid_cross_entropy", "batch_norm": False}]


@pytest.mark.parametrize("arguments", KINDS)
def test_every_value_for_every_argument(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    small_network().save("model.npz")
    model, refused = Model(**arguments), 0
    everything = combinations()
    for place, argument, value in everything:
        refused += call(model, place, {argument: HOSTILE[value]()})
    assert len(everything) > 6000
    assert refused > 0.9 * len(everything)  # 0.5 is a fine momentum


def test_random_pairs_of_values(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    generator, model = random.Random(0), Model(dtype="float64", activation="tanh")
    everything = combinations()
    by_place = {place: list(part) for place, part in itertools.groupby(everything, key=lambda one: one[0])}
    for _ in range(int(os.environ.get("GPUNET_HOSTILE_CALLS", "500"))):
        part = by_place[generator.choice(list(by_place))]
        chosen = generator.sample(part, min(2, len(part)))
        call(model, chosen[0][0], {argument: HOSTILE[value]() for _, argument, value in chosen})


@pytest.mark.parametrize(
    "values", [lambda: OnlyDlpack(X), lambda: OnlyDlpack(X.astype(np.float32)), lambda: np.ma.MaskedArray(X)]
)
def test_what_can_be_read_is_read(values):
    network = small_network()
    np.testing.assert_allclose(network.logits(values()), network.logits(X), rtol=1e-6)
    network.set_parameters({"W2": OnlyDlpack(np.full((3, 16), 0.5))})
    assert (network.parameters["W2"] == 0.5).all()
    gpunet.fit(network, values(), OnlyDlpack(Y), epochs=1)
