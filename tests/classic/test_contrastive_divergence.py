"""Contrastive divergence (L13): its direction against the exact gradient of the likelihood, and its updates."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest

from gpunet import SGD
from gpunet.backends import Backend, NumpyBackend
from gpunet.classic import RestrictedBoltzmannMachine
from gpunet.classic.contrastive_divergence import ContrastiveDivergence
from gpunet.classic.device_machine import DeviceMachine
from gpunet.classic.hidden_units import HIDDEN_UNITS

VISIBLE, HIDDEN = 4, 3
BITS = np.array(list(itertools.product([0.0, 1.0], repeat=VISIBLE)))
DATA = BITS[[1, 3, 3, 7, 12, 15, 9]]  # seven rows of which two are equal


def sigmoid(s):
    return 1 / (1 + np.exp(-s))


def learner(backend=None, hidden_units="bernoulli", learning_rate=0.0, batch_size=7, scale=0.8, l2=0.0, **rule):
    """Return what updates a 4 x 3 machine in float64 with weights and biases of the size of ``scale``."""
    machine = DeviceMachine(
        backend or NumpyBackend(), VISIBLE, HIDDEN, HIDDEN_UNITS[hidden_units], 5, np.dtype(np.float64)
    )
    generator = np.random.default_rng(2)
    machine.set_parameters(
        scale * generator.standard_normal((HIDDEN, VISIBLE)),
        scale * generator.standard_normal(HIDDEN),
        scale * generator.standard_normal(VISIBLE),
    )
    settings = {"gibbs_steps": 1, "persistent": False, "sample_visible": True, "l2": l2, **rule}
    return ContrastiveDivergence(machine, SGD(learning_rate), batch_size, **settings)


def update(learning, data=DATA, step=0):
    """Make one update with all rows of ``data``, and return host copies of the gradients."""
    backend = learning.machine.backend
    errors = backend.zeros((2, 2), learning.machine.dtype)
    learning.update(backend.asarray(data), np.arange(len(data), dtype=np.int32), step, errors)
    return {name: backend.to_numpy(view).copy() for name, view in learning.gradients.items()}


def buffer(learning, name, columns, rows=7):
    backend = learning.machine.backend
    return backend.to_numpy(learning.workspace.rows(name, rows, columns, learning.machine.dtype)).copy()


def log_likelihood(W, b, a, data):
    """Return the mean over rows of log p(v), Z by enumeration of v, and over h by hand."""
    hidden = np.array(list(itertools.product([0.0, 1.0], repeat=len(b))))
    every = np.array(list(itertools.product([0.0, 1.0], repeat=len(a))))

    def log_weights(v):
        return np.log(np.exp(v @ W.T @ hidden.T + hidden @ b + (v @ a)[:, np.newaxis]).sum(axis=1))

    return log_weights(data).mean() - np.log(np.exp(log_weights(every)).sum())


def exact_gradients(W, b, a, data, step=1e-6):
    """Return the central differences of the mean log-likelihood: an oracle that knows nothing of the two phases."""
    gradients = {}
    for name, array in {"W": W, "hidden_bias": b, "visible_bias": a}.items():
        gradients[name] = np.empty_like(array)
        for place in np.ndindex(array.shape):
            value = array[place]
            array[place] = value + step
            above = log_likelihood(W, b, a, data)
            array[place] = value - step
            below = log_likelihood(W, b, a, data)
            array[place] = value
            gradients[name][place] = (above - below) / (2 * step)
    return gradients


# --- the direction ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("sample_visible", [False, True])
@pytest.mark.parametrize("gibbs_steps", [1, 3])
def test_the_gradient_is_the_models_mean_less_the_datas(persistent, sample_visible, gibbs_steps):
    learning = learner(persistent=persistent, sample_visible=sample_visible, gibbs_steps=gibbs_steps)
    gradients = update(learning)
    W, b, _ = learning.machine.get_parameters()
    h = sigmoid(DATA @ W.T + b)  # the data's side has nothing random
    v_model = buffer(learning, "v_model", VISIBLE)
    h_model = sigmoid(v_model @ W.T + b)
    assert np.isin(v_model, (0, 1)).all() == sample_visible
    np.testing.assert_allclose(gradients["W"], (h_model.T @ v_model - h.T @ DATA) / 7, rtol=0, atol=1e-15)
    np.testing.assert_allclose(gradients["hidden_bias"], (h_model - h).mean(axis=0), rtol=0, atol=1e-15)
    np.testing.assert_allclose(gradients["visible_bias"], (v_model - DATA).mean(axis=0), rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    "arguments",
    [{"gibbs_steps": 25}, {"gibbs_steps": 5, "persistent": True}],
    ids=["many steps", "persistent"],
)
def test_long_chains_follow_the_exact_gradient_of_the_log_likelihood(arguments):
    copies, updates, warm_up = 600, 30, 15 if "persistent" in arguments else 0
    data = np.tile(DATA, (copies, 1))
    learning = learner(batch_size=len(data), **arguments)
    every = [update(learning, data, step) for step in range(warm_up + updates)][warm_up:]
    exact = exact_gradients(*learning.machine.get_parameters(), DATA)
    # The means of 7 x 600 x 30 chains, whose terms lie within [0, 1] and so have a standard deviation of at most 1/2.
    # Persistent chains are correlated from update to update; five Gibbs steps leave little of that.
    allowed = 5 * 0.5 / np.sqrt(len(data) * updates) * (2 if "persistent" in arguments else 1)
    for name, gradient in exact.items():
        estimate = -np.mean([one[name] for one in every], axis=0)
        assert np.abs(gradient).max() > 5 * allowed  # else the comparison would say nothing
        np.testing.assert_allclose(estimate, gradient, rtol=0, atol=allowed)


def test_one_step_points_the_right_way_but_is_biased():
    data = np.tile(DATA, (600, 1))
    learning = learner(batch_size=len(data))
    every = [update(learning, data, step) for step in range(20)]
    exact = exact_gradients(*learning.machine.get_parameters(), DATA)
    estimate = np.concatenate([-np.mean([one[name] for one in every], axis=0).ravel() for name in exact])
    gradient = np.concatenate([array.ravel() for array in exact.values()])
    cosine = estimate @ gradient / np.linalg.norm(estimate) / np.linalg.norm(gradient)
    assert cosine > 0.9
    assert np.abs(estimate - gradient).max() > 5 * 0.5 / np.sqrt(len(data) * 20)


@pytest.mark.parametrize("arguments", [{}, {"persistent": True}, {"sample_visible": False}, {"gibbs_steps": 3}])
def test_learning_raises_the_exact_log_likelihood(arguments):
    X = np.repeat(np.array([[1, 1, 0, 0], [0, 0, 1, 1.0]]), 50, axis=0)
    model = RestrictedBoltzmannMachine(
        n_components=3, epochs=200, learning_rate=0.1, batch_size=20, dtype="float64", device="cpu", **arguments
    ).fit(X)
    reached = log_likelihood(model.components_, model.intercept_hidden_, model.intercept_visible_, X)
    assert reached > -1.4  # uniform bits have -2.77, the two rows alone at best log(1/2) = -0.69


# --- updates ----------------------------------------------------------------------------------------------------------


class Uniform(Backend):
    """Samples from NumPy's old generator, in the order of the calls: what scikit-learn does."""

    def __init__(self, random_state):
        super().__init__()
        self.random_state = random_state

    def sample_bernoulli(self, probabilities, out, seed, layer, step):
        np.copyto(out, self.random_state.uniform(size=probabilities.shape) < probabilities)


