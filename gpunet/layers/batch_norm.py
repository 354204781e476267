"""Batch normalisation and activation: Y = f(gamma Shat + beta) (lecture rows L22-L24)."""

from __future__ import annotations

from gpunet.activations import Activation
from gpunet.layers.base import Array, Layer, ParameterSpec, fixed


class BatchNorm(Layer):
    """Y = f(gamma (S - mu) / sqrt(v + epsilon) + beta), after the linear layer and before the activation.

    In training, mu and v are the batch's own (v biased), and the running averages move towards mu and the unbiased
    variance; otherwise the running averages stand in for them.

    Parameters
    ----------
    index, columns : int
    activation : Activation
    scale_shift : bool
        Whether gamma and beta are learnt; without them Y = f(Shat).
    momentum : float
        The weight of the new value in the running averages.
    epsilon : float
        Added to the variance.
    initial_beta : float
        Every beta starts here (gamma starts at 1).

    References
    ----------
    Ioffe and Szegedy 2015, "Batch normalization: accelerating deep network training by reducing internal covariate
    shift".
    """

    kind = "batch_norm"
    activation, epsilon = fixed("activation"), fixed("epsilon")

    def __init__(
        self,
        index: int,
        columns: int,
        activation: Activation,
        *,
        scale_shift: bool = True,
        momentum: float = 0.1,
        epsilon: float = 1e-5,
        initial_beta: float = 0.0,
    ) -> None:
        super().__init__(index, columns)
        self._activation = activation
        self.scale_shift = scale_shift
        self.momentum = momentum
        self._epsilon = epsilon
        self._initial_beta = initial_beta
        self._gamma, self._beta = f"gamma{index}", f"beta{index}"
        self._running_mean, self._running_variance = f"running_mean{index}", f"running_variance{index}"

    def parameter_specs(self) -> list[ParameterSpec]:
        if not self.scale_shift:
            return []
        return [
            ParameterSpec(self._gamma, (self.columns,), 1.0),
            ParameterSpec(self._beta, (self.columns,), self._initial_beta),
        ]

    def state_specs(self) -> list[ParameterSpec]:
        return [
            ParameterSpec(self._running_mean, (self.columns,), 0.0),
            ParameterSpec(self._running_variance, (self.columns,), 1.0),
        ]

    def forward(self, x: Array, training: bool) -> Array:
        gamma, beta = self.parameters.get(self._gamma), self.parameters.get(self._beta)
        running_mean, running_variance = self.state[self._running_mean], self.state[self._running_variance]
        y = self.buffer("y", x.shape[0], training)
        if not training:
            self.backend.batch_norm_activation_inference(
                x, gamma, beta, self.activation, y, running_mean, running_variance, self.epsilon
            )
            return y
        mean, inverse_std = self._statistics()
        self.backend.batch_norm_activation_forward(
            x,
            gamma,
            beta,
            self.activation,
            y,
            mean,
            inverse_std,
            running_mean,
            running_variance,
            self.momentum,
            self.epsilon,
        )
        self._s, self._y = x, y
        return y

    def backward(self, dy: Array, input_gradient: bool = True) -> Array | None:
        """dS, dgamma and dbeta of the normalised batch, in place of dY; see the backend's formula and L24."""
        gamma, beta = self.parameters.get(self._gamma), self.parameters.get(self._beta)
        mean, inverse_std = self._statistics()
        self.backend.batch_norm_activation_backward(
            dy,
            self._s,
            self._y,
            gamma,
            beta,
            self.activation,
            mean,
            inverse_std,
            ds=dy,
            dgamma=self.gradients.get(self._gamma),
            dbeta=self.gradients.get(self._beta),
        )
        return dy

    def slopes(self) -> Array:
        """Return f'(gamma Shat + beta) of the last training forward, (n, columns), on the host."""
        if self.activation.derivative_of == "output":
            return self.activation.derivative(self.numbers(self._y))
        mean, inverse_std = map(self._vector, self._statistics())
        z = (self.numbers(self._s) - mean) * inverse_std
        if self.scale_shift:
            z = z * self._vector(self.parameters[self._gamma]) + self._vector(self.parameters[self._beta])
        return self.activation.derivative(z)

    def _statistics(self) -> tuple[Array, Array]:
        """Return the batch's mean and 1 / sqrt(v + epsilon), each (width,)."""
        mean = self.workspace.rows(f"{self.name}.mean", 1, self.width, self.dtype)
        inverse_std = self.workspace.rows(f"{self.name}.inverse_std", 1, self.width, self.dtype)
        return mean.reshape(-1), inverse_std.reshape(-1)

    def _vector(self, values: Array) -> Array:
        """Return a vector of the layer, (columns,), on the host."""
        return self.backend.to_numpy(values)[: self.columns]
