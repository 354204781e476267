"""PyTorch as an independent oracle, in float64: forward, all gradients, trajectories, running averages."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet
from gpunet.activations import get_activation
from gpunet.backends import NumpyBackend
from gpunet.batches import batch_slices
from tests.helpers.networks import ACTIVATIONS as OURS
from tests.helpers.networks import random_problem, sizes

pytestmark = pytest.mark.oracle
torch = pytest.importorskip("torch", reason="run by `make test-oracle`, which installs it")

TOLERANCE = 1e-9
STEPS = 200


class HardSigmoid(torch.nn.Module):
    """PyTorch's own has a derivative of 1/6 in float32, whatever the dtype."""

    def forward(self, s: torch.Tensor) -> torch.Tensor:
        return torch.clamp(s + 3, 0, 6) / 6


ACTIVATIONS = {
    "identity": lambda: torch.nn.Identity(),
    "sigmoid": lambda: torch.nn.Sigmoid(),
    "tanh": lambda: torch.nn.Tanh(),
    "relu": lambda: torch.nn.ReLU(),
    "leaky_relu(0.1)": lambda: torch.nn.LeakyReLU(0.1),
    "elu(0.7)": lambda: torch.nn.ELU(0.7),
    "selu": lambda: torch.nn.SELU(),
    "softplus": lambda: torch.nn.Softplus(),
    "gelu": lambda: torch.nn.GELU(),
    "gelu_tanh": lambda: torch.nn.GELU(approximate="tanh"),
    "silu": lambda: torch.nn.SiLU(),
    "mish": lambda: torch.nn.Mish(),
    "hard_sigmoid": lambda: HardSigmoid(),
    "hard_tanh": lambda: torch.nn.Hardtanh(),
    "hard_swish": lambda: torch.nn.Hardswish(),
}


def test_every_activation_has_its_oracle():
    assert set(ACTIVATIONS) == set(OURS)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_activations_far_out(activation, dtype):
    """PyTorch's softplus is linear from 20 on, and its GELU cancels far below 0: there the absolute error counts."""
    s = np.linspace(-30, 30, 1201, dtype=dtype)
    tensor = torch.from_numpy(s.copy()).requires_grad_()
    values = ACTIVATIONS[activation]()(tensor)
    values.sum().backward()
    ours, eps = get_activation(activation), np.finfo(dtype).eps
    corners = np.isin(s, (-3, -1, 0, 1, 3))  # either side's derivative will do
    np.testing.assert_allclose(ours.forward(s), values.detach().numpy(), rtol=16 * eps, atol=max(32 * eps, 3e-9))
    expected = tensor.grad.numpy()[~corners]
    np.testing.assert_allclose(ours.derivative_at(s)[~corners], expected, rtol=16 * eps, atol=max(32 * eps, 3e-9))


class Twin(torch.nn.Module):
    """The same network in PyTorch, with the same initial parameters."""

    def __init__(self, network: gpunet.Network, activation: str) -> None:
        super().__init__()
        self.names: dict[str, torch.Tensor] = {}
        self.norms: list[torch.nn.BatchNorm1d] = []
        modules: list[torch.nn.Module] = []
        last = len(network.layer_sizes) - 1
        values = network.get_parameters()
        for index in range(1, last + 1):
            inputs, outputs = network.layer_sizes[index - 1 : index + 1]
            normalised = index < last and network.batch_norm[index - 1]
            linear = torch.nn.Linear(inputs, outputs, bias=not normalised, dtype=torch.float64)
            modules.append(linear)
            self.names[f"W{index}"] = linear.weight
            if not normalised:
                self.names[f"b{index}"] = linear.bias
            if normalised:
                norm = torch.nn.BatchNorm1d(outputs, affine=network.scale_shift, dtype=torch.float64)
                modules.append(norm)
                self.norms.append(norm)
                if network.scale_shift:
                    self.names[f"gamma{index}"], self.names[f"beta{index}"] = norm.weight, norm.bias
            if index < last:
                modules.append(ACTIVATIONS[activation]())
        self.body = torch.nn.Sequential(*modules)
        with torch.no_grad():
            for name, tensor in self.names.items():
                tensor.copy_(torch.from_numpy(values[name]))

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self.body(X)

    @property
    def weights(self) -> list[torch.Tensor]:
        return [tensor for name, tensor in self.names.items() if name.startswith("W")]

    @property
    def others(self) -> list[torch.Tensor]:
        return [tensor for name, tensor in self.names.items() if not name.startswith("W")]


