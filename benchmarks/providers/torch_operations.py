"""Single operations in PyTorch.

``forward`` calls the functional API without recording gradients. ``backward`` is autograd's, through a graph that was
recorded once and is retained. The loss is recorded and differentiated in each unit of work. The optimisers have one
flat parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from benchmarks.cases import Case
from benchmarks.problem import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, LEARNING_RATE, MOMENTUM, Problem
from gpunet.activations import get_activation

Tensor = torch.Tensor
Tensors = dict[str, Tensor]
# Does the work; makes named tensors of what that returned.
Operation = tuple[Callable[[], Any], Callable[[Any], Tensors]]


def build_operation(case: Case, problem: Problem, device: str, tuned: bool) -> Operation:
    """Return a function that does the work once, and one that names what it computed.

    Parameters
    ----------
    case, problem
    device : str
    tuned : bool
        Whether results go into tensors that were allocated before, activations work in place, and optimisers are fused.
    """
    tensors = {name: torch.from_numpy(array.copy()).to(device) for name, array in problem.arrays.items()}
    if "labels" in tensors:
        tensors["labels"] = tensors["labels"].long()
    if case.operation in ("sgd_step", "adam_step"):
        return _optimizer_step(case, tensors, tuned)
    if case.operation == "softmax_cross_entropy":
        return _softmax_cross_entropy(tensors)
    if case.operation == "gemm":
        return _gemm(tensors, tuned)
    if case.mode == "backward":
        return _backward(case, tensors)
    return _forward(case, tensors, tuned)


def _gemm(tensors: Tensors, tuned: bool) -> Operation:
    a, b = tensors["a"], tensors["b"]
    if tuned:
        out = torch.empty((a.shape[0], b.shape[0]), dtype=a.dtype, device=a.device)
        return partial(torch.mm, a, b.T, out=out), lambda product: {"out": product}
    return lambda: a @ b.T, lambda product: {"out": product}


def _forward(case: Case, tensors: Tensors, tuned: bool) -> Operation:
    running = _running(tensors)
    activate = _in_place(case) if tuned else _activation(case)
    s, bias = tensors["s"], tensors["bias"]
    if case.operation == "batch_norm_activation":

        @torch.no_grad()
        def normalise() -> Tensor:
            return activate(_normalised(tensors, running))

        return normalise, lambda out: {"out": out, **running}

    out = torch.empty_like(s)

    @torch.no_grad()
    def add() -> Tensor:
        return activate(torch.add(s, bias, out=out) if tuned else s + bias)

    return add, lambda result: {"out": result}


def _backward(case: Case, tensors: Tensors) -> Operation:
    if case.operation == "batch_norm_activation":
        inputs = {"ds": tensors["s"], "dgamma": tensors["gamma"], "dbeta": tensors["beta"]}
    else:
        inputs = {"ds": tensors["s"], "dbias": tensors["bias"]}
    for tensor in inputs.values():
        tensor.requires_grad_()
    if case.operation == "batch_norm_activation":
        y = _activation(case)(_normalised(tensors, _running(tensors)))
    else:
        y = _activation(case)(tensors["s"] + tensors["bias"])
    dy, wanted = tensors["dy"], list(inputs.values())
    return (
        lambda: torch.autograd.grad(y, wanted, dy, retain_graph=True),
        lambda gradients: dict(zip(inputs, gradients, strict=True)),
    )


def _softmax_cross_entropy(tensors: Tensors) -> Operation:
    logits, labels = tensors["logits"].requires_grad_(), tensors["labels"]

    def run() -> tuple[Tensor, Tensor]:
        loss = functional.cross_entropy(logits, labels)
        return loss, torch.autograd.grad(loss, logits)[0]

    return run, lambda results: {"loss": results[0].reshape(1), "dlogits": results[1]}


def _optimizer_step(case: Case, tensors: Tensors, tuned: bool) -> Operation:
    parameter = torch.nn.Parameter(tensors["parameters"])
    parameter.grad = tensors["gradients"]
    optimizer: torch.optim.Optimizer
    fused = True if tuned else None
    if case.operation == "sgd_step":
        optimizer = torch.optim.SGD([parameter], lr=LEARNING_RATE, momentum=MOMENTUM, fused=fused)
        optimizer.state[parameter] = {"momentum_buffer": tensors["velocity"]}
    else:
        optimizer = torch.optim.Adam([parameter], lr=LEARNING_RATE, fused=fused)
        optimizer.state[parameter] = {
            "step": torch.zeros((), device=parameter.device if tuned else "cpu"),
            "exp_avg": tensors["first_moment"],
            "exp_avg_sq": tensors["second_moment"],
        }
    moments = {name: tensors[name] for name in tensors if name not in ("parameters", "gradients")}
    return optimizer.step, lambda _: {"parameters": parameter.detach(), **moments}


def _running(tensors: Tensors) -> Tensors:
    columns = tensors["s"].shape[1] if "s" in tensors else 0
    like = tensors["s"].new_empty(columns)
    return {"running_mean": torch.zeros_like(like), "running_variance": torch.ones_like(like)}


def _normalised(tensors: Tensors, running: Tensors) -> Tensor:
    return functional.batch_norm(
        tensors["s"],
        running["running_mean"],
        running["running_variance"],
        tensors["gamma"],
        tensors["beta"],
        training=True,
        momentum=BATCH_NORM_MOMENTUM,
        eps=BATCH_NORM_EPSILON,
    )


def _activation(case: Case) -> Callable[[Tensor], Tensor]:
    activation = get_activation(case.activation)
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "identity": lambda x: x,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "relu": torch.relu,
        "leaky_relu": lambda x: functional.leaky_relu(x, activation.parameter),
        "elu": lambda x: functional.elu(x, activation.parameter),
    }
    return functions[activation.name]


def _in_place(case: Case) -> Callable[[Tensor], Tensor]:
    activation = get_activation(case.activation)
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "identity": lambda x: x,
        "sigmoid": torch.sigmoid_,
        "tanh": torch.tanh_,
        "relu": torch.relu_,
        "leaky_relu": lambda x: functional.leaky_relu(x, activation.parameter, inplace=True),
        "elu": lambda x: functional.elu(x, activation.parameter, inplace=True),
    }
    return functions[activation.name]
