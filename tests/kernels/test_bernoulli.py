"""``kernels/bernoulli.cu`` against the reference: the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpunet.backends.cuda import CudaBackend
from gpunet.random import Stream, random_words
from gpunet.verification import random_bits
from gpunet.verification.storage import STORAGES
from tests.helpers.cuda import on_device, poisoned
from tests.helpers.verification import confirm


@pytest.mark.parametrize("storage", STORAGES, ids=str)
def test_as_specified(device: Any, storage: Any) -> None:
    confirm(device, random_bits, "binary samples", storage.name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_share_of_p_is_one(device: Any, dtype: str) -> None:
    backend = CudaBackend(device)
    for place, probability in enumerate((0.01, 0.3, 0.5, 0.97)):
        given = on_device(backend, np.full((203, 99), probability, dtype))
        step = on_device(backend, np.array([place], np.int64))
        backend.sample_bernoulli(given, given, 7, 2, step)
        samples = backend.to_numpy(given)
        deviation = np.sqrt(probability * (1 - probability) / samples.size)
        assert samples.mean() == pytest.approx(probability, abs=5 * deviation)


def test_the_largest_and_the_smallest_word(device: Any) -> None:
    """Elements whose words are so extreme that a rounded or a wrapped threshold shows."""
    words = np.concatenate([random_words(Stream.SAMPLING, first, 2**22, 0, 1, 0) for first in (0, 2**22)])
    for element in (int(words.argmin()), int(words.argmax())):
        first, last = element // 4 * 4, element + 1
        for dtype in ("float32", "float64"):
            number = np.dtype(dtype).type
            for probability in (np.nextafter(number(1), number(0)), number(1), number(0), number(2.0**-32)):
                backend = CudaBackend(device)
                values = np.full(last, probability, dtype).reshape(1, -1)
                out = poisoned(backend, values.shape, dtype)
                backend.sample_bernoulli(
                    on_device(backend, values), out, 0, 1, on_device(backend, np.zeros(1, np.int64))
                )
                expected = words[first:last] < float(probability) * 2.0**32
                np.testing.assert_array_equal(backend.to_numpy(out)[0, first:] == 1, expected)