def assert_same_parameters(network: gpunet.Network, twin: Twin) -> None:
    for name, value in network.get_parameters().items():
        np.testing.assert_allclose(value, twin.names[name].detach().numpy(), rtol=0, atol=TOLERANCE, err_msg=name)
    for index, norm in enumerate(twin.norms, start=1):
        state = network.get_state()
        np.testing.assert_allclose(state[f"running_mean{index}"], norm.running_mean.numpy(), rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(state[f"running_variance{index}"], norm.running_var.numpy(), rtol=0, atol=TOLERANCE)


def make_network(activation: str, layers: int, batch_norm: bool, scale_shift: bool = True) -> gpunet.Network:
    return gpunet.Network(
        sizes(layers, inputs=6),
        activation=activation,
        batch_norm=batch_norm,
        scale_shift=scale_shift,
        dtype="float64",
        device="cpu",
        seed=layers,
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize(("batch_norm", "scale_shift"), [(False, True), (True, True), (True, False)])
def test_forward_and_gradients(activation, layers, batch_norm, scale_shift):
    network = make_network(activation, layers, batch_norm, scale_shift)
    twin = Twin(network, activation)
    X, y = random_problem(33, 6, 3)
    weights = np.linspace(0.1, 2, 33)
    tensor = torch.from_numpy(X.copy()).requires_grad_()

    losses = torch.nn.functional.cross_entropy(twin(tensor), torch.from_numpy(y), reduction="none")
    w = torch.from_numpy(weights)
    penalty = sum((weight**2).sum() for weight in twin.weights)
    expected = (losses * w).sum() / w.sum() + 0.05 * penalty
    expected.backward()

    cost, gradients = network.loss_and_gradients(X, y, l2=0.05, sample_weight=weights, input_gradient=True)
    assert cost == pytest.approx(expected.item(), abs=TOLERANCE)
    for name, parameter in twin.names.items():
        np.testing.assert_allclose(gradients[name], parameter.grad.numpy(), rtol=0, atol=TOLERANCE, err_msg=name)
    np.testing.assert_allclose(gradients["X"], tensor.grad.numpy(), rtol=0, atol=TOLERANCE)


OPTIMIZERS = {
    "sgd": (lambda: gpunet.SGD(0.05), lambda groups: torch.optim.SGD(groups, lr=0.05)),
    "sgd_momentum": (
        lambda: gpunet.SGD(0.05, momentum=0.9),
        lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9),
    ),
    "sgd_nesterov": (
        lambda: gpunet.SGD(0.05, momentum=0.9, nesterov=True),
        lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True),
    ),
    "adam": (lambda: gpunet.Adam(1e-3), lambda groups: torch.optim.Adam(groups, lr=1e-3)),
    "adamw": (
        lambda: gpunet.AdamW(1e-3, weight_decay=0.1),
        lambda groups: torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.1),
    ),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_trajectory(optimizer, batch_norm, clip_norm):
    """200 steps of both, on the same batches: parameters and running averages stay equal."""
    make_ours, make_theirs = OPTIMIZERS[optimizer]
    network = make_network("tanh", 3, batch_norm)
    twin = Twin(network, "tanh")
    X, _ = random_problem(103, 6, 3)
    y = (X @ np.random.default_rng(1).standard_normal((6, 3))).argmax(axis=1)  # learnable: no chaos to amplify rounding
    l2 = 0.0 if optimizer == "adamw" else 1e-3
    batches = batch_slices(len(X), 21, network.minimum_batch)
    epochs = STEPS // len(batches)
    assert epochs * len(batches) == STEPS

    gpunet.fit(
        network, X, y, epochs=epochs, batch_size=21, optimizer=make_ours(), l2=l2, clip_norm=clip_norm, shuffle=False
    )

    theirs = make_theirs([{"params": twin.weights}, {"params": twin.others, "weight_decay": 0.0}])
    tensors = torch.from_numpy(X), torch.from_numpy(y)
    for _ in range(epochs):
        for rows in batches:
            theirs.zero_grad()
            loss = torch.nn.functional.cross_entropy(twin(tensors[0][rows]), tensors[1][rows])
            (loss + l2 * sum((weight**2).sum() for weight in twin.weights)).backward()
            if clip_norm is not None:
                # PyTorch adds 1e-6 to the norm that it divides by; undo that, to compare at 1e-9.
                norm = torch.sqrt(sum((p.grad**2).sum() for p in twin.parameters()))
                factor = min(1.0, clip_norm / norm.item())
                for parameter in twin.parameters():
                    parameter.grad *= factor
            theirs.step()
    assert_same_parameters(network, twin)

    twin.eval()
    with torch.no_grad():
        expected = twin(tensors[0]).numpy()
    np.testing.assert_allclose(network.logits(X), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_sigmoid_cross_entropy(weighted, scale):
    """PyTorch's sum over the outputs, its weighted mean over the rows; logits up to some 10^4."""
    network = gpunet.Network([5, 8, 4], activation="elu", loss="sigmoid_cross_entropy", dtype="float64", device="cpu")
    network.set_parameters({name: scale * network.get_parameters()[name] for name in ("W2", "b2")})
    generator = np.random.default_rng(0)
    X, targets = generator.standard_normal((17, 5)), generator.uniform(-1, 2, (17, 4)).clip(0, 1)
    weights = generator.uniform(0, 2, 17) if weighted else None
    twin = Twin(network, "elu(0.7)")
    twin.body[2] = torch.nn.ELU(1.0)
    outputs = twin(torch.from_numpy(X))
    assert (outputs.abs().max() > 1e4) == (scale > 1)
    rows = torch.nn.functional.binary_cross_entropy_with_logits(
        outputs, torch.from_numpy(targets), reduction="none"
    ).sum(dim=1)
    w = torch.ones(17, dtype=torch.float64) if weights is None else torch.from_numpy(weights)
    loss = (w * rows).sum() / w.sum()
    loss.backward()
    cost, gradients = network.loss_and_gradients(X, targets, sample_weight=weights)
    assert cost == pytest.approx(loss.item(), rel=TOLERANCE)
    for name, parameter in twin.names.items():
        np.testing.assert_allclose(
            gradients[name], parameter.grad.numpy(), rtol=TOLERANCE, atol=TOLERANCE * scale, err_msg=name
        )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sigmoid_cross_entropy_far_out(dtype):
    generator = np.random.default_rng(0)
    outputs, targets = generator.uniform(-1e4, 1e4, (50, 3)), generator.uniform(-1, 2, (50, 3)).clip(0, 1)
    outputs[::2] /= 1000
    outputs, targets = outputs.astype(dtype), targets.astype(dtype)
    gradient, value = np.empty_like(outputs), np.empty(2, dtype)
    NumpyBackend().sigmoid_cross_entropy(outputs, targets, None, gradient, value)
    theirs = torch.from_numpy(outputs).requires_grad_()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(theirs, torch.from_numpy(targets), reduction="sum") / 50
    loss.backward()
    bound = 8 * float(np.finfo(dtype).eps)
    assert value[0] == pytest.approx(loss.item(), rel=bound)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=0, atol=bound / 50)


