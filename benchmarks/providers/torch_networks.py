"""Networks of a case in PyTorch: as usually written, and tuned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy.typing as npt
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.cases import Case
from benchmarks.problem import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, LEARNING_RATE, MOMENTUM, Problem
from benchmarks.providers.base import Outputs, as_host
from benchmarks.providers.common import as_logits, hidden_layers
from gpunet.activations import get_activation

Array = npt.NDArray[Any]
Tensor = torch.Tensor


class EagerNetwork:
    """As usually written: ``Linear`` with its bias, ``BatchNorm1d``, the activation; an optimiser with its defaults.

    Parameters
    ----------
    case : Case
    problem : Problem
        Its parameters are set; a bias before batch norm, which the problem does not have, starts at 0.
    device : str
        ``"cpu"`` or ``"cuda"``.
    """

    bias_before_batch_norm = True
    # Whether the first unit of work takes memory, to compile and choose kernels, that later ones do not.
    first_unit_compiles = False

    def __init__(self, case: Case, problem: Problem, device: str) -> None:
        self.case = case
        self.device = device
        self.named: dict[str, Tensor] = {}
        self.model = self._build(case, problem).to(device)
        self.model.train(case.mode != "forward")
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = self.new_optimizer()
        # What subclasses compile.
        self.logits: Callable[[Tensor], Tensor] = self.model
        self.loss: Callable[[Tensor, Tensor], Tensor] = self._loss
        self.update: Callable[[], Any] = self.optimizer.step

    def new_optimizer(self) -> torch.optim.Optimizer:
        """Return the case's optimiser."""
        if self.case.optimizer == "adam":
            return torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE)
        return torch.optim.SGD(self.model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)

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

    def recordable(self) -> Callable[[Tensor, Tensor], object] | None:
        """Return a unit of work that can be recorded, for counting its kernels; the network is not used after that."""
        from benchmarks.providers.torch_provider import allow_recording

        allow_recording(self.optimizer)
        work: Callable[[Tensor, Tensor], object] = getattr(self, self.case.mode)
        return work

    def epoch(self, X: Array, y: Array, shuffle: bool) -> float:
        """Return the mean loss of an epoch over host data, batches by ``DataLoader``, the loss read after each."""
        data = TensorDataset(torch.from_numpy(X), torch.from_numpy(y).long())
        total = 0.0
        for batch, labels in DataLoader(data, batch_size=self.case.rows, shuffle=shuffle):
            loss = self.step(batch.to(self.device), labels.to(self.device))
            total += loss.item() * len(labels)
        return total / len(data)

    def parameters(self) -> Outputs:
        """Return the parameters that the problem has."""
        return {name: as_host(tensor.detach().cpu().numpy()) for name, tensor in self.named.items()}

    def gradients(self) -> Outputs:
        """Return their gradients."""
        return {
            name: as_host(tensor.grad.cpu().numpy()) for name, tensor in self.named.items() if tensor.grad is not None
        }

    def outputs(self, result: Tensor) -> Outputs:
        """Return what is compared after a unit of work that returned ``result``."""
        if self.case.mode == "step":
            return self.parameters()
        values = result.detach().cpu().numpy()
        if self.case.mode == "forward":
            return {"logits": as_logits(values)}
        return {"loss": as_host(values).reshape(1), **self.gradients()}

    def _loss(self, X: Tensor, y: Tensor) -> Tensor:
        return self.criterion(self.logits(X), y)

    def _build(self, case: Case, problem: Problem) -> nn.Sequential:
        modules: list[nn.Module] = []
        for index in hidden_layers(case):
            modules.append(self._linear(case, problem, index))
            if case.batch_norm:
                modules.append(self._batch_norm(case, problem, index))
            modules.append(new_activation(case.activation))
        modules.append(self._linear(case, problem, len(case.sizes) - 1))
        return nn.Sequential(*modules)

    def _linear(self, case: Case, problem: Problem, index: int) -> nn.Linear:
        inputs, outputs = case.sizes[index - 1 : index + 1]
        has_bias = f"b{index}" in problem.parameters
        module = nn.Linear(
            inputs, outputs, bias=has_bias or self.bias_before_batch_norm, dtype=getattr(torch, case.dtype)
        )
        self._set(problem, f"W{index}", module.weight)
        if has_bias:
            self._set(problem, f"b{index}", module.bias)
        elif self.bias_before_batch_norm:
            nn.init.zeros_(module.bias)
        return module

    def _batch_norm(self, case: Case, problem: Problem, index: int) -> nn.BatchNorm1d:
        module = nn.BatchNorm1d(
            case.sizes[index], eps=BATCH_NORM_EPSILON, momentum=BATCH_NORM_MOMENTUM, dtype=getattr(torch, case.dtype)
        )
        self._set(problem, f"gamma{index}", module.weight)
        self._set(problem, f"beta{index}", module.bias)
        assert module.running_mean is not None
        assert module.running_var is not None
        module.running_mean.copy_(torch.from_numpy(problem.state[f"running_mean{index}"]))
        module.running_var.copy_(torch.from_numpy(problem.state[f"running_variance{index}"]))
        return module

    @torch.no_grad()
    def _set(self, problem: Problem, name: str, parameter: Tensor) -> None:
        parameter.copy_(torch.from_numpy(problem.parameters[name]))
        self.named[name] = parameter


class TunedNetwork(EagerNetwork):
    """Without the bias before batch norm, which does nothing there; the fused optimiser; inference mode.

    Gradients are set to None, not to 0 (the default since PyTorch 2.0). An epoch keeps its data on the device.
    """

    bias_before_batch_norm = False

    def new_optimizer(self) -> torch.optim.Optimizer:
        if self.case.optimizer == "adam":
            return torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE, fused=True)
        return torch.optim.SGD(self.model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, fused=True)

    def forward(self, X: Tensor, y: Tensor) -> Tensor:
        with torch.inference_mode():
            return self.logits(X)

    def epoch(self, X: Array, y: Array, shuffle: bool) -> float:
        """Return the mean loss of an epoch: the data go to the device once, the loss comes back once."""
        features, targets = torch.from_numpy(X).to(self.device), torch.from_numpy(y).long().to(self.device)
        rows = len(targets)
        order = torch.randperm(rows, device=self.device) if shuffle else torch.arange(rows, device=self.device)
        total = torch.zeros((), device=self.device)
        for index in order.split(self.case.rows):
            loss = self.step(features.index_select(0, index), targets.index_select(0, index))
            total += loss.detach() * len(index)
        return total.item() / rows


def new_activation(name: str) -> nn.Module:
    """Return the module of an activation."""
    activation = get_activation(name)
    modules: dict[str, Callable[[], nn.Module]] = {
        "identity": nn.Identity,
        "sigmoid": nn.Sigmoid,
        "tanh": nn.Tanh,
        "relu": nn.ReLU,
        "leaky_relu": lambda: nn.LeakyReLU(activation.parameter),
        "elu": lambda: nn.ELU(activation.parameter),
    }
    return modules[activation.name]()
