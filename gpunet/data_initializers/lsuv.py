"""Layer-sequential unit variance (Mishkin and Matas 2015, "All you need is a good init")."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gpunet.data_initializers.sample import check_sample, linear_layers, linear_output, spread, unless_it_fails
from gpunet.errors import InvalidValueError
from gpunet.initializers import Orthogonal
from gpunet.network import Network, on_network
from gpunet.random import Purpose, host_generator
from gpunet.validation import check_integer, check_number


@on_network
def lsuv(network: Network, X: npt.ArrayLike, *, tolerance: float = 0.1, max_iterations: int = 10) -> list[float]:
    """Initialise a network so that the output of every linear layer has variance 1 on X.

    The paper's algorithm 1. Everything is first set as :meth:`gpunet.Network.reset_parameters` does, with orthonormal
    W_i drawn from the network's seed. Then, from the first layer to the last (the output layer is one of them), W_i is
    divided by the standard deviation of W_i x_{i-1} over all rows and units, until the variance is within
    ``tolerance`` of 1. The biases start equal within a layer and add nothing to it.

    Where batch norm follows, the scale of W_i makes no difference to what the network computes (but for epsilon), and
    W_i is scaled all the same: its gradient goes with 1 / ||W_i||. The rows then pass through batch norm with their
    own statistics, as in a step of training; the running averages stay where a new network has them.

    Parameters
    ----------
    network : Network
        Changed in place; as it was if an error is raised.
    X : array_like, (n, d)
        At least 2 rows that differ: a batch of the training data, scaled as they are.
    tolerance : float
        The paper's Tol_var, above 0.
    max_iterations : int
        The paper's T_max, at least 1.

    Returns
    -------
    list of float
        The variance reached in each layer.

    Raises
    ------
    ShapeError, InvalidTypeError, NonFiniteError
        X does not fit the network, or has one row.
    InvalidValueError
        The output of a layer is the same for every row (a constant X, or units that are all dead), or the variance
        cannot be brought to 1.

    Examples
    --------
    >>> import numpy as np
    >>> X = 3 + np.random.default_rng(0).standard_normal((200, 20))
    >>> network = Network([20, 50, 50, 4], activation="tanh", batch_norm=False, device="cpu")
    >>> [round(variance, 3) for variance in lsuv(network, X)]
    [1.0, 1.0, 1.0]
    """
    tolerance = check_number("tolerance", tolerance, above=True)
    max_iterations = check_integer("max_iterations", max_iterations, 1)
    inputs = check_sample(network, X)
    reached = []
    with unless_it_fails(network):
        network.reset_parameters()
        orthonormal = Orthogonal()
        for layer, x in linear_layers(network, inputs):
            name = f"W{layer.index}"
            weights = orthonormal((layer.columns, layer.inputs), _generator(network, layer.index))
            network.set_parameters({name: weights})
            # What is measured again each time is the network's own arithmetic, in its own precision.
            for _ in range(max_iterations + 1):
                outputs = linear_output(network, layer, x)
                if not spread(outputs, network.dtype).any():
                    raise InvalidValueError(
                        f"X: the output of linear{layer.index} is the same for every row. Expected rows that "
                        "differ by more than rounding, and no dead or saturated layer below."
                    )
                variance = float(outputs.var())
                if abs(variance - 1) < tolerance:
                    break
                weights = weights / np.sqrt(variance)
                network.set_parameters({name: weights})
            else:
                raise InvalidValueError(
                    f"max_iterations: after {max_iterations} the variance of linear{layer.index} is {variance:.3g}. "
                    f"Expected 1 to within tolerance={tolerance:g}."
                )
            reached.append(variance)
    return reached


def _generator(network: Network, index: int) -> np.random.Generator:
    return host_generator(network.seed, Purpose.WEIGHTS, index)
