"""Layer-wise pre-training (L13): the stack, what it starts, and the classifier that is trained from it."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet
from gpunet.classic import (
    PretrainedClassifier,
    RestrictedBoltzmannMachine,
    encoder_network,
    pretrain_stack,
    unroll,
)
from gpunet.errors import (
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    NotFittedError,
    ShapeError,
    TrainingDivergedError,
)


def sigmoid(s):
    return 1 / (1 + np.exp(-s))


def images(rows=240, seed=0):
    """Return noisy prototypes of 20 pixels in [0, 1], and which of three each row is."""
    generator = np.random.default_rng(seed)
    prototypes = np.random.default_rng(7).random((3, 20)) < 0.5
    y = generator.integers(0, 3, rows)
    flipped = generator.random((rows, 20)) < 0.1
    return np.where(flipped, ~prototypes[y], prototypes[y]) * generator.uniform(0.7, 1.0, (rows, 20)), y


def stack(sizes=(12, 7), linear_code=False, dtype="float64", **arguments):
    X, _ = images()
    return X, pretrain_stack(X, sizes, linear_code=linear_code, epochs=2, dtype=dtype, device="cpu", **arguments)


# --- the stack --------------------------------------------------------------------------------------------------------


def test_each_machine_learns_the_probabilities_of_the_one_below():
    X, machines = stack((12, 7, 5))
    assert [machine.components_.shape for machine in machines] == [(12, 20), (7, 12), (5, 7)]
    below = machines[0].transform(X)
    alone = RestrictedBoltzmannMachine(**machines[1].get_params()).fit(below)
    np.testing.assert_array_equal(alone.components_, machines[1].components_)


def test_machines_of_a_stack_have_seeds_of_their_own_that_follow_from_its_seed():
    seeds = [machine.seed for seed in (0, 1) for machine in stack((6, 6), seed=seed)[1]]
    assert len(set(seeds)) == 4
    assert [machine.seed for machine in stack((6, 6), seed=0)[1]] == seeds[:2]


def test_a_linear_code_is_a_gaussian_machine_with_a_learning_rate_of_its_own():
    _, machines = stack((12, 7, 2), linear_code=True, learning_rate=0.2, code_learning_rate=0.001)
    assert [machine.hidden_units for machine in machines] == ["bernoulli", "bernoulli", "gaussian"]
    assert [machine.learning_rate for machine in machines] == [0.2, 0.2, 0.001]


@pytest.mark.parametrize("linear_code", [False, True])
def test_a_learning_rate_of_the_code_is_checked_before_anything_is_trained(linear_code):
    X, _ = images(10)
    with pytest.raises(InvalidValueError, match=r"^code_learning_rate: -1\.0 is out of range"):
        pretrain_stack(X, (3, 2), linear_code=linear_code, epochs=10**9, code_learning_rate=-1, device="cpu")


def test_a_stack_that_diverges_says_in_which_layer():
    X, _ = images()
    with pytest.raises(TrainingDivergedError, match=r"pre-training of layer 2 of 2: .* gaussian .*=1e.30") as caught:
        pretrain_stack(np.tile(X, (10, 1)), (9, 2), linear_code=True, code_learning_rate=1e30, device="cpu")
    assert caught.value.epoch >= 1


# --- networks from a stack --------------------------------------------------------------------------------------------


def by_hand(machines, X):
    """Return the reconstruction of X through a stack and back, by the machines' conditional means alone."""
    for machine in machines:
        X = machine.transform(X)
    for machine in reversed(machines):
        X = machine.inverse_transform(X)
    return X


@pytest.mark.parametrize("linear_code", [False, True])
@pytest.mark.parametrize("sizes", [(5,), (12, 7), (12, 7, 3)])
def test_unrolled_machines_reconstruct_what_they_did_one_by_one(sizes, linear_code):
    X, machines = stack(sizes, linear_code)
    if linear_code:  # a decoder takes the code as it is: what the machine below is given need not be a probability
        machines[-1].components_ *= 3
    network = unroll(machines, dtype="float64", device="cpu")
    assert network.layer_sizes == (20, *sizes, *sizes[-2::-1], 20)
    assert str(network.activations[len(sizes) - 1]) == ("identity" if linear_code else "sigmoid")
    np.testing.assert_allclose(network.predict_proba(X), by_hand(machines, X), rtol=1e-12, atol=1e-12)


