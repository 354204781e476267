"""Networks and single operations in PyTorch: as usually written, and tuned.

Of the operations, ``forward`` calls the functional API without recording gradients; ``backward`` is autograd's, through
a graph that was recorded once and is retained. The loss is recorded and differentiated in each unit of work. The
optimisers have one flat parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.peers.peer import Array, Device, NetworkWork, OperationWork, Work, as_host
from benchmarks.problem import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, LEARNING_RATE, MOMENTUM, Problem
from benchmarks.report.results import Case
from gpunet.activations import get_activation

Tensors = dict[str, Tensor]
# Does the work; makes named tensors of what that returned.
Operation = tuple[Callable[[], Any], Callable[[Any], Tensors]]


class CudaDevice(Device):
    """A GPU: events of PyTorch's current stream mark the time."""

    def __init__(self) -> None:
        torch.cuda.reset_peak_memory_stats()

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def record(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def elapsed(self, start: Any, stop: Any) -> float:
        stop.synchronize()
        return float(start.elapsed_time(stop)) / 1000

    def peak_bytes(self) -> int | None:
        return int(torch.cuda.max_memory_allocated())

    def launches(self, unit: Callable[[], object]) -> int:
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            unit()
            torch.cuda.synchronize()
        return count_kernels(profiler.events())


def count_kernels(events: Iterable[Any]) -> int:
    """Return how many of a profiler's events are kernels on a GPU: no copies, no fills, nothing of the host."""
    on_device = [event.name for event in events if event.device_type == DeviceType.CUDA]
    return sum(not name.startswith(("Memcpy", "Memset")) for name in on_device)


def to_host(value: Any) -> Array:
    """Return a tensor as float64 of NumPy."""
    return as_host(value.detach().cpu().numpy())


# --- networks ---


class EagerNetwork(NetworkWork):
    """As usually written: ``Linear`` with its bias, ``BatchNorm1d``, the activation; an optimiser with its defaults.

    A bias before batch norm, which the problem does not have, starts at 0.
    """

    bias_before_batch_norm = True

    def __init__(self, case: Case, problem: Problem, device: str) -> None:
        self.torch_device = device
        super().__init__(case, problem)
        self.named: Tensors = {}
        self.model = self._build(case, problem).to(device)
        self.model.train(case.mode != "forward")
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = self.new_optimizer()
        # What subclasses compile.
        self.logits: Callable[[Tensor], Tensor] = self.model
        self.loss: Callable[[Tensor, Tensor], Tensor] = self._loss
        self.update: Callable[[], Any] = self.optimizer.step
        if device == "cuda":
            self.device = CudaDevice()

    def _build(self, case: Case, problem: Problem) -> nn.Sequential:
        dtype, modules, last = getattr(torch, case.dtype), list[nn.Module](), len(case.sizes) - 1
        found: dict[str, Any] = {}
        for index, (inputs, outputs) in enumerate(pairwise(case.sizes), start=1):
            normalised = index < last and case.batch_norm
            linear = nn.Linear(inputs, outputs, bias=not normalised or self.bias_before_batch_norm, dtype=dtype)
            modules.append(linear)
            found |= {f"W{index}": linear.weight, f"b{index}": linear.bias}
            if normalised:
                norm = nn.BatchNorm1d(outputs, eps=BATCH_NORM_EPSILON, momentum=BATCH_NORM_MOMENTUM, dtype=dtype)
                modules.append(norm)
                found |= {f"gamma{index}": norm.weight, f"beta{index}": norm.bias}
                found |= {f"running_mean{index}": norm.running_mean, f"running_variance{index}": norm.running_var}
                if linear.bias is not None:
                    nn.init.zeros_(linear.bias)
            if index < last:
                modules.append(_Activation(case.activation))
        with torch.no_grad():
            for name, value in (problem.parameters | problem.state).items():
                found[name].copy_(torch.from_numpy(value))
        self.named = {name: found[name] for name in problem.parameters}
        return nn.Sequential(*modules)

    def new_optimizer(self) -> torch.optim.Optimizer:
        """Return the case's optimiser."""
        return new_optimizer(self.case, self.model.parameters())

    def place(self, batches: list[tuple[Array, Array]]) -> list[tuple[Any, ...]]:
        return [
            (torch.from_numpy(X).to(self.torch_device), torch.from_numpy(y).long().to(self.torch_device))
            for X, y in batches
        ]

    def forward(self, X: Tensor, y: Tensor) -> Tensor:
        """Return the logits in inference mode."""
        with torch.no_grad():
            return self.logits(X)

    def forward_backward(self, X: Tensor, y: Tensor) -> Tensor:
        """Return the loss and leave the gradients in the parameters."""
        self.optimizer.zero_grad()
        loss = self.loss(X, y)
        loss.backward()
        return loss

    def step(self, X: Tensor, y: Tensor) -> Tensor:
        """Return the loss before one step of training."""
        loss = self.forward_backward(X, y)
        self.update()
        return loss

    def epoch(self, X: Array, y: Array, shuffle: bool = True) -> float:
        """Return the mean loss of an epoch over host data, batches by ``DataLoader``, the loss read after each."""
        data = TensorDataset(torch.from_numpy(X), torch.from_numpy(y).long())
        total = 0.0
        for batch, labels in DataLoader(data, batch_size=self.case.rows, shuffle=shuffle):
            loss = self.step(batch.to(self.torch_device), labels.to(self.torch_device))
            total += loss.item() * len(labels)
        return total / len(data)

    def parameters(self) -> Mapping[str, Any]:
        return self.named

    def gradients(self) -> Mapping[str, Any]:
        return {name: tensor.grad for name, tensor in self.named.items() if tensor.grad is not None}

    def to_host(self, value: Any) -> Array:
        return to_host(value)

    def _loss(self, X: Tensor, y: Tensor) -> Tensor:
        return self.criterion(self.logits(X), y)


class TunedNetwork(EagerNetwork):
    """Without the bias before batch norm, which does nothing there; the fused optimiser; inference mode.

    Gradients are set to None, not to 0 (the default since PyTorch 2.0). An epoch keeps its data on the device.
    """

    bias_before_batch_norm = False

    def new_optimizer(self) -> torch.optim.Optimizer:
        return new_optimizer(self.case, self.model.parameters(), fused=True)

    def forward(self, X: Tensor, y: Tensor) -> Tensor:
        with torch.inference_mode():
            return self.logits(X)

    def epoch(self, X: Array, y: Array, shuffle: bool = True) -> float:
        """Return the mean loss of an epoch: the data go to the device once, the loss comes back once."""
        ((features, targets),) = self.place([(X, y)])
        rows = len(targets)
        order = (
            torch.randperm(rows, device=self.torch_device) if shuffle else torch.arange(rows, device=self.torch_device)
        )
        total = torch.zeros((), device=self.torch_device)
        for index in order.split(self.case.rows):
            loss = self.step(features.index_select(0, index), targets.index_select(0, index))
            total += loss.detach() * len(index)
        return total.item() / rows


def new_optimizer(case: Case, parameters: Any, **options: Any) -> torch.optim.Optimizer:
    """Return a case's optimiser."""
    if case.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=LEARNING_RATE, **options)
    options.pop("capturable", None)
    return torch.optim.SGD(parameters, lr=LEARNING_RATE, momentum=MOMENTUM, **options)