def test_persistent_updates_are_those_of_scikit_learn_for_the_same_random_numbers():
    from sklearn.neural_network import BernoulliRBM

    theirs = BernoulliRBM(n_components=5, learning_rate=0.07, batch_size=6, random_state=np.random.RandomState(8))
    generator = np.random.default_rng(1)
    batches = [(generator.random((6, 9)) < 0.4).astype(float) for _ in range(40)]
    # Rates, biases and chains begin as theirs do: weights from the generator, then uniform numbers for the samples.
    W = np.random.RandomState(8).normal(0, 0.01, (5, 9))
    ours_state = np.random.RandomState(8)
    ours_state.normal(0, 0.01, (5, 9))
    ours = RestrictedBoltzmannMachine(
        n_components=5, learning_rate=0.07, batch_size=6, persistent=True, dtype="float64", device=Uniform(ours_state)
    )
    ours._initial_parameters = lambda features: (W, np.zeros(5), np.zeros(features))
    for batch in batches:
        theirs.partial_fit(batch)
        ours.partial_fit(batch)
    assert np.abs(theirs.components_ - W).max() > 0.1
    np.testing.assert_allclose(ours.components_, theirs.components_, rtol=0, atol=1e-13)
    np.testing.assert_allclose(ours.intercept_hidden_, theirs.intercept_hidden_, rtol=0, atol=1e-13)
    np.testing.assert_allclose(ours.intercept_visible_, theirs.intercept_visible_, rtol=0, atol=1e-13)