def of_rows(name, outputs, targets):
    """Return PyTorch's loss of every row, summed over its outputs."""
    if name == "huber":
        return torch.nn.functional.huber_loss(outputs, targets, delta=0.4, reduction="none").sum(dim=1)
    u, levels = targets - outputs, torch.tensor([0.1, 0.5, 0.5, 0.9], dtype=outputs.dtype)
    return torch.maximum(levels * u, (levels - 1) * u).sum(dim=1)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", ["huber(0.4)", "quantile(0.1, 0.5, 0.5, 0.9)"])
def test_losses_of_numbers(loss, weighted):
    network = gpunet.Network([5, 8, 4], activation="elu(0.7)", loss=loss, dtype="float64", device="cpu")
    generator = np.random.default_rng(3)
    X, targets, weights = (generator.standard_normal(shape) for shape in ((40, 5), (40, 4), 40))
    weights = abs(weights)
    cost, gradients = network.loss_and_gradients(X, targets, sample_weight=weights if weighted else None)
    twin = Twin(network, "elu(0.7)").train()
    rows = of_rows(loss.split("(")[0], twin(torch.from_numpy(X)), torch.from_numpy(targets))
    w = torch.from_numpy(weights if weighted else np.ones(40))
    value = (rows * w).sum() / w.sum()
    value.backward()
    assert cost == pytest.approx(value.item(), rel=TOLERANCE)
    for name, tensor in twin.names.items():
        np.testing.assert_allclose(gradients[name], tensor.grad.numpy(), rtol=1e-8, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_smoothed_and_soft_labels_with_class_weights(smoothing, soft, weighted):
    generator = np.random.default_rng(0)
    outputs, labels = 3 * generator.standard_normal((40, 5)), generator.integers(0, 5, 40)
    class_weights = generator.uniform(0.3, 2, 5) if weighted else None
    targets = generator.dirichlet(np.ones(5), 40) if soft else labels
    theirs = torch.from_numpy(outputs.copy()).requires_grad_()
    expected = torch.nn.functional.cross_entropy(
        theirs,
        torch.from_numpy(targets),
        weight=None if class_weights is None else torch.from_numpy(class_weights),
        label_smoothing=smoothing,
    )
    expected.backward()
    weights = class_weights[labels] if weighted and not soft else None
    gradient, value = np.empty_like(outputs), np.empty(2)
    ours = targets if soft else targets.astype(np.int32)
    NumpyBackend().soft_cross_entropy(outputs, ours, weights, gradient, value, smoothing, class_weights)
    assert value[0] == pytest.approx(expected.item(), rel=TOLERANCE)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=TOLERANCE, atol=1e-15)


