"""Dynamic loss scaling: the operation of ``loss_scale.cu``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from gpunet.backends.cuda.loss_scale import loss_scale_group
from gpunet.verification.check import Check, Unit, alignments, operation_check
from gpunet.verification.operation import Operation, makes
from gpunet.verification.storage import FLOAT32
from gpunet.verification.subject import Subject

SIZES = (1, 3, 4, 1023, 40_001)


@makes("unscale_gradients")
def unscale_gradients(
    size: int,
    wrong: int | None = None,
    value: float = np.nan,
    *,
    good: int = 5,
    interval: int = 2000,
    batches: int = 1,
    loss: float = 1.5,
) -> Operation:
    """Return the operation on random gradients, one of them another value; everything is to be exact."""
    gradients = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    if wrong is not None:
        gradients[wrong] = value
    given = {
        "gradients": gradients,
        "loss": np.array([loss, 3], np.float32),
        "scale": np.array([2.0**12, good, 7, 2], np.float32),
    }
    written = {"guard": ((2,), np.float32)}
    settings = {"interval": interval, "batches": batches}
    return Operation("unscale_gradients", given, written, settings, changed=("gradients", "scale", "loss"))


def checks(subject: Subject) -> Iterator[Check]:
    """Yield every size and alignment, and what is not finite at every place that threads take in another way."""
    check = partial(operation_check, subject.operations(), "float32", (Unit("loss_scale", loss_scale_group()),))
    for size in SIZES:
        yield check(unscale_gradients.later(size), f"{size} gradients")
        for place in sorted({0, size // 2, size - 1}):
            yield check(unscale_gradients.later(size, place), f"{size} gradients, NaN at {place}")
    for value in (np.inf, -np.inf):
        yield check(unscale_gradients.later(1023, 500, value), f"1023 gradients, one {value}")
        yield check(unscale_gradients.later(1023, loss=value), f"1023 gradients, loss {value}")
    for good, words in ((1998, "before"), (1999, "at")):
        yield check(unscale_gradients.later(100, good=good), f"100 gradients, {words} the end of the interval")
    yield check(unscale_gradients.later(100, 7, batches=3), "100 gradients of three batches, NaN")
    yield check(unscale_gradients.later(100, 7, interval=0), "100 gradients, NaN, the scale stays")
    operation = unscale_gradients.later(1025)
    for words, offsets in alignments(operation.make(), FLOAT32):
        yield check(operation, f"1025 gradients, {words}", offsets)