# --- operations ---


def build_operation_work(case: Case, problem: Problem, device: str, tuned: bool) -> Work:
    """Return the work of a single operation.

    Where ``tuned``, results go into tensors that were allocated before, activations work in place, and optimisers are
    fused.
    """
    work = OperationWork(*build_operation(case, problem, device, tuned), to_host)
    if device == "cuda":
        work.device = CudaDevice()
    return work


def build_operation(case: Case, problem: Problem, device: str, tuned: bool) -> Operation:
    """Return a function that does the work once, and one that names what it computed."""
    tensors = {name: torch.from_numpy(array.copy()).to(device) for name, array in problem.arrays.items()}
    if case.operation.endswith("_step"):
        return _optimizer_step(case, tensors, tuned)
    if case.operation == "copy":
        copied = torch.empty_like(tensors["source"])
        return partial(copied.copy_, tensors["source"]), lambda out: {"out": out}
    if case.operation == "gemm":
        a, b = tensors["a"], tensors["b"]
        product = a.new_empty((a.shape[0], b.shape[0])) if tuned else None
        return partial(torch.mm, a, b.T, out=product) if tuned else lambda: a @ b.T, lambda out: {"out": out}
    if case.operation == "softmax_cross_entropy":
        logits, labels = tensors["logits"].requires_grad_(), tensors["labels"].long()

        def loss_and_gradient() -> tuple[Tensor, Tensor]:
            loss = functional.cross_entropy(logits, labels)
            return loss, torch.autograd.grad(loss, logits)[0]

        return loss_and_gradient, lambda results: {"loss": results[0], "dlogits": results[1]}
    return _activation(case, tensors, tuned)