def test_squared_error_gradients():
    network = gpunet.Network([5, 8, 2], activation="elu", loss="squared_error", dtype="float64", device="cpu")
    generator = np.random.default_rng(0)
    X, targets = generator.standard_normal((17, 5)), generator.standard_normal((17, 2))
    twin = Twin(network, "elu(0.7)")
    twin.body[2] = torch.nn.ELU(1.0)
    loss = 0.5 * ((twin(torch.from_numpy(X)) - torch.from_numpy(targets)) ** 2).sum(dim=1).mean()
    loss.backward()
    cost, gradients = network.loss_and_gradients(X, targets)
    assert cost == pytest.approx(loss.item(), abs=TOLERANCE)
    for name, parameter in twin.names.items():
        np.testing.assert_allclose(gradients[name], parameter.grad.numpy(), rtol=0, atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: torch.ones(12, 6, requires_grad=True), "detach"),
        (lambda: torch.ones(12, 6, dtype=torch.bfloat16), "BFloat16"),
        (lambda: torch.ones(12, 6).to_sparse(), "parse"),
        (lambda: torch.ones(12, 6, dtype=torch.complex64), "complex"),
        (lambda: torch.ones(12, 6, device="meta"), "meta"),
    ],
)
def test_tensors_that_numpy_cannot_read_are_refused_by_name(make, reason):
    network = gpunet.Network([6, 3], device="cpu")
    y = np.arange(12) % 3
    for argument, call in {
        "X": lambda value: network.predict(value),
        "W1": lambda value: network.set_parameters({"W1": value}),
        "sample_weight": lambda value: gpunet.fit(network, np.ones((12, 6)), y, sample_weight=value),
        "y": lambda value: gpunet.evaluate(network, np.ones((12, 6)), value),
        "class_weight": lambda value: gpunet.fit(network, np.ones((12, 6)), y, class_weight=value),
    }.items():
        with pytest.raises(gpunet.InvalidTypeError, match=rf"^{argument}: .*{reason}"):
            call(make())


def test_tensors_that_numpy_can_read():
    network = gpunet.Network([6, 3], device="cpu")
    X = torch.arange(72.0).reshape(12, 6) / 72
    np.testing.assert_array_equal(network.logits(X), network.logits(X.numpy()))
    network.set_parameters({"W1": torch.ones(3, 6), "b1": torch.zeros(3, dtype=torch.float64)})
    assert (network.parameters["W1"] == 1).all()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_half_precision_is_that_of_autocast(precision, batch_norm):
    """PyTorch rounds at other places too, such as the outputs: loss and gradients are as near as rounding."""
    network = gpunet.Network(
        [13, 33, 20, 5], activation="tanh", batch_norm=batch_norm, precision=precision, device="cpu"
    )
    twin = Twin(network, "tanh").float()
    X, y = random_problem(200, 13, 5)
    with torch.autocast("cpu", getattr(torch, precision)):
        outputs = twin(torch.from_numpy(X).float())
    loss = torch.nn.functional.cross_entropy(outputs.float(), torch.from_numpy(y))
    scale = 2.0**16 if precision == "float16" else 1.0
    (scale * loss).backward()

    cost, gradients = network.loss_and_gradients(X, y)
    rounding = float(torch.finfo(getattr(torch, precision)).eps)
    assert cost == pytest.approx(loss.item(), rel=2 * rounding)
    for name, parameter in twin.names.items():
        expected = parameter.grad.numpy() / scale
        assert np.linalg.norm(gradients[name] - expected) < 4 * rounding * np.linalg.norm(expected), name


def test_the_loss_scale_is_that_of_grad_scaler():
    interval = 3
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=interval)
    parameter = torch.nn.Parameter(torch.zeros(2))
    theirs = torch.optim.SGD([parameter], lr=1.0)
    backend = NumpyBackend()
    scale, guard = np.array([2.0**16, 0, 0, 0], np.float32), np.zeros(2, np.float32)
    for value in [1.0, 1.0, 1.0, 1.0, np.inf, 1.0, 1.0, np.nan, np.nan, 1.0, 1.0, 1.0, 1.0]:
        before = parameter.detach().clone()
        parameter.grad = scaler.scale(torch.tensor([1.0, value]))
        gradients = np.array([scale[0], scale[0] * value], np.float32)
        scaler.step(theirs)
        backend.unscale_gradients(gradients, np.ones(2, np.float32), scale, guard, interval)
        assert np.isfinite(guard[0]) == (not torch.equal(parameter.detach(), before))
        scaler.update()
        assert scale[0] == scaler.get_scale()
