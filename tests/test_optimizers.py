"""Optimisers: the textbook updates, L2 on the weights alone, clipping, and what happens to a non-finite loss."""

from __future__ import annotations

import copy
import pickle
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpunet
from gpunet.backends import NumpyBackend
from gpunet.backends.numpy import CHUNK
from gpunet.optimizers import OPTIMIZERS
from tests.helpers.networks import learnable, small_network

GOOD_LOSS = np.array([1.0, 1.0])


def textbook(kind, parameters, gradients, weight_count, l2, clip, steps, rate):
    """Return the parameters after ``steps`` steps with constant gradients of the data term, in plain NumPy."""
    w = parameters.copy()
    moment, second, decay = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    decay[:weight_count] = 2 * l2
    for t in range(1, steps + 1):
        g = clip * (gradients + decay * w)
        if kind == "sgd":
            w -= rate * g
        elif kind in ("momentum", "nesterov"):
            moment = 0.9 * moment + g
            w -= rate * (g + 0.9 * moment if kind == "nesterov" else moment)
        else:
            moment, second = 0.9 * moment + 0.1 * g, 0.999 * second + 0.001 * g**2
            if kind == "adamw":
                w[:weight_count] -= rate * 0.05 * w[:weight_count]
            w -= rate * (moment / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
    return w


KINDS = {
    "sgd": gpunet.SGD,
    "momentum": partial(gpunet.SGD, momentum=0.9),
    "nesterov": partial(gpunet.SGD, momentum=0.9, nesterov=True),
    "adam": gpunet.Adam,
    "adamw": partial(gpunet.AdamW, weight_decay=0.05),
}


def test_every_optimizer_has_its_textbook():
    assert {type(make(0.1)) for make in KINDS.values()} == set(OPTIMIZERS.values())


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    size=st.sampled_from((1, 2, 33, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 7)),
    share=st.floats(0, 1),
    clip=st.sampled_from((None, 0.3)),
)
def test_updates_are_the_textbook_ones(kind, size, share, clip):
    generator = np.random.default_rng(size)
    parameters, gradients = generator.standard_normal((2, size))
    weight_count = int(share * size)
    expected = textbook(kind, parameters, gradients, weight_count, 0.02, clip or 1.0, 3, 0.1)
    optimizer = KINDS[kind](0.1)
    optimizer.attach(NumpyBackend(), parameters)
    factor = None if clip is None else np.array([clip])
    for _ in range(3):
        optimizer.advance()
        optimizer.update(parameters, gradients, weight_count, 0.02, factor, GOOD_LOSS)
    np.testing.assert_allclose(parameters, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["sgd", "nesterov", "adamw"])
@pytest.mark.parametrize("loss", [np.nan, np.inf, -np.inf])
def test_a_non_finite_loss_changes_nothing(kind, loss):
    parameters = np.ones(10)
    optimizer = KINDS[kind](0.1)
    optimizer.attach(NumpyBackend(), parameters)
    optimizer.advance()
    optimizer.update(parameters, np.ones(10), 5, 0.1, None, np.array([loss, 1.0]))
    np.testing.assert_array_equal(parameters, 1)
    assert not any(moment.any() for moment in optimizer.moments.values())


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 3 * CHUNK), share=st.floats(0, 1), maximum=st.floats(1e-3, 1e3))
def test_clip_factor(size, share, maximum):
    generator = np.random.default_rng(size)
    parameters, gradients = generator.standard_normal((2, size))
    weight_count = int(share * size)
    out = np.full(1, np.nan)
    NumpyBackend().clip_factor(parameters, gradients, weight_count, 0.1, maximum, out)
    total = gradients.copy()
    total[:weight_count] += 0.2 * parameters[:weight_count]
    assert out[0] == pytest.approx(min(1.0, maximum / np.linalg.norm(total)), rel=1e-10)


def test_clip_factor_of_large_float32_gradients():
    """The squares of these overflow; their norm does not."""
    gradients = np.full(CHUNK + 5, 1e30, np.float32)
    out = np.full(1, np.nan, np.float32)
    NumpyBackend().clip_factor(np.zeros_like(gradients), gradients, 0, 0.0, 1.0, out)
    assert out[0] == pytest.approx(1 / (1e30 * np.sqrt(CHUNK + 5)), rel=1e-5)


def test_a_zero_gradient_is_not_clipped():
    out = np.full(1, np.nan)
    NumpyBackend().clip_factor(np.zeros(3), np.zeros(3), 3, 0.1, 1.0, out)
    assert out[0] == 1


