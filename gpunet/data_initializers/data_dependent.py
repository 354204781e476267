"""The data-dependent initialisation of Krähenbühl, Doersch, Donahue and Darrell 2015, for fully connected layers.

"Data-dependent Initializations of Convolutional Neural Networks", arXiv:1511.06856; with random weights to start from,
not with its k-means or principal components.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gpunet.data_initializers.balancing import balancing_factors, can_balance, change_rates
from gpunet.data_initializers.sample import check_sample, linear_layers, linear_output, spread, unless_it_fails
from gpunet.errors import InvalidValueError
from gpunet.network import Network, on_network
from gpunet.validation import check_flag


@on_network
def data_dependent(network: Network, X: npt.ArrayLike, *, balance: bool | None = None) -> list[float]:
    """Initialise a network so that every unit has variance 1 on X, and then every layer the same change rate.

    First everything is set as :meth:`gpunet.Network.reset_parameters` does, so that the W_i are those of the network's
    initialiser (the paper's are Gaussian; their scale does not matter).

    Within layers (the paper's algorithm 1): from the first layer to the last, unit j of layer i has mean mu_j and
    standard deviation sigma_j over the rows of X; row j of W_i is divided by sigma_j, and its bias becomes
    beta - mu_j / sigma_j. So every unit's score has variance 1 and mean beta: the network's ``initial_bias`` for hidden
    units (the paper: slightly positive for ReLU), 0 for outputs. Layers with batch norm have no bias here and need
    none; their beta stays.

    Between layers (algorithm 2): W_i and b_i are multiplied with factors that leave what the network computes as it is
    (under batch norm, but for epsilon), and bring all :func:`change_rates` to one value. Then a layer's scores have
    mean and variance equal for all of its units, but no longer 1. It is defined where every hidden layer has an
    activation with f(r s) = r f(s) (identity, ReLU, leaky ReLU) or batch norm; with sigmoid, tanh or ELU alone, a
    factor would change the function.

    Parameters
    ----------
    network : Network
        Changed in place; as it was if an error is raised. The running averages stay where a new network has them.
    X : array_like, (n, d)
        At least 2 rows that differ: a batch of the training data, scaled as they are.
    balance : bool or None
        Whether to balance the layers; None does where it is defined.

    Returns
    -------
    list of float
        The change rate of each layer.

    Raises
    ------
    ShapeError, InvalidTypeError, NonFiniteError
        X does not fit the network, or has one row.
    InvalidValueError
        A unit's score is the same for every row (a constant X, zero weights, saturated units below), or ``balance`` is
        asked for where it is not defined.

    Examples
    --------
    >>> import numpy as np
    >>> X = 3 + np.random.default_rng(0).standard_normal((200, 20))
    >>> network = Network([20, 50, 50, 4], batch_norm=False, device="cpu")
    >>> rates = data_dependent(network, X)
    >>> bool(np.allclose(rates, rates[0], rtol=1e-3))
    True
    """
    wanted = can_balance(network) if balance is None else check_flag("balance", balance)
    if wanted and not can_balance(network):
        raise InvalidValueError(
            "balance: True needs batch norm or one of identity, relu and leaky_relu in every hidden layer. "
            "Expected None or False."
        )
    inputs = check_sample(network, X)
    with unless_it_fails(network):
        network.reset_parameters()
        _normalise_units(network, inputs)
        rates = change_rates(network, inputs)
        if wanted:
            weights, biases = balancing_factors(rates, network.batch_norm)
            values = network.get_parameters()
            scaled = {f"W{index}": factor * values[f"W{index}"] for index, factor in enumerate(weights, start=1)}
            for index, factor in enumerate(biases, start=1):
                if f"b{index}" in values:
                    scaled[f"b{index}"] = factor * values[f"b{index}"]
            network.set_parameters(scaled)
            rates = change_rates(network, inputs)
    return rates


def _normalise_units(network: Network, inputs: npt.NDArray[np.floating]) -> None:
    """Give every unit's score variance 1 and the mean beta, layer after layer."""
    last = len(network.layer_sizes) - 1
    for layer, x in linear_layers(network, inputs):
        outputs = linear_output(network, layer, x)
        deviation = spread(outputs, network.dtype)
        if not deviation.all():
            unit = int(np.argmin(deviation))
            raise InvalidValueError(
                f"X: unit {unit} of linear{layer.index} has the same score for every row. Expected scores that differ: "
                "weights that are not 0, and layers below that are not dead or saturated."
            )
        weight, bias = f"W{layer.index}", f"b{layer.index}"
        values = {weight: network.backend.to_numpy(network.parameters[weight]) / deviation[:, np.newaxis]}
        if bias in network.parameters:
            beta = 0.0 if layer.index == last else network.initial_bias
            values[bias] = beta - outputs.mean(axis=0) / deviation
        network.set_parameters(values)