def test_the_gradient_of_an_unrolled_network_is_that_of_its_reconstructions_cross_entropy():
    X, machines = stack((6, 3), linear_code=True)
    network = unroll(machines, dtype="float64", device="cpu")
    _, gradients = network.loss_and_gradients(X, X)
    expected = (network.predict_proba(X) - X).mean(axis=0)
    np.testing.assert_allclose(gradients["b4"], expected, rtol=1e-12, atol=1e-14)


def test_a_classifier_begins_with_the_machines_and_a_last_layer_of_its_own():
    X, machines = stack((12, 7))
    network = encoder_network(machines, 3, dtype="float64", device="cpu", seed=4)
    hidden = machines[1].transform(machines[0].transform(X))
    parameters = network.get_parameters()
    scores = hidden @ parameters["W3"].T + parameters["b3"]
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(network.predict_proba(X), expected, rtol=1e-12)
    untouched = gpunet.Network([20, 12, 7, 3], activation="sigmoid", batch_norm=False, dtype="float64", seed=4)
    np.testing.assert_array_equal(parameters["W3"], untouched.get_parameters()["W3"])


def test_machines_that_do_not_fit_one_another_are_refused():
    _, machines = stack((12, 7))
    for build in (unroll, lambda machines: encoder_network(machines, 3)):
        with pytest.raises(ShapeError, match=r"machines\[1\]: got 20 visible units above 7 hidden units"):
            build([machines[1], machines[0]])
        with pytest.raises(InvalidValueError, match=r"machines: got none"):
            build([])
        with pytest.raises(NotFittedError, match="not fitted"):
            build([RestrictedBoltzmannMachine(device="cpu")])
        with pytest.raises(InvalidTypeError, match=r"machines\[0\]: got ndarray"):
            build([np.eye(3)])
        with pytest.raises(InvalidTypeError, match=r"machines: got RestrictedBoltzmannMachine. Expected a list"):
            build(machines[0])


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        ((), InvalidValueError, "hidden_layer_sizes: got no layers"),
        ((5, 0), InvalidValueError, r"hidden_layer_sizes\[1\]: 0 is out of range"),
        ((5, 2.5), InvalidTypeError, r"hidden_layer_sizes\[1\]: got 2.5"),
        (7, InvalidTypeError, r"hidden_layer_sizes: got 7. Expected a sequence such as \(256, 64\)"),
        ("57", InvalidTypeError, "hidden_layer_sizes: got '57'"),
    ],
)
def test_bad_sizes_are_refused(sizes, error, message):
    X, y = images(10)
    with pytest.raises(error, match=message):
        pretrain_stack(X, sizes, device="cpu")
    with pytest.raises(error, match=message):
        PretrainedClassifier(hidden_layer_sizes=sizes, device="cpu").fit(X, y)


# --- the classifier ---------------------------------------------------------------------------------------------------


def classifier(**arguments):
    settings = {"hidden_layer_sizes": (16, 8), "pretraining_epochs": 20, "epochs": 40, "batch_size": 20}
    return PretrainedClassifier(**{**settings, "device": "cpu", **arguments})


def test_it_learns_labels_of_any_kind():
    X, y = images()
    X_new, y_new = images(200, seed=1)
    names = np.array(["cat", "dog", "eel"])
    model = classifier().fit(X, names[y])
    assert model.classes_.tolist() == ["cat", "dog", "eel"]
    assert model.score(X_new, names[y_new]) > 0.97
    probabilities = model.predict_proba(X_new)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(names[probabilities.argmax(axis=1)], model.predict(X_new))
    assert len(model.history_.records) == 40


def test_it_is_the_stack_then_gpunet_fit():
    X, y = images()
    model = classifier(seed=3, l2=1e-4).fit(X, y)
    machines = pretrain_stack(X, (16, 8), epochs=20, batch_size=20, seed=3, device="cpu")
    network = encoder_network(machines, 3, seed=3, device="cpu")
    gpunet.fit(network, X, y, epochs=40, batch_size=20, optimizer=gpunet.SGD(0.1, momentum=0.9), l2=1e-4)
    np.testing.assert_array_equal(model.predict_proba(X), network.predict_proba(X))
    np.testing.assert_array_equal(model.machines_[1].components_, machines[1].components_)