def test_l2_and_weight_decay_leave_biases_gamma_and_beta_alone():
    """With a gradient of zero, only the W_i shrink."""
    for optimizer, l2 in ((gpunet.SGD(0.1), 0.5), (gpunet.AdamW(0.1, weight_decay=0.5), 0.0)):
        network = gpunet.Network([3, 4, 2], device="cpu", initial_bias=0.7)
        before = network.get_parameters()
        optimizer.attach(network.backend, network.flat_parameters)
        optimizer.advance()
        optimizer.update(
            network.flat_parameters,
            np.zeros_like(network.flat_parameters),
            network.layout.weight_count,
            l2,
            None,
            GOOD_LOSS,
        )
        for name, value in network.get_parameters().items():
            if name.startswith("W"):
                assert (np.abs(value) < np.abs(before[name])).all()
            else:
                np.testing.assert_array_equal(value, before[name])


def test_an_optimizer_starts_afresh_on_another_network():
    first, second = np.ones(5), np.ones(5)
    optimizer = gpunet.Adam()
    optimizer.attach(NumpyBackend(), first)
    optimizer.advance()
    optimizer.update(first, np.ones(5), 5, 0.0, None, GOOD_LOSS)
    moments = optimizer.moments
    optimizer.attach(NumpyBackend(), first)
    assert optimizer.moments is moments
    optimizer.attach(NumpyBackend(), second)
    assert optimizer.step == 0
    assert not optimizer.moments["first_moment"].any()


@pytest.mark.parametrize("optimizer", [gpunet.SGD(0.1, momentum=0.9), gpunet.Adam(0.01), gpunet.AdamW(0.01)])
@pytest.mark.parametrize(
    "duplicate",
    [
        lambda pair: pickle.loads(pickle.dumps(pair)),
        copy.deepcopy,
        lambda pair: [pickle.loads(pickle.dumps(one)) for one in pair],  # each in a file of its own
        lambda pair: pickle.loads(pickle.dumps(copy.deepcopy(pair))),
    ],
    ids=["pickled", "copied", "apart", "twice"],
)
def test_a_copy_of_network_and_optimizer_goes_on_exactly(optimizer, duplicate):
    optimizer = copy.deepcopy(optimizer)
    X, y = learnable(60)
    network = small_network(dropout=0.2)
    gpunet.fit(network, X, y, epochs=2, batch_size=16, optimizer=optimizer)
    other, other_optimizer = duplicate((network, optimizer))
    assert other_optimizer.step == optimizer.step
    for one, its in ((network, optimizer), (other, other_optimizer)):
        gpunet.fit(one, X, y, epochs=2, batch_size=16, optimizer=its)
    np.testing.assert_array_equal(other.flat_parameters, network.flat_parameters)
    for name, moment in optimizer.moments.items():
        assert moment.any()
        np.testing.assert_array_equal(other_optimizer.moments[name], moment)


def test_a_copied_optimizer_goes_on_with_a_saved_network(tmp_path):
    X, y = learnable(60)
    network, optimizer = small_network(), gpunet.Adam(0.01)
    gpunet.fit(network, X, y, epochs=2, optimizer=optimizer)
    loaded, copied = gpunet.load(network.save(tmp_path / "model.npz")), pickle.loads(pickle.dumps(optimizer))
    for one, its in ((network, optimizer), (loaded, copied)):
        gpunet.fit(one, X, y, epochs=1, optimizer=its)
    np.testing.assert_array_equal(loaded.flat_parameters, network.flat_parameters)


def test_a_copied_optimizer_starts_afresh_with_other_weights():
    X, y = learnable(60)
    network, optimizer = small_network(), gpunet.Adam(0.01)
    gpunet.fit(network, X, y, epochs=2, optimizer=optimizer)
    copied = copy.deepcopy(optimizer)
    gpunet.fit(small_network(seed=9), X, y, epochs=1, batch_size=60, optimizer=copied)
    assert copied.step == 1
    forgetful = copy.deepcopy(optimizer)
    forgetful.reset()
    assert (forgetful.step, forgetful.moments) == (0, {})
    gpunet.fit(copy.deepcopy(network), X, y, epochs=1, batch_size=60, optimizer=forgetful)
    assert forgetful.step == 1
    assert (copied.moments["first_moment"] != optimizer.moments["first_moment"]).any()


def test_a_copy_shares_nothing_with_the_original():
    X, y = learnable(60)
    network, optimizer = small_network(), gpunet.Adam(0.01)
    gpunet.fit(network, X, y, epochs=1, optimizer=optimizer)
    for copied in (copy.copy(optimizer), copy.deepcopy(optimizer)):
        for name, moment in optimizer.moments.items():
            np.testing.assert_array_equal(copied.moments[name], moment)
            assert not np.shares_memory(copied.moments[name], moment)
