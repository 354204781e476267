"""Half the squared error, summed over the outputs (lecture row L12)."""

from __future__ import annotations

from gpunet.layers.loss import Loss


class SquaredError(Loss):
    """E = 1/2 sum_j (t_j - o_j)^2 (Rumelhart, Hinton, Williams 1986, eq. 1); the gradient is o - t."""

    name = "squared_error"