def test_an_update_descends_the_gradient_and_l2_shrinks_the_weights_alone():
    plain, shrunk = learner(learning_rate=0.1), learner(learning_rate=0.1, l2=0.25)
    W, b, a = plain.machine.get_parameters()
    gradients = update(plain)
    update(shrunk)
    after = plain.machine.get_parameters()
    for before, name, now in zip((W, b, a), ("W", "hidden_bias", "visible_bias"), after, strict=True):
        np.testing.assert_allclose(now, before - 0.1 * gradients[name], rtol=0, atol=1e-15)
    W_shrunk, b_shrunk, a_shrunk = shrunk.machine.get_parameters()
    np.testing.assert_allclose(W_shrunk, after[0] - 0.1 * 2 * 0.25 * W, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(b_shrunk, after[1])
    np.testing.assert_array_equal(a_shrunk, after[2])


def test_a_short_batch_moves_the_first_chains_only():
    learning = learner(persistent=True)
    update(learning)
    before = learning.chains.copy()
    moved = [update(learning, DATA[:3], step) is not None and learning.chains.copy() for step in range(1, 12)]
    assert all(np.array_equal(chains[3:], before[3:]) for chains in moved)
    assert any(not np.array_equal(chains[:3], before[:3]) for chains in moved)


def test_persistent_chains_do_not_look_at_the_batch():
    one, other = learner(persistent=True), learner(persistent=True)
    for step in range(4):
        update(one, DATA, step)
        update(other, 1 - DATA, step)
        np.testing.assert_array_equal(one.chains, other.chains)


def test_gaussian_units_get_noise_of_unit_variance_around_their_mean():
    learning = learner(hidden_units="gaussian", batch_size=7 * 1000)
    data = np.tile(DATA, (1000, 1))
    update(learning, data)
    W, b, _ = learning.machine.get_parameters()
    noise = buffer(learning, "h_sample", HIDDEN, len(data)) - (data @ W.T + b)
    count = noise.size
    assert abs(noise.mean()) < 5 / np.sqrt(count)
    assert abs(noise.var() - 1) < 5 * np.sqrt(2 / count)
    first = noise[:: len(DATA)]
    update(learning, data, step=1)
    second = (buffer(learning, "h_sample", HIDDEN, len(data)) - (data @ W.T + b))[:: len(DATA)]
    assert abs((first * second).mean()) < 5 / np.sqrt(first.size)


class Counting(Backend):
    """Counts the arrays it makes."""

    def __init__(self):
        super().__init__()
        self.made = 0

    def empty(self, shape, dtype):
        self.made += 1
        return super().empty(shape, dtype)

    def zeros(self, shape, dtype):
        self.made += 1
        return super().zeros(shape, dtype)


@pytest.mark.parametrize("hidden_units", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("persistent", [False, True])
def test_buffers_are_made_once(persistent, hidden_units):
    backend = Counting()
    learning = learner(backend, hidden_units, persistent=persistent, gibbs_steps=2)
    errors = backend.zeros((2, 2), np.float64)
    index = np.arange(7, dtype=np.int32)
    learning.update(DATA, index, 0, errors)
    made = backend.made
    for step in range(1, 5):
        learning.update(DATA, index, step, errors)
    assert backend.made == made


@pytest.mark.parametrize("hidden_units", ["bernoulli", "gaussian"])
def test_the_host_allocates_nothing_that_grows_with_the_batch(hidden_units):
    rows = 100_000
    data = np.tile(BITS, (rows // 16, 1))
    learning = learner(hidden_units=hidden_units, batch_size=rows)
    index, errors = np.arange(rows, dtype=np.int32), np.zeros((2, 2))
    learning.update(data, index, 0, errors)
    tracemalloc.start()
    learning.update(data, index, 1, errors)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < rows * HIDDEN * 8 / 2
