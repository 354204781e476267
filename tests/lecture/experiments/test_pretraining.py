"""The experiment of L13: pre-trained and random starts of deep sigmoid networks."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from gpunet.lecture.experiment import Settings
from gpunet.lecture.experiments import pretraining
from gpunet.lecture.experiments.pretraining import SIZES
from gpunet.lecture.starts import (
    CODE_INITIALIZERS,
    INITIALIZERS,
    LARGE,
    PRETRAINED,
    RELU,
    XAVIER,
    compare_starts,
    pca_reconstruction,
)
from tests.helpers.experiments import assert_all_hold, experiment_of, held, quick_numbers


@pytest.fixture(scope="module")
def quick():
    return quick_numbers(experiment_of(pretraining))


def numbers_that_show_it():
    """Return made-up numbers of the full size for which every claim holds."""
    generator = np.random.default_rng(0)

    def curves(final, epochs, seeds):
        seeds_of = np.linspace(-0.001, 0.001, seeds)[:, np.newaxis] * final
        return (np.linspace(3 * final, final, epochs) + seeds_of).tolist()

    finals = dict(zip([PRETRAINED, *INITIALIZERS, RELU], [0.07, 0.89, 0.4, 0.1, 0.07], strict=True))
    codes = dict(zip([PRETRAINED, *CODE_INITIALIZERS], [0.02, 0.05, 0.035], strict=True))
    pictures = generator.integers(0, 101, (8, 784)).tolist()
    return SIZES | {
        "errors": {name: curves(final, 20, 5) for name, final in finals.items()},
        "later_errors": [0.095] * 5,
        "reconstruction_errors": {name: curves(final, 11, 3) for name, final in codes.items()},
        "pca_errors": [0.027, 0.028, 0.029],
        "filters": generator.uniform(-1, 1, (25, 784)).tolist(),
        "pictures": dict.fromkeys(("test image", *codes, "PCA"), pictures),
    }


def test_a_quick_run_has_errors_and_pictures_of_every_start(quick):
    assert quick["pictures"].keys() == {"test image", PRETRAINED, *CODE_INITIALIZERS, "PCA"}
    for name in (PRETRAINED, *INITIALIZERS, RELU):
        assert np.shape(quick["errors"][name]) == (2, 2)
    for name in (PRETRAINED, *CODE_INITIALIZERS):
        assert np.shape(quick["reconstruction_errors"][name]) == (2, 3)  # before training, and after two epochs


def test_principal_components_are_those_of_scikit_learn():
    from sklearn.decomposition import PCA

    generator = np.random.default_rng(0)
    X, X_test = generator.random((40, 9)), generator.random((11, 9))
    theirs = PCA(3).fit(X)
    expected = theirs.inverse_transform(theirs.transform(X_test))
    np.testing.assert_allclose(pca_reconstruction(X, X_test, 3), expected, rtol=1e-12)


def test_the_claims_hold_for_one_seed():
    """As deep as at full size, with narrower layers, fewer rows and fewer epochs."""
    less = {"seeds": 1, "train_rows": 1500, "test_rows": 500, "hidden": [64] * 4, "epochs": 12, "more_epochs": 4}
    less |= {"code_seeds": 1, "code": [128, 8], "code_epochs": 5}
    numbers = compare_starts(Settings(), SIZES | less)
    shown = held(pretraining, numbers)
    shown.pop("relu_gets_there")  # compares a mean with a standard deviation over seeds
    assert all(shown.values()), shown
    assert pretraining.paired_gain(numbers)[0] > 0.01


def change(numbers, kind, name, seed, factor):
    changed = copy.deepcopy(numbers)
    changed[kind][name][seed] = [factor * error for error in changed[kind][name][seed]]
    return changed


@pytest.mark.parametrize(
    ("lost", "doctored"),
    [
        ("pretraining_wins", lambda numbers: change(numbers, "errors", LARGE, 2, 0.1)),
        ("more_epochs_do_not_help", lambda numbers: numbers | {"later_errors": [0.05] * 5}),
        (
            "xavier_is_stuck",
            lambda numbers: numbers | {"errors": numbers["errors"] | {XAVIER: numbers["errors"][LARGE]}},
        ),
        (
            "relu_gets_there",
            lambda numbers: numbers | {"errors": numbers["errors"] | {RELU: numbers["errors"][LARGE]}},
        ),
        ("code_beats_random", lambda numbers: change(numbers, "reconstruction_errors", XAVIER, 0, 0.1)),
        ("code_beats_pca", lambda numbers: numbers | {"pca_errors": [0.01] * 3}),
    ],
)
def test_a_claim_is_lost_with_its_numbers(lost, doctored):
    numbers = numbers_that_show_it()
    assert_all_hold(pretraining, numbers)
    assert_all_hold(pretraining, doctored(numbers), lost)


def test_the_paragraph_has_the_means_and_spreads():
    paragraph = experiment_of(pretraining).describe(numbers_that_show_it())
    assert "7.0 ± 0.0 % pre-trained" in paragraph
    assert "by 3.0 points on average" in paragraph
    assert "a mean of 3 seeds" in paragraph
    assert "for every seed (0.0200 against " in paragraph
    assert "16 principal components (0.0280)" in paragraph


@pytest.mark.parametrize("kind", ["quick", "full"])
def test_the_figure_has_named_axes(kind, quick):
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = experiment_of(pretraining).draw(quick if kind == "quick" else numbers_that_show_it())
    FigureCanvasAgg(figure).draw()
    images, plots = [], []
    for axes in figure.axes:
        (images if axes.images else plots).append(axes)
    assert len(images) == 2
    assert len(plots) == 4
    assert all(axes.get_xlabel() and axes.get_ylabel() and axes.get_title() for axes in plots)
    assert [text.get_text() for text in images[1].get_yticklabels()][:2] == ["test image", PRETRAINED]