def _activation(case: Case, tensors: Tensors, tuned: bool) -> Operation:
    """Return the activation of s + bias, or of s after batch norm."""
    s, bias, gamma, beta = (tensors[name] for name in ("s", "bias", "gamma", "beta"))
    normalises, is_forward = case.operation == "batch_norm_activation", case.mode == "forward"
    inputs = {"ds": s, "dgamma": gamma, "dbeta": beta} if normalises else {"ds": s, "dbias": bias}
    if not is_forward:
        for tensor in inputs.values():
            tensor.requires_grad_()
    activate = find_activation(case.activation, in_place=tuned and is_forward)
    running: Tensors = {}
    out = torch.empty_like(s) if tuned and is_forward else None
    shift: Callable[[], Tensor] = partial(torch.add, s, bias, out=out)
    if normalises:
        running = {"running_mean": s.new_zeros(s.shape[1]), "running_variance": s.new_ones(s.shape[1])}
        shift = partial(
            functional.batch_norm,
            s,
            running["running_mean"],
            running["running_variance"],
            gamma,
            beta,
            training=True,
            momentum=BATCH_NORM_MOMENTUM,
            eps=BATCH_NORM_EPSILON,
        )

    def forward() -> Tensor:
        return activate(shift())

    if is_forward:
        return torch.no_grad()(forward), lambda result: {"out": result, **running}
    y = forward()
    return (
        lambda: torch.autograd.grad(y, list(inputs.values()), tensors["dy"], retain_graph=True),
        lambda gradients: dict(zip(inputs, gradients, strict=True)),
    )


def _optimizer_step(case: Case, tensors: Tensors, tuned: bool) -> Operation:
    parameter = nn.Parameter(tensors.pop("parameters"))
    parameter.grad = tensors.pop("gradients")
    moments = tensors
    optimizer = new_optimizer(case, [parameter], fused=True if tuned else None)
    if case.optimizer == "adam":
        step = torch.zeros((), device=parameter.device if tuned else "cpu")
        first, second = moments["first_moment"], moments["second_moment"]
        optimizer.state[parameter] = {"step": step, "exp_avg": first, "exp_avg_sq": second}
    else:
        optimizer.state[parameter] = {"momentum_buffer": moments["velocity"]}
    return optimizer.step, lambda _: {"parameters": parameter, **moments}


def find_activation(name: str, in_place: bool = False) -> Callable[[Tensor], Tensor]:
    """Return the function of an activation."""
    activation = get_activation(name)
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "identity": lambda x: x,
        "sigmoid": torch.sigmoid_ if in_place else torch.sigmoid,
        "tanh": torch.tanh_ if in_place else torch.tanh,
        "relu": torch.relu_ if in_place else torch.relu,
        "leaky_relu": lambda x: functional.leaky_relu(x, activation.parameter, inplace=in_place),
        "elu": lambda x: functional.elu(x, activation.parameter, inplace=in_place),
    }
    return functions[activation.name]


class _Activation(nn.Module):
    """An activation as a module, in the place of ``nn.ReLU`` and its like."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.forward = find_activation(name)
