"""Known bugs in the Python of the backends and of dropout, planted one at a time, and the tests that must find each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import pytest

import gpunet.backends.numpy as numpy_backend
from gpunet.activations import ReLU
from gpunet.layers import dropout as dropout_layer
from tests.helpers.planting import planted
from tests.layers import test_batch_norm as batch_norm_tests
from tests.layers import test_dropout as dropout_tests

WRONG_NUMBERS = r"Not equal to tolerance|Arrays are not equal"
OVERRUN = "write outside a buffer"


@dataclass(frozen=True)
class Bug:
    """One bug, and how it is found.

    Attributes
    ----------
    name : str
    module : module
        Whose text has the bug.
    old, new : str
        The replacement.
    check : callable
        A test that passes without the bug.
    finding : str
        Pattern of the error.
    """

    name: str
    module: ModuleType
    old: str
    new: str
    check: Callable[[], None]
    finding: str = WRONG_NUMBERS

    def __str__(self) -> str:
        return self.name.replace(" ", "_")


def residual() -> None:
    batch_norm_tests.test_what_rounding_leaves_of_a_large_mean_is_taken_out()


def without_scale() -> None:
    batch_norm_tests.test_the_gradient_without_scale_and_shift_is_the_references(ReLU())


def masks() -> None:
    dropout_tests.test_layers_of_equal_width_have_masks_of_their_own(dropout_tests.OnNumpy)


def masks_of_kernels() -> None:
    dropout_tests.test_layers_of_equal_width_have_masks_of_their_own(dropout_tests.OnCuda)


BUGS = [
    Bug("what is left of the mean stays in y", numpy_backend, "        out -= residual\n", "", residual),
    Bug("what is left of the mean stays in it", numpy_backend, "        mean += residual\n", "", residual),
    Bug(
        "what is left of the mean stays in the variance",
        numpy_backend,
        "self._centred_dots(out, out, residual, out=variance)",
        "self._centred_dots(out, out, 0 * residual, out=variance)",
        residual,
    ),
    Bug(
        "dbeta and dgamma share their memory",
        numpy_backend,
        'self._scratch("sum_dz_shat", mean',
        'self._scratch("sum_dz", mean',
        without_scale,
    ),
    Bug(
        "offset and slope share their memory",
        numpy_backend,
        'offset = self._scratch("offset"',
        'offset = self._scratch("slope"',
        without_scale,
    ),
    Bug(
        "masks do not depend on the layer",
        numpy_backend,
        "words = random_words(Stream.DROPOUT, part.start, part.stop - part.start, seed, layer, number)",
        "words = random_words(Stream.DROPOUT, part.start, part.stop - part.start, seed, 1, number)",
        masks,
    ),
    Bug(
        "all layers have one number",
        dropout_layer,
        "self.seed, self.index, self.step",
        "self.seed, 1, self.step",
        masks,
    ),
]


@pytest.mark.parametrize("bug", BUGS, ids=str)
def test_a_planted_bug_is_found(bug: Bug) -> None:
    bug.check()
    with planted(bug.module, bug.old, bug.new), pytest.raises(Exception, match=bug.finding):
        bug.check()
