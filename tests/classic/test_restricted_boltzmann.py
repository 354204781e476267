"""The restricted Boltzmann machine (L13): energies and conditionals against enumeration, its habits as an estimator."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest

from gpunet import ReduceOnPlateauRate, StepRate, WarmUpRate
from gpunet.classic import RestrictedBoltzmannMachine
from gpunet.classic.hidden_units import BernoulliUnits
from gpunet.data import load_for_training
from gpunet.errors import (
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
    TrainingDivergedError,
)

VISIBLE, HIDDEN = 4, 3
EXACT = {"rtol": 1e-12, "atol": 1e-12}
BITS = np.array(list(itertools.product([0.0, 1.0], repeat=VISIBLE)))
HIDDEN_BITS = np.array(list(itertools.product([0.0, 1.0], repeat=HIDDEN)))


def machine(hidden_units="bernoulli", hidden=HIDDEN, scale=1.0, **arguments):
    """Return a machine with weights and biases of the size of ``scale``, in float64 on the CPU."""
    generator = np.random.default_rng(3)
    arguments = {"dtype": "float64", "device": "cpu", "hidden_units": hidden_units, **arguments}
    made = RestrictedBoltzmannMachine(n_components=hidden, epochs=1, learning_rate=0.0, **arguments).fit(BITS)
    made.components_ = scale * generator.standard_normal((hidden, VISIBLE))
    made.intercept_hidden_ = scale * generator.standard_normal(hidden)
    made.intercept_visible_ = scale * generator.standard_normal(VISIBLE)
    return made


def joint(model):
    """Return exp(-E(v, h)) for every v (rows) and every h (columns), one pair at a time from the definition."""
    table = np.empty((len(BITS), len(HIDDEN_BITS)))
    for (row, v), (column, h) in itertools.product(enumerate(BITS), enumerate(HIDDEN_BITS)):
        energy = 0.0
        for i, j in itertools.product(range(VISIBLE), range(HIDDEN)):
            energy -= h[j] * model.components_[j, i] * v[i]
        energy -= sum(model.intercept_visible_[i] * v[i] for i in range(VISIBLE))
        energy -= sum(model.intercept_hidden_[j] * h[j] for j in range(HIDDEN))
        table[row, column] = np.exp(-energy)
    return table


def exact_probabilities(model):
    """Return p(v) of every v in ``BITS``."""
    table = joint(model) if model.hidden_units == "bernoulli" else np.exp(-model.free_energy(BITS))[:, np.newaxis]
    return table.sum(axis=1) / table.sum()


# --- energies and conditional distributions ---------------------------------------------------------------------------


def test_free_energy_is_minus_the_log_of_the_sum_over_the_hidden_units():
    model = machine()
    np.testing.assert_allclose(model.free_energy(BITS), -np.log(joint(model).sum(axis=1)), **EXACT)


def test_probabilities_from_the_free_energy_sum_to_one():
    model = machine()
    Z = joint(model).sum()
    assert np.isclose((np.exp(-model.free_energy(BITS)) / Z).sum(), 1, rtol=1e-12)


def test_free_energy_of_gaussian_units_is_minus_the_log_of_the_integral_over_them():
    model = machine("gaussian", hidden=2, scale=0.5)
    grid = np.linspace(-14, 14, 561)
    step = grid[1] - grid[0]
    first, second = np.meshgrid(grid, grid, indexing="ij")
    h = np.stack([first.ravel(), second.ravel()], axis=1)
    centred = ((h - model.intercept_hidden_) ** 2).sum(axis=1) / 2
    for v, free_energy in zip(BITS, model.free_energy(BITS), strict=True):
        energy = -model.intercept_visible_ @ v + centred - h @ (model.components_ @ v)
        # The trapezoid rule on a smooth function that has vanished at both ends converges faster than any power.
        np.testing.assert_allclose(free_energy, -np.log(np.exp(-energy).sum() * step**2), rtol=1e-10)


@pytest.mark.parametrize("scale", [300.0, 1e4])
def test_free_energy_of_large_weights_does_not_overflow(scale):
    model = machine(scale=scale)
    s = BITS @ model.components_.T + model.intercept_hidden_
    # exp(s) overflows a float64; where |s| is in the hundreds, log(1 + exp(s)) is max(0, s) to the last digit.
    expected = -BITS @ model.intercept_visible_ - np.maximum(s, 0).sum(axis=1)
    assert (np.abs(s) > 37).all()
    np.testing.assert_allclose(model.free_energy(BITS), expected, rtol=1e-12, atol=np.exp(-37))
    assert np.isfinite(model.pseudo_log_likelihood(BITS)).all()


def test_the_sum_of_softplus_of_many_units_against_numpys_logarithm_of_sums():
    s = np.random.default_rng(0).normal(0, 20, (3, 2501))
    s[0], s[1, ::2] = 0, -1000  # the largest product of factors, and the smallest
    expected = np.logaddexp(0, s).sum(axis=1)
    # Each factor is rounded by half an epsilon.
    np.testing.assert_allclose(
        BernoulliUnits().log_partition(s, np.zeros(2501)), expected, rtol=1e-15, atol=2501 * 2e-16
    )


def test_conditional_probabilities_against_enumeration():
    model, table = machine(), joint(machine())
    of_h_given_v = table / table.sum(axis=1, keepdims=True) @ HIDDEN_BITS
    of_v_given_h = (table / table.sum(axis=0)).T @ BITS
    np.testing.assert_allclose(model.transform(BITS), of_h_given_v, **EXACT)
    np.testing.assert_allclose(model.inverse_transform(HIDDEN_BITS), of_v_given_h, **EXACT)
    np.testing.assert_allclose(model.reconstruct(BITS), model.inverse_transform(of_h_given_v), **EXACT)


def test_the_mean_of_gaussian_units_is_linear():
    model = machine("gaussian")
    np.testing.assert_allclose(model.transform(BITS), BITS @ model.components_.T + model.intercept_hidden_, **EXACT)


@pytest.mark.parametrize("hidden_units", ["bernoulli", "gaussian"])
def test_pseudo_log_likelihood_against_enumeration(hidden_units):
    model = machine(hidden_units)
    p = dict(zip(map(tuple, BITS), exact_probabilities(model), strict=True))
    expected = np.zeros(len(BITS))
    for row, v in enumerate(BITS):
        for i in range(VISIBLE):
            other = v.copy()
            other[i] = 1 - other[i]
            expected[row] += np.log(p[tuple(v)] / (p[tuple(v)] + p[tuple(other)]))
    np.testing.assert_allclose(model.pseudo_log_likelihood(BITS), expected, **EXACT)
    np.testing.assert_array_equal(model.score_samples(BITS), model.pseudo_log_likelihood(BITS))
    assert np.isclose(model.score(BITS), expected.mean(), rtol=1e-12)


def test_pseudo_log_likelihood_counts_a_probability_as_both_of_its_bits():
    model = machine()
    v = np.array([[1.0, 0.25, 0.0, 1.0]])
    half_way, one, zero = v.copy(), v.copy(), v.copy()
    one[0, 1], zero[0, 1] = 1, 0
    s = half_way @ model.components_.T + model.intercept_hidden_
    expected = 0.0
    for i in range(VISIBLE):
        with_i, without_i = half_way.copy(), half_way.copy()
        with_i[0, i], without_i[0, i] = 1, 0
        p = 1 / (1 + np.exp(model.free_energy(with_i)[0] - model.free_energy(without_i)[0]))
        expected += half_way[0, i] * np.log(p) + (1 - half_way[0, i]) * np.log(1 - p)
    assert s.shape == (1, HIDDEN)
    np.testing.assert_allclose(model.pseudo_log_likelihood(half_way), expected, rtol=1e-12)


def test_more_rows_than_one_block_of_the_host_or_the_device_give_the_same_values():
    model = machine()
    rows = np.random.default_rng(0).integers(0, 16, 4100)
    for method in (model.transform, model.free_energy, model.pseudo_log_likelihood):
        np.testing.assert_allclose(method(BITS[rows]), method(BITS)[rows], **EXACT)


@pytest.mark.parametrize("hidden_units", ["bernoulli", "gaussian"])
def test_gibbs_sampling_draws_from_the_model(hidden_units):
    model = machine(hidden_units, scale=0.7)
    draws = 20_000
    samples = model.sample(draws, steps=40)
    assert samples.shape == (draws, VISIBLE)
    assert set(np.unique(samples)) == {0.0, 1.0}
    found = np.bincount((samples @ [8, 4, 2, 1]).astype(int), minlength=16) / draws
    p = exact_probabilities(model)
    # 16 frequencies of 20,000 independent chains: 5 standard deviations are reached once in 10^5 seeds.
    assert (np.abs(found - p) < 5 * np.sqrt(p * (1 - p) / draws)).all()


def test_every_call_of_gibbs_draws_other_bits_and_the_first_follow_from_the_seed():
    first, again, other = machine(), machine(), machine(seed=1)
    start = np.tile(BITS, (50, 1))
    drawn = first.gibbs(start)
    np.testing.assert_array_equal(drawn, again.gibbs(start))
    assert not np.array_equal(drawn, first.gibbs(start))
    assert not np.array_equal(drawn, other.gibbs(start))


# --- scikit-learn's machine -------------------------------------------------------------------------------------------


def test_free_energy_transform_and_pseudo_likelihood_are_those_of_scikit_learn():
    from sklearn.neural_network import BernoulliRBM

    model = machine()
    theirs = BernoulliRBM(n_components=HIDDEN, n_iter=1).fit(BITS)
    theirs.components_ = model.components_
    theirs.intercept_hidden_, theirs.intercept_visible_ = model.intercept_hidden_, model.intercept_visible_
    np.testing.assert_allclose(model.free_energy(BITS), theirs._free_energy(BITS), **EXACT)
    np.testing.assert_allclose(model.transform(BITS), theirs.transform(BITS), **EXACT)
    # Theirs is d log p(v_i | the others) for one i drawn at random; its mean over every i is ours.
    flipped = [np.where(np.arange(VISIBLE) == i, 1 - BITS, BITS) for i in range(VISIBLE)]
    estimates = [
        -VISIBLE * np.logaddexp(0, theirs._free_energy(BITS) - theirs._free_energy(other)) for other in flipped
    ]
    np.testing.assert_allclose(model.score_samples(BITS), np.mean(estimates, axis=0), **EXACT)


def test_it_is_an_estimator_to_scikit_learn():
    from sklearn.base import clone
    from sklearn.pipeline import make_pipeline

    model = RestrictedBoltzmannMachine(n_components=5, epochs=2, seed=4, device="cpu")
    twin = clone(model)
    assert twin.get_params() == model.get_params()
    assert repr(twin) == "RestrictedBoltzmannMachine(device='cpu', n_components=5, epochs=2, seed=4)"
    pipeline = make_pipeline(twin, RestrictedBoltzmannMachine(n_components=2, epochs=1, device="cpu"))
    assert pipeline.fit_transform(BITS).shape == (16, 2)


# --- learning, as a user sees it --------------------------------------------------------------------------------------


def patterns():
    """Return bars of 3 x 3 pixels: three rows and three columns, 20 of each."""
    bars = [np.eye(3)[i][:, np.newaxis] * np.ones((3, 3)) for i in range(3)]
    return np.array([bar.ravel() for bar in bars] + [bar.T.ravel() for bar in bars] * 1).repeat(20, axis=0)


def test_the_defaults_learn_digits():
    digits = load_for_training("digits")
    X = np.random.default_rng(0).permutation(digits.features > digits.raw.largest / 2).astype(float)
    X, X_test = X[:1400], X[1400:]
    model = RestrictedBoltzmannMachine(device="cpu").fit(X)
    p = np.clip(X.mean(axis=0), 1e-3, 1 - 1e-3)
    independent_pixels = (X_test @ np.log(p) + (1 - X_test) @ np.log(1 - p)).mean()
    assert model.score(X_test) > 0.8 * independent_pixels
    of_the_mean = np.square(X_test - X.mean(axis=0)).mean()
    assert np.square(model.reconstruct(X_test) - X_test).mean() < 0.6 * of_the_mean


def test_the_same_seed_gives_the_same_machine():
    X = patterns()
    arguments = {"n_components": 6, "epochs": 3, "batch_size": 32, "device": "cpu"}
    first = RestrictedBoltzmannMachine(**arguments).fit(X)
    second = RestrictedBoltzmannMachine(**arguments).fit(X)
    other = RestrictedBoltzmannMachine(**arguments, seed=1).fit(X)
    np.testing.assert_array_equal(first.components_, second.components_)
    assert not np.array_equal(first.components_, other.components_)
    assert first.components_.dtype == np.float32
    assert first.n_updates_ == 3 * 4
    assert len(first.reconstruction_errors_) == 3


def test_reconstructions_come_closer_to_the_data():
    X = patterns()
    model = RestrictedBoltzmannMachine(n_components=12, epochs=150, batch_size=20, momentum=0.5, device="cpu").fit(X)
    assert model.reconstruction_errors_[0] > 0.2
    assert model.reconstruction_errors_[-1] < 0.05
    assert np.square(model.reconstruct(X) - X).mean() < 0.02


@pytest.mark.parametrize("arguments", [{}, {"persistent": True}, {"hidden_units": "gaussian", "learning_rate": 0.01}])
def test_partial_fit_goes_on_where_the_last_call_stopped(arguments):
    X = patterns()
    arguments = {"n_components": 4, "batch_size": 16, "momentum": 0.5, "gibbs_steps": 2, "device": "cpu", **arguments}
    at_once = RestrictedBoltzmannMachine(**arguments).partial_fit(X[:48])
    piece_by_piece = RestrictedBoltzmannMachine(**arguments)
    for start in (0, 16, 32):
        piece_by_piece.partial_fit(X[start : start + 16])
    np.testing.assert_array_equal(at_once.components_, piece_by_piece.components_)
    np.testing.assert_array_equal(at_once.intercept_visible_, piece_by_piece.intercept_visible_)
    assert at_once.n_updates_ == piece_by_piece.n_updates_ == 3


def test_partial_fit_learns_with_the_parameters_it_has_now():
    X = patterns()
    model = RestrictedBoltzmannMachine(n_components=4, batch_size=128, device="cpu").partial_fit(X)
    before = model.components_.copy()
    model.set_params(learning_rate=0.0).partial_fit(X)
    np.testing.assert_array_equal(model.components_, before)


def test_what_was_learnt_does_not_change_with_parameters_that_only_fit_follows():
    model, same = machine(), machine()
    same.set_params(n_components=5, hidden_units="gaussian", dtype="float32", seed=9, epochs=-1)
    for method in ("transform", "reconstruct", "free_energy", "score_samples", "gibbs"):
        np.testing.assert_array_equal(getattr(same, method)(BITS), getattr(model, method)(BITS))
    np.testing.assert_array_equal(same.sample(5, steps=3), model.sample(5, steps=3))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(same)).transform(BITS), model.transform(BITS))


@pytest.mark.parametrize(("parameter", "value"), [("n_components", 5), ("hidden_units", "gaussian")])
def test_partial_fit_does_not_make_another_machine_of_it(parameter, value):
    model = machine()
    before = model.components_
    with pytest.raises(InvalidValueError, match=f"{parameter}: got {value!r} for partial_fit. Expected .*, or fit"):
        model.set_params(**{parameter: value}).partial_fit(BITS)
    assert model.components_ is before


def test_a_schedule_counts_every_update_also_after_pickling():
    X = patterns()
    arguments = {"n_components": 4, "learning_rate": StepRate(0.1, every=4, factor=0.1), "batch_size": 20}
    model = RestrictedBoltzmannMachine(**arguments, device="cpu").partial_fit(X[:80])
    twin = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(twin.partial_fit(X[80:]).components_, model.partial_fit(X[80:]).components_)


def test_a_schedule_that_follows_a_loss_is_refused():
    rate = WarmUpRate(ReduceOnPlateauRate(0.1, monitor="loss"), steps=3)
    with pytest.raises(InvalidValueError, match="learning_rate: follows loss, which nobody measures here"):
        RestrictedBoltzmannMachine(n_components=4, learning_rate=rate, device="cpu").fit(patterns())


def test_after_a_failure_partial_fit_goes_on_from_the_weights_it_has_with_no_momentum_left():
    class Failing(StepRate):
        broken = False

        def __call__(self, step):
            return -1.0 if self.broken and step >= 6 else super().__call__(step)

    X, rate = patterns(), Failing(0.1, every=100)
    model = RestrictedBoltzmannMachine(n_components=4, learning_rate=rate, batch_size=20, momentum=0.9, device="cpu")
    expected = copy.deepcopy(model.partial_fit(X[:80])).partial_fit(X).components_
    before = model.components_
    rate.broken = True
    with pytest.raises(InvalidValueError, match=r"learning_rate: -1\.0 is out of range"):
        model.partial_fit(X)
    assert model.components_ is before
    assert model.n_updates_ == 4
    rate.broken = False
    np.testing.assert_array_equal(model.partial_fit(X).components_, expected)


def test_parameters_set_by_hand_are_used():
    model = machine()
    model.components_ = np.zeros((HIDDEN, VISIBLE))
    model.intercept_hidden_ = np.zeros(HIDDEN)
    np.testing.assert_array_equal(model.transform(BITS), np.full((16, HIDDEN), 0.5))
    model.components_ = np.eye(3, 4).tolist()
    np.testing.assert_allclose(model.transform(BITS), 1 / (1 + np.exp(-BITS[:, :3])), **EXACT)


@pytest.mark.parametrize(
    ("name", "values", "error", "message"),
    [
        ("components_", np.zeros((4, 3)), ShapeError, r"got shape \(4, 3\). Expected \(3, 4\)"),
        ("intercept_hidden_", np.zeros(4), ShapeError, r"got shape \(4,\). Expected \(3,\)"),
        ("intercept_visible_", np.full(4, np.nan), NonFiniteError, "holds NaN"),
        ("components_", [["a"] * 4] * 3, InvalidTypeError, "got dtype <U1"),
    ],
)
def test_bad_parameters_set_by_hand_are_refused_by_name(name, values, error, message):
    model = machine()
    setattr(model, name, values)
    for use in (lambda: model.transform(BITS), lambda: model.partial_fit(BITS), lambda: model.sample(2)):
        with pytest.raises(error, match=f"{name}: {message}"):
            use()


def test_a_pickled_machine_knows_and_learns_the_same():
    X = patterns()
    model = RestrictedBoltzmannMachine(n_components=4, epochs=2, device="cpu").fit(X)
    model.transform(X)
    twin = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(twin.transform(X), model.transform(X))
    np.testing.assert_array_equal(twin.partial_fit(X).components_, model.partial_fit(X).components_)


def read_only(X):
    X = X.copy()
    X.flags.writeable = False
    return X


@pytest.mark.parametrize(
    "kind",
    [
        np.ndarray.tolist,
        np.asfortranarray,
        read_only,
        lambda X: X.astype(bool),
        lambda X: X.astype(np.uint8),
        lambda X: X.astype(np.float16),
        lambda X: np.repeat(X, 2, axis=0)[::2],
    ],
    ids=["list", "Fortran order", "read-only", "bool", "uint8", "float16", "strided"],
)
def test_every_kind_of_number_and_of_memory_will_do(kind):
    expected = RestrictedBoltzmannMachine(n_components=3, epochs=1, device="cpu").fit(BITS)
    model = RestrictedBoltzmannMachine(n_components=3, epochs=1, device="cpu").fit(kind(BITS))
    np.testing.assert_array_equal(model.components_, expected.components_)
    np.testing.assert_array_equal(model.transform(kind(BITS)), expected.transform(BITS))


@pytest.mark.parametrize("shape", [(1, 4), (5, 1), (1, 1)])
@pytest.mark.parametrize("arguments", [{}, {"persistent": True}, {"hidden_units": "gaussian"}])
def test_one_row_and_one_column_are_enough(shape, arguments):
    X = np.ones(shape)
    model = RestrictedBoltzmannMachine(n_components=2, epochs=2, device="cpu", **arguments).fit(X)
    assert model.transform(X).shape == (shape[0], 2)
    assert np.isfinite(model.score(X))
    assert model.gibbs(X, 2).shape == shape


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        ([[0, 1], [1, 1.5]], InvalidValueError, r"X: 1.5 in row 1, column 1 is out of range. Expected numbers from 0"),
        ([[0, 1], [-0.25, 1]], InvalidValueError, r"X: -0.25 in row 1, column 0"),
        ([[0, np.nan]], NonFiniteError, r"X: nan in row 0, column 1"),
        ([[0, np.inf]], NonFiniteError, r"X: inf in row 0, column 1"),
        ([0, 1], ShapeError, r"X: got shape \(2,\). Expected two dimensions"),
        (np.empty((0, 3)), ShapeError, r"X: got no rows"),
        ([["a", "b"]], InvalidTypeError, r"X: got dtype <U1"),
    ],
)
def test_bad_data_is_refused(X, error, message):
    with pytest.raises(error, match=message):
        RestrictedBoltzmannMachine(device="cpu", scale_inputs=False).fit(X)


def test_other_columns_than_fit_saw_are_refused():
    model = machine()
    for method in (model.transform, model.free_energy, model.gibbs, model.partial_fit):
        with pytest.raises(ShapeError, match=r"X has 3 features, but \w+ is expecting 4"):
            method(BITS[:, :3])
    with pytest.raises(ShapeError, match=r"H: got 4 columns. Expected 3"):
        model.inverse_transform(BITS)
    with pytest.raises(InvalidValueError, match="steps: 0 is out of range"):
        model.gibbs(BITS, steps=0)
    with pytest.raises(InvalidValueError, match="n_samples: 0 is out of range"):
        model.sample(0)


def test_a_machine_that_diverges_says_so_and_keeps_what_it_had():
    X = np.random.default_rng(0).random((64, 30))
    model = RestrictedBoltzmannMachine(n_components=8, epochs=2, device="cpu").fit(X)
    before = model.components_.copy()
    model.set_params(hidden_units="gaussian", learning_rate=1e10, epochs=60, batch_size=8)
    with pytest.raises(TrainingDivergedError, match="A lower learning_rate may help") as caught:
        model.fit(X)
    assert caught.value.epoch >= 1
    np.testing.assert_array_equal(model.components_, before)
    model = RestrictedBoltzmannMachine(n_components=8, epochs=2, hidden_units="gaussian", device="cpu").fit(0.01 * X)
    before = model.components_.copy()
    with pytest.raises(TrainingDivergedError):
        model.set_params(learning_rate=1e10, batch_size=8).partial_fit(np.tile(X, (60, 1)))
    np.testing.assert_array_equal(model.components_, before)
