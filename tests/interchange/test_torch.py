"""Networks as PyTorch modules, and back."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunet
from gpunet.activations import ACTIVATIONS
from tests.helpers.whole_models import CASES

pytestmark = pytest.mark.oracle
torch = pytest.importorskip("torch", reason="run by `make test-oracle`, which installs it")
nn = torch.nn

X = np.random.default_rng(0).standard_normal((9, 6)) * 3


def trained(**arguments: Any) -> gpunet.Network:
    """A network whose running averages and biases are no longer what they were at first."""
    arguments = {"dtype": "float64", "device": "cpu", "loss": "squared_error", **arguments}
    network = gpunet.Network([6, 5, 7, 3], **arguments)
    Y = np.random.default_rng(1).standard_normal((9, 3))
    gpunet.fit(network, X, Y, epochs=3, batch_size=4, optimizer=gpunet.SGD(0.01))
    return network


@pytest.mark.parametrize("batch_norm", [False, True, [True, False]], ids=str)
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_every_activation_there_and_back(activation: str, batch_norm: Any) -> None:
    if ACTIVATIONS[activation].takes_number:
        activation += "(0.3)"
    network = trained(activation=activation, batch_norm=batch_norm, dropout=[0.0, 0.25])
    module = gpunet.to_torch(network)
    expected = network.predict(X)
    np.testing.assert_allclose(module(torch.tensor(X)).detach().numpy(), expected, rtol=1e-11, atol=1e-11)
    back = gpunet.from_torch(module, loss="squared_error", device="cpu")
    assert back.configuration == network.configuration | {"initializer": back.configuration["initializer"]}
    assert np.array_equal(back.predict(X), expected)


@pytest.mark.parametrize(
    "arguments",
    [
        {"scale_shift": False},
        {"bias_before_batch_norm": True},
        {"batch_norm_momentum": 0.3, "batch_norm_epsilon": 1e-3},
        {"output_activation": "tanh"},
        {"dtype": "float32"},
    ],
    ids=str,
)
def test_every_argument_there_and_back(arguments: dict[str, Any]) -> None:
    network = trained(**arguments)
    back = gpunet.from_torch(gpunet.to_torch(network), loss="squared_error", device="cpu")
    assert back.configuration == network.configuration
    assert np.array_equal(back.predict(X), network.predict(X))


def test_the_state_has_the_names_of_the_layers_and_training_goes_on_alike() -> None:
    network = trained(loss="squared_error")
    module = gpunet.to_torch(network)
    state = module.state_dict()
    np.testing.assert_array_equal(state["linear3.bias"].numpy(), network.get_parameters()["b3"])
    np.testing.assert_array_equal(state["batch_norm2.running_var"].numpy(), network.get_state()["running_variance2"])
    assert int(state["batch_norm1.num_batches_tracked"]) == network.steps
    module.train()
    loss = ((module(torch.tensor(X)) - 1) ** 2).sum() / (2 * len(X))
    loss.backward()
    _, gradients = network.loss_and_gradients(X, np.ones((9, 3)))
    for name, entry in (("W1", "linear1.weight"), ("gamma2", "batch_norm2.weight"), ("b3", "linear3.bias")):
        found = dict(module.named_parameters())[entry].grad.numpy()
        np.testing.assert_allclose(found, gradients[name], rtol=1e-9, atol=1e-11)


def test_a_module_of_the_users_own() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Sequential(nn.Linear(6, 4, bias=False), nn.LeakyReLU()), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)
    ).eval()
    network = gpunet.from_torch(module, device="cpu")
    assert [str(activation) for activation in network.activations] == ["leaky_relu(0.01)", "identity"]
    expected = module(torch.tensor(X, dtype=torch.float32)).detach().numpy()
    np.testing.assert_allclose(network.logits(X), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.ReLU()), "starts with Linear"),
        (nn.Sequential(), "no Linear"),
        (nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.BatchNorm1d(3), nn.Linear(3, 2)), "2 is BatchNorm1d"),
        (nn.Sequential(nn.Linear(2, 3), nn.Softmax(dim=1)), "Softmax is a part of the loss"),
        (nn.Sequential(nn.Linear(2, 3), nn.Softplus(beta=2)), "beta=2"),
        (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), "after the last Linear"),
        (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3, momentum=None), nn.Linear(3, 2)), "momentum"),
        (nn.LSTM(2, 3), "it is LSTM"),
    ],
)
def test_what_a_network_has_not_is_refused_by_name(module: Any, message: str) -> None:
    with pytest.raises(gpunet.InvalidValueError, match=message):
        gpunet.from_torch(module)


def test_what_pytorch_has_not_is_refused() -> None:
    own = gpunet.Activation("cube", forward=lambda s: s**3, derivative=lambda s: 3 * s**2, derivative_of="input")
    with pytest.raises(gpunet.InvalidValueError, match="cube"):
        gpunet.to_torch(gpunet.Network([2, 3, 2], activation=own, device="cpu"))
    with pytest.raises(gpunet.InvalidTypeError, match="Expected a torch"):
        gpunet.from_torch("model.pt")


def as_answers(model: Any, outputs: Any) -> Any:
    """Return probabilities, or numbers, of a module's outputs."""
    network = model if isinstance(model, gpunet.Network) else model.network_
    outputs = torch.as_tensor(outputs)
    if network.loss == "squared_error":
        return outputs.numpy()
    return (torch.softmax(outputs, 1) if network.is_classifier else torch.sigmoid(outputs)).numpy()


@pytest.mark.parametrize("case", CASES)
def test_a_model_of_raw_rows_keeps_its_scaling(case: str) -> None:
    model, X, answers, probabilities = CASES[case](batch_norm=True)
    module = gpunet.to_torch(model)
    assert next(iter(module.state_dict())) == ("imputation1.fill" if case == "missing values" else "scaling1.offset")
    content = io.BytesIO()
    torch.save(module, content)
    content.seek(0)
    for one in (module, torch.load(content, weights_only=False)):
        with torch.no_grad():
            found = as_answers(model, one(torch.tensor(X)))
        expected = answers.reshape(len(X), -1) if probabilities is None else probabilities
        tolerance = 1e-6 * np.ptp(answers) if probabilities is None else 1e-6
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=tolerance)
    assert next(iter(gpunet.to_torch(model, bare=True).state_dict())) == "linear1.weight"


def test_a_program_runs_in_pytorch_without_gpunet(tmp_path: Path) -> None:
    model, X, _, probabilities = CASES["trained classifier"]()
    gpunet.export_torch(model, tmp_path / "new" / "model.pt2")
    np.save(tmp_path / "X.npy", X)
    code = (
        "import sys, numpy, torch\n"
        "module = torch.export.load('new/model.pt2').module()\n"
        "X = torch.tensor(numpy.load('X.npy'))\n"
        "numpy.save('found.npy', torch.cat([module(X[:1]), module(X[1:])]).softmax(1).detach().numpy())\n"
        "assert 'gpunet' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), probabilities, rtol=0, atol=1e-6)
    with pytest.raises(gpunet.InvalidValueError, match=r"Expected \.pt2"):
        gpunet.export_torch(model, tmp_path / "model.pt")
