"""What a network of half precision has beside its float32 parameters: rounded copies of weights, and a loss scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.backends import Backend
from gpunet.backends.half import padded
from gpunet.backends.reference.loss_scale import BACKOFF
from gpunet.parameters import Layout
from gpunet.validation import check_integer, check_number

Array = npt.NDArray[Any]

# Those of PyTorch's torch.amp.GradScaler.
INITIAL_SCALE, GROWTH_INTERVAL = 2.0**16, 2000
# The smallest float16. A scale below has had no finite gradients to rise by.
SMALLEST_SCALE = 2.0**-24
LARGEST_COUNT = 2**24  # of which float32 has every integer


class WeightCopies:
    """The W_i rounded to half precision, in rows that begin at multiples of 16 bytes: what the products read.

    Parameters
    ----------
    backend : Backend
    layout : Layout
    parameters : array of float32
        Flat, laid out like that.
    dtype : dtype
        Of half precision.
    multiple : int
        Rows and columns of a copy are multiples of it; what exceeds the matrix is 0.

    Attributes
    ----------
    views : dict of str to array
    """

    def __init__(
        self, backend: Backend, layout: Layout, parameters: Array, dtype: npt.DTypeLike, multiple: int
    ) -> None:
        self._backend, self._parameters, self._multiple = backend, parameters, multiple
        shapes = {name: spec.shape for name, spec in layout.specs.items() if spec.is_weight}
        whole = {name: tuple(padded(size, multiple) for size in shape) for name, shape in shapes.items()}
        ends = np.cumsum([rows * columns for rows, columns in whole.values()]).tolist()
        starts = dict(zip(whole, [0, *ends], strict=False))
        self._copies = backend.zeros(ends[-1], dtype)
        table = [(layout.slices[name].start, *shape, starts[name], whole[name][1]) for name, shape in shapes.items()]
        self._table = backend.asarray(np.array(table, np.int64))
        self.views = {
            name: self._copies[starts[name] : starts[name] + rows * columns].reshape(rows, columns)
            for name, (rows, columns) in whole.items()
        }

    def refresh(self) -> None:
        """Round the weights that the network has now."""
        self._backend.round_matrices(self._parameters, self._copies, self._table, self._multiple)


class LossScale:
    """What gradients of float16 are multiplied with, so that small ones do not become 0; it follows the training.

    It begins at 2^16, is doubled after 2000 steps in a row with finite gradients, and halved by a step without, which
    changes nothing else. All of it is on the device, where :meth:`gpunet.backends.Backend.unscale_gradients` does that.

    Parameters
    ----------
    backend : Backend

    Attributes
    ----------
    on_device : array of float32, (4,)
        See :func:`gpunet.backends.reference.loss_scale.unscale_gradients`.
    newly_skipped : array of float32, (1,)
        The last of these numbers: batches of the steps skipped since :meth:`count_skipped`.
    guard : array of float32, (2,)
        What an optimiser's step takes for the loss: NaN where the gradients are not finite.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.on_device = backend.zeros(4, np.float32)
        self.newly_skipped = self.on_device[3:]
        self.guard = backend.zeros(2, np.float32)
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self._write(INITIAL_SCALE, 0, 0)

    def is_too_large(self, loss: Array) -> bool:
        """Say whether a backward pass overflowed that a smaller scale may not, and take that: for gradients to be read.

        Parameters
        ----------
        loss : array, (2,)
            Of that pass, on the device.
        """
        guard, (scale, *counts) = self._backend.to_numpy(self.guard), self._read()
        if np.isfinite(guard[0]) or not np.isfinite(self._backend.to_numpy(loss)[0]) or scale <= SMALLEST_SCALE:
            return False
        self._write(scale * BACKOFF, *counts)
        return True

    @property
    def value(self) -> float:
        """The scale now."""
        return self._read()[0]

    def count_skipped(self) -> int:
        """Return how many batches had a step that was skipped, since this was last asked."""
        skipped = int(self._read()[3])
        if skipped:
            self._backend.copy(np.zeros(1, np.float32), self.newly_skipped)
        return skipped

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        scale, good_steps, skipped_steps, _ = self._read()
        return {"scale": scale, "good_steps": int(good_steps), "skipped_steps": int(skipped_steps)}

    def restore(self, found: Mapping[str, Any]) -> None:
        """Go on from what :meth:`to_dict` returned.

        Raises
        ------
        KeyError, TypeError, InvalidTypeError, InvalidValueError
            It is something else.
        """
        self._write(*self.check(found))

    @staticmethod
    def check(found: Mapping[str, Any]) -> tuple[float, int, int]:
        """Return what :meth:`restore` would set, or raise as it does."""
        return (
            check_number("loss scale", found["scale"], above=True, maximum=float(np.finfo(np.float32).max)),
            check_integer("good_steps", found["good_steps"], 0, LARGEST_COUNT),
            check_integer("skipped_steps", found["skipped_steps"], 0, LARGEST_COUNT),
        )

    def _read(self) -> list[float]:
        values: list[float] = self._backend.to_numpy(self.on_device).tolist()
        return values

    def _write(self, *values: float) -> None:
        """Set the first numbers; those that are left out become 0."""
        self._backend.copy(np.array([*values, 0, 0, 0, 0][:4], np.float32), self.on_device)
