"""Single operations as compiled functions of JAX.

``backward`` is ``jax.vjp``'s: the forward pass runs once beforehand, and what it kept is an argument of the compiled
function. What an operation updates (running averages, parameters, moments) is donated to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy.typing as npt

from benchmarks.cases import Case
from benchmarks.providers.jax_networks import adam, find_activation, mean_cross_entropy, normalise, sgd

Arrays = dict[str, jax.Array]
# From what earlier units left behind: what this one leaves, and what it computed.
Operation = tuple[Callable[[Any], tuple[Any, Arrays]], Any]


def build_operation(case: Case, host: Mapping[str, npt.NDArray[Any]]) -> Operation:
    """Return a function that does the work once, and the argument of its first call."""
    arrays = {name: jnp.array(array) for name, array in host.items()}
    if case.mode == "backward":
        return _backward(case, arrays)
    return _FORWARD[case.operation](case, arrays)


def _gemm(case: Case, arrays: Arrays) -> Operation:
    product = jax.jit(lambda a, b: a @ b.T)
    return lambda _: (None, {"out": product(arrays["a"], arrays["b"])}), None


def _bias_activation(case: Case, arrays: Arrays) -> Operation:
    activation = find_activation(case.activation)
    add = jax.jit(lambda s, bias: activation(s + bias))
    return lambda _: (None, {"out": add(arrays["s"], arrays["bias"])}), None


def _batch_norm(case: Case, arrays: Arrays) -> Operation:
    activation = find_activation(case.activation)

    def forward(running: Arrays, s: jax.Array, gamma: jax.Array, beta: jax.Array) -> tuple[Arrays, jax.Array]:
        z, mean, variance = normalise(s, gamma, beta, running["running_mean"], running["running_variance"])
        return {"running_mean": mean, "running_variance": variance}, activation(z)

    compiled = jax.jit(forward, donate_argnums=0)

    def once(running: Arrays) -> tuple[Arrays, Arrays]:
        running, out = compiled(running, arrays["s"], arrays["gamma"], arrays["beta"])
        return running, {"out": out, **running}

    return once, _running(arrays["s"])


def _backward(case: Case, arrays: Arrays) -> Operation:
    activation = find_activation(case.activation)
    names: tuple[str, ...] = ("ds", "dbias")
    inputs: tuple[jax.Array, ...] = arrays["s"], arrays["bias"]
    if case.operation == "batch_norm_activation":
        names, inputs = ("ds", "dgamma", "dbeta"), (arrays["s"], arrays["gamma"], arrays["beta"])

        def forward(*inputs: jax.Array) -> jax.Array:
            return activation(normalise(*inputs, *_running(arrays["s"]).values())[0])

    else:

        def forward(*inputs: jax.Array) -> jax.Array:
            return activation(inputs[0] + inputs[1])

    _, pull_back = jax.vjp(forward, *inputs)
    compiled = jax.jit(lambda function, dy: function(dy))
    return lambda _: (None, dict(zip(names, compiled(pull_back, arrays["dy"]), strict=True))), None


def _softmax_cross_entropy(case: Case, arrays: Arrays) -> Operation:
    compiled = jax.jit(jax.value_and_grad(mean_cross_entropy))

    def once(_: None) -> tuple[None, Arrays]:
        loss, gradient = compiled(arrays["logits"], arrays["labels"])
        return None, {"loss": loss, "dlogits": gradient}

    return once, None


def _sgd_step(case: Case, arrays: Arrays) -> Operation:
    compiled = jax.jit(lambda changing, gradients: sgd(changing[0], gradients, changing[1]), donate_argnums=0)

    def once(changing: Any) -> tuple[Any, Arrays]:
        changing = compiled(changing, arrays["gradients"])
        return changing, {"parameters": changing[0], "velocity": changing[1]}

    return once, (arrays.pop("parameters"), arrays.pop("velocity"))


def _adam_step(case: Case, arrays: Arrays) -> Operation:
    first_step = jnp.ones((), arrays["parameters"].dtype)
    compiled = jax.jit(
        lambda changing, gradients, step: adam(changing[0], gradients, changing[1], step), donate_argnums=0
    )

    def once(changing: Any) -> tuple[Any, Arrays]:
        parameters, (first, second) = changing = compiled(changing, arrays["gradients"], first_step)
        return changing, {"parameters": parameters, "first_moment": first, "second_moment": second}

    return once, (arrays.pop("parameters"), (arrays.pop("first_moment"), arrays.pop("second_moment")))


def _running(s: jax.Array) -> Arrays:
    columns = s.shape[1]
    return {"running_mean": jnp.zeros(columns, s.dtype), "running_variance": jnp.ones(columns, s.dtype)}


_FORWARD: dict[str, Callable[[Case, Arrays], Operation]] = {
    "gemm": _gemm,
    "bias_activation": _bias_activation,
    "batch_norm_activation": _batch_norm,
    "softmax_cross_entropy": _softmax_cross_entropy,
    "sgd_step": _sgd_step,
    "adam_step": _adam_step,
}