def test_without_pre_training_it_begins_at_random():
    X, y = images()
    model = classifier(pretraining_epochs=0, epochs=1, learning_rate=0.0, initializer="normal(0.1)").fit(X, y)
    start = gpunet.Network([20, 16, 8, 3], activation="sigmoid", batch_norm=False, initializer="normal(0.1)")
    np.testing.assert_array_equal(model.network_.get_parameters()["W1"], start.get_parameters()["W1"])
    assert model.machines_ == []


def test_rows_without_labels_take_part_in_pre_training():
    X, y = images()
    model = classifier(epochs=1).fit(X[:40], y[:40], unlabelled=X[40:])
    expected = pretrain_stack(X, (16, 8), epochs=20, batch_size=20, device="cpu")
    np.testing.assert_array_equal(model.machines_[0].components_, expected[0].components_)


def test_it_is_an_estimator_to_scikit_learn():
    from sklearn.base import is_classifier
    from sklearn.model_selection import cross_val_score

    X, y = images()
    model = classifier()
    assert is_classifier(model)
    assert cross_val_score(model, X, y, cv=3).mean() > 0.9


def test_a_search_through_a_pipeline_with_labels_that_are_text():
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler
    from sklearn.utils import get_tags

    X, y = images()
    names = np.array(["cat", "dog", "eel"])[y]
    model = classifier()
    assert get_tags(model).classifier_tags.multi_class
    search = GridSearchCV(
        make_pipeline(MinMaxScaler(clip=True), model),
        {"pretrainedclassifier__epochs": [1, 40]},
        cv=2,
        error_score="raise",
    ).fit(255 * X - 7, names)
    assert search.best_params_ == {"pretrainedclassifier__epochs": 40}
    assert search.best_score_ > 0.9
    assert set(search.predict(255 * X - 7)) == {"cat", "dog", "eel"}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda X, y: (2 * X, y), InvalidValueError, r"X: .* is out of range. Expected numbers from 0 to 1"),
        (lambda X, y: (X * np.nan, y), NonFiniteError, "X: nan in row 0"),
        (lambda X, y: (X, y[:-1]), ShapeError, "y: got 239 labels for 240 rows"),
        (lambda X, y: (X, np.zeros_like(y)), InvalidValueError, r"y: got 1 class \(0\). Expected at least two"),
        (lambda X, y: (X, ["a"] * 240), InvalidValueError, r"y: got 1 class \('a'\)"),
        (lambda X, y: (X, X[:, 0] + y), InvalidValueError, r"y: Unknown label type: continuous"),
    ],
)
def test_bad_data_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        classifier(scale_inputs=False).fit(*change(*images()))


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_pixels_that_were_not_scaled_as_for_fit_are_refused(method):
    X, y = images()
    model = classifier(pretraining_epochs=1, epochs=1).fit(X, y)
    with pytest.raises(
        InvalidValueError, match=r"X: 255.0 in row 0, column \d+ is out of range. Expected numbers from 0"
    ):
        getattr(model, method)(255 * np.ceil(X))
    with pytest.raises(InvalidValueError, match=r"X: .* is out of range"):
        model.score(-X, y)


def test_bad_unlabelled_rows_are_refused_by_that_name():
    X, y = images()
    with pytest.raises(ShapeError, match=r"unlabelled has 19 features, but PretrainedClassifier is expecting 20"):
        classifier().fit(X, y, unlabelled=X[:, 1:])
    with pytest.raises(InvalidValueError, match=r"unlabelled: .* is out of range"):
        classifier().fit(X, y, unlabelled=-X)


def test_a_run_that_diverges_leaves_what_was_there():
    X, y = images()
    model = classifier(epochs=1).fit(X, y)
    before = model.predict_proba(X)
    with pytest.raises(TrainingDivergedError):
        model.set_params(learning_rate=1e5, l2=1e3, epochs=5).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), before)
