"""What every estimator of gpunet.classic refuses, by name and before anything changes; and that its help says so."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import scipy.sparse

from gpunet.classic import DeltaRule, Madaline, RestrictedBoltzmannMachine
from gpunet.errors import (
    DeviceError,
    GpunetError,
    InvalidTypeError,
    InvalidValueError,
    NotFittedError,
    TrainingDivergedError,
)
from tests.helpers.classic import (
    KINDS,
    METHODS,
    METHODS_WITH_TARGETS,
    X,
    Y,
    fit_quietly,
    has_targets,
    same_state,
    small,
)
from tests.test_hostile_calls import HOSTILE

FLAG = [(0, InvalidTypeError), (None, InvalidTypeError), ("no", InvalidTypeError)]
COUNT = [(0, InvalidValueError), (-1, InvalidValueError), (2.5, InvalidTypeError), ("many", InvalidTypeError)]
RATE = [(-0.1, InvalidValueError), (math.nan, InvalidValueError), ("fast", InvalidTypeError)]
# For every estimator that has the parameter.
BAD = {
    **dict.fromkeys(["scale_inputs", "scale_targets"], FLAG),
    **dict.fromkeys(["averaged", "bias", "shuffle", "persistent", "sample_visible", "linear_code"], FLAG),
    **dict.fromkeys(["epochs", "max_epochs", "batch_size", "gibbs_steps", "n_components", "max_flips"], COUNT),
    **dict.fromkeys(["learning_rate", "pretraining_learning_rate", "code_learning_rate", "l2", "tolerance"], RATE),
    "seed": [(-1, InvalidValueError), (2**64, InvalidValueError), (0.5, InvalidTypeError), (None, InvalidTypeError)],
    "momentum": [(1.0, InvalidValueError), (-0.1, InvalidValueError), ("slow", InvalidTypeError)],
    "pretraining_epochs": [(-1, InvalidValueError), (0.5, InvalidTypeError)],
    "hidden_layer_sizes": [
        ((), InvalidValueError),
        ((5, 0), InvalidValueError),
        ((5, 2.5), InvalidTypeError),
        (7, InvalidTypeError),
        ("57", InvalidTypeError),
        ((5, 2**31), InvalidValueError),
    ],
    "initial_range": [(0, InvalidValueError), (1e308, InvalidValueError)],
    "initializer": [("xavier", InvalidValueError)],
    "update": [("patterns", InvalidValueError), (["pattern"], InvalidValueError)],
    "output": [("majorty", InvalidValueError), (None, InvalidValueError)],
    "dtype": [("int32", InvalidValueError), ("numbers", InvalidTypeError)],
    "device": [("cuda:99", DeviceError)],
}
# For one of them: what it alone refuses, or a message that says more.
SPECIAL = [
    (Madaline, {"hidden_units": 0}, InvalidValueError, "hidden_units"),
    (Madaline, {"hidden_units": 2.0}, InvalidTypeError, "hidden_units"),
    (Madaline, {"hidden_units": 4, "output": "majority"}, InvalidValueError, "hidden_units: 4 units can tie.*odd"),
    (Madaline, {"hidden_units": 200, "max_flips": 3}, InvalidValueError, "max_flips: 3 flips of 200 .* 1333500 trials"),
    (Madaline, {"output": "majorty"}, InvalidValueError, "output: 'majorty'.*'majority'"),
    (Madaline, {"learning_rate": 1.5}, InvalidValueError, "learning_rate"),
    (Madaline, {"max_epochs": None}, InvalidTypeError, "max_epochs"),
    (DeltaRule, {"update": "patterns"}, InvalidValueError, "update: 'patterns'.*'pattern'"),
    (DeltaRule, {"hidden_units": 0}, InvalidValueError, "hidden_units"),
    (DeltaRule, {"hidden_units": (3, -1)}, InvalidValueError, "hidden_units"),
    (DeltaRule, {"hidden_units": None}, InvalidTypeError, "hidden_units"),
    (DeltaRule, {"hidden_units": "ab"}, InvalidTypeError, "hidden_units: got 'ab'"),
    (DeltaRule, {"hidden_units": np.array(2.0)}, InvalidTypeError, "hidden_units"),
    (DeltaRule, {"learning_rate": 1e308, "update": "epoch"}, InvalidValueError, r"learning_rate: 1e\+308 is too large"),
    (RestrictedBoltzmannMachine, {"hidden_units": ["gaussian"]}, InvalidValueError, "hidden_units"),
    (RestrictedBoltzmannMachine, {"hidden_units": "gausian"}, InvalidValueError, "'gausian' is not.*mean 'gaussian'"),
    *((kind, {"learning_rate": 0}, InvalidValueError, "learning_rate") for kind in KINDS[1:4]),
    *((kind, {"learning_rate": None}, InvalidTypeError, "learning_rate") for kind in KINDS[2:]),
]
CASES = [
    *((kind, {name: value}, error, name) for kind in KINDS for name in BAD for value, error in BAD[name]),
    *SPECIAL,
]


@pytest.mark.parametrize(
    ("kind", "parameters", "error", "message"),
    [case for case in CASES if case[1].keys() <= case[0]().get_params().keys()],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value),
)
def test_parameters_that_make_no_sense_are_refused_by_name(kind, parameters, error, message):
    fitted = fit_quietly(small(kind), X, Y).set_params(**parameters)
    for model in (small(kind, **parameters), fitted):
        before = dict(vars(model))
        for method in METHODS_WITH_TARGETS[:2]:
            if hasattr(model, method):
                with pytest.raises(error, match=message):
                    getattr(model, method)(X, Y)
        assert same_state(model, before)


ODD = {
    "complex": X + 1j,
    "masked": np.ma.masked_array(X, X > 0.5),
    "dates": np.full(X.shape, np.datetime64("2020-01-01")),
    "durations": np.full(X.shape, np.timedelta64(1)),
    "text": np.full(X.shape, "a"),
    "one text": "text",
    "bytes": b"text",
    "sparse matrix": scipy.sparse.csr_matrix(X),
    "sparse array": scipy.sparse.csr_array(X),
    "records": np.zeros(X.shape, "f4,f4"),
    "0-d": np.array(1.0),
    "number": 1.0,
    "None": None,
    "mapping": {"a": 1},
    "object": object(),
    **{name: HOSTILE[name]() for name in ("raises", "raising CUDA", "broken DLPack", "unhashable")},
    "function": len,
    "ragged": [[1, 2, 3], [1, 2]],
    "three dimensions": X[None],
    "huge integers": [[10**400] * 3] * len(X),
    "no rows": X[:0],
    "no columns": X[:, :0],
    "infinite": np.full(X.shape, np.inf),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("kind", KINDS)
def test_data_that_are_no_numbers_are_refused_before_anything_changes(kind, odd):
    model = fit_quietly(small(kind), X, Y)
    before = dict(vars(model))
    values = ODD[odd]
    calls = [(method, (values,)) for method in METHODS]
    calls += [(method, (values, Y)) for method in METHODS_WITH_TARGETS]
    if has_targets(kind):
        calls += [(method, (X, values)) for method in METHODS_WITH_TARGETS]
    for method, arguments in calls:
        if hasattr(model, method):
            with pytest.raises(GpunetError, match=r"^(X|y|H|codes): ") as caught:
                getattr(model, method)(*arguments)
            assert isinstance(caught.value, (TypeError, ValueError))
            assert same_state(model, before), method


@pytest.mark.parametrize("kind", KINDS)
def test_any_value_of_any_parameter_is_learnt_with_or_refused_by_name(kind):
    for name in kind().get_params():
        for what, make in HOSTILE.items():
            if name.endswith("epochs") and what in ("huge integer", "2**64"):
                continue  # nothing is wrong with them but that they take for ever
            model = small(kind, **{name: make()})
            before = dict(vars(model))
            refusal = None
            try:
                fit_quietly(model, X, Y)
            except GpunetError as error:
                refusal = error
            if refusal is not None:
                assert name in str(refusal) or isinstance(refusal, TrainingDivergedError), what
                assert same_state(model, before), (name, what)


@pytest.mark.parametrize("kind", KINDS)
def test_what_fit_provides_is_not_there_before(kind):
    for method in [*METHODS, "score"]:
        if hasattr(kind, method):
            arguments = (X, Y) if method == "score" else (X,)
            with pytest.raises(NotFittedError, match=rf"^{method}: this {kind.__name__} is not fitted yet"):
                getattr(small(kind), method)(*arguments)
    assert issubclass(NotFittedError, (ValueError, AttributeError))


def test_a_machine_draws_nothing_before_fit():
    with pytest.raises(NotFittedError, match="sample: this RestrictedBoltzmannMachine is not fitted yet"):
        RestrictedBoltzmannMachine(device="cpu").sample()


@pytest.mark.parametrize("kind", KINDS)
def test_help_says_what_a_method_takes_and_raises(kind):
    """Also where the method, or its docstring, is another class's."""
    assert inspect.getdoc(kind).count("Parameters\n-----") == 1
    for name in kind().get_params():
        assert any(name in line.split(" : ")[0].split(", ") for line in inspect.getdoc(kind).splitlines()), name
    for method in [*METHODS, *METHODS_WITH_TARGETS, "sample"]:
        if hasattr(kind, method):
            text = inspect.getdoc(getattr(kind, method))
            assert text.count("Raises\n------") == 1, method
            assert "ShapeError, InvalidTypeError, NonFiniteError, InvalidValueError\n    " in text
            learns = method in ("fit", "partial_fit")
            assert ("TrainingDivergedError\n    " if learns else "NotFittedError\n    ") in text
            if learns:
                names = list(inspect.signature(getattr(kind, method)).parameters)[1:]
                assert all(f"\n{name} : " in text for name in names), method
