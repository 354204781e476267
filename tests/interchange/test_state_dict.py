"""Weights under other tools' names, in safetensors files and in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunet
from tests.helpers.networks import random_problem, randomise
from tests.helpers.whole_models import CASES

safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is in the extra 'cli'")


def other(**arguments: Any) -> gpunet.Network:
    """Return a network whose numbers are all its own."""
    network = gpunet.Network([5, 8, 6, 3], device="cpu", seed=1, **arguments)
    randomise(network)
    return network


def blank(**arguments: Any) -> gpunet.Network:
    return gpunet.Network([5, 8, 6, 3], device="cpu", **arguments)


def same_numbers(network: gpunet.Network, expected: gpunet.Network) -> bool:
    values = [one.get_parameters() | one.get_state() for one in (network, expected)]
    return all(np.array_equal(values[0][name], values[1][name]) for name in values[1])


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"batch_norm": False},
        {"batch_norm": [False, True]},
        {"scale_shift": False},
        {"bias_before_batch_norm": True},
        {"dtype": "float64"},
    ],
    ids=str,
)
def test_written_for_others_and_read_back(arguments: dict[str, Any], tmp_path: Path) -> None:
    network, found = other(**arguments), blank(**arguments)
    path = gpunet.export_safetensors(network, tmp_path / "new" / "weights.safetensors")
    tensors = safetensors.load_file(path)
    assert np.array_equal(tensors["linear2.weight"], network.get_parameters()["W2"])
    gpunet.load_state_dict(found, path)
    assert same_numbers(found, network)


def test_gpunets_own_files_are_read_by_other_tools_under_its_names(tmp_path: Path) -> None:
    network = other()
    tensors = safetensors.load_file(network.save(tmp_path / "model.safetensors"))
    assert tensors.keys() == network.shapes.keys()
    assert np.array_equal(tensors["running_variance2"], network.get_state()["running_variance2"])


def test_scaling_is_written_with_a_model_of_raw_rows(tmp_path: Path) -> None:
    model, X, _, _ = CASES["one target"](scale_inputs=True)
    tensors = safetensors.load_file(gpunet.export_safetensors(model, tmp_path / "weights.safetensors"))
    np.testing.assert_allclose(tensors["scaling1.offset"], X.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(tensors["scaling1.scale"], X.std(axis=0), rtol=1e-12)
    assert tensors["target_scaling.offset"].dtype == np.float64
    bare = safetensors.load_file(gpunet.export_safetensors(model, tmp_path / "weights.safetensors", bare=True))
    assert not any("scaling" in name for name in bare)


def renamed(network: gpunet.Network, names: dict[str, str]) -> dict[str, Any]:
    values = network.get_parameters() | network.get_state()
    return {theirs: values[ours] for theirs, ours in names.items()}


SEQUENTIAL = {
    "0.weight": "W1",
    "1.weight": "gamma1",
    "1.bias": "beta1",
    "1.running_mean": "running_mean1",
    "1.running_var": "running_variance1",
    "3.weight": "W2",
    "4.weight": "gamma2",
    "4.bias": "beta2",
    "4.running_mean": "running_mean2",
    "4.running_var": "running_variance2",
    "10.weight": "W3",
    "10.bias": "b3",
}
TRANSFORMER_STYLE = {
    "model.encoder.layer.0.dense.weight": "W1",
    "model.encoder.layer.0.dense.bias": "b1",
    "model.encoder.layer.1.dense.weight": "W2",
    "model.encoder.layer.1.dense.bias": "b2",
    "classifier.weight": "W3",
    "classifier.bias": "b3",
    "model.embeddings.weight": "W1",
}
LAYERS = ["model.encoder.layer.0.dense", "model.encoder.layer.1.dense", "classifier"]


@pytest.mark.parametrize("in_file", [False, True])
def test_the_names_of_a_sequential(in_file: bool, tmp_path: Path) -> None:
    """Of which a file has ``10`` before ``3``."""
    network, found = other(), blank()
    tensors: Any = renamed(network, SEQUENTIAL) | {"1.num_batches_tracked": np.array(3)}
    if in_file:
        safetensors.save_file(tensors, tmp_path / "theirs.safetensors")
    gpunet.load_state_dict(found, tmp_path / "theirs.safetensors" if in_file else tensors)
    assert same_numbers(found, network)


def test_modules_in_an_order_of_ones_own(tmp_path: Path) -> None:
    network, found = other(batch_norm=False), blank(batch_norm=False)
    safetensors.save_file(renamed(network, TRANSFORMER_STYLE), tmp_path / "theirs.safetensors")
    with pytest.raises(gpunet.InvalidValueError, match=r"has 4 linear layers \(classifier, model\.embeddings, "):
        gpunet.load_state_dict(found, tmp_path / "theirs.safetensors")
    gpunet.load_state_dict(found, tmp_path / "theirs.safetensors", layers=LAYERS)
    assert same_numbers(found, network)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bits(dtype: str, tmp_path: Path) -> None:
    network, found = other(batch_norm=False), blank(batch_norm=False)
    tensors = renamed(network, {name: name for name in network.shapes})
    bits = 11 if dtype == "float16" else 8
    header: dict[str, Any] = {}
    content = b""
    for name, values in tensors.items():
        half = values.astype(np.float16) if dtype == "float16" else (values.view(np.uint32) >> 16).astype(np.uint16)
        header[f"{name[1]}.{'weight' if name[0] == 'W' else 'bias'}"] = {
            "dtype": "F16" if dtype == "float16" else "BF16",
            "shape": half.shape,
            "data_offsets": [len(content), len(content) + half.nbytes],
        }
        content += half.tobytes()
    text = json.dumps(header).encode()
    path = tmp_path / "half.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)
    gpunet.load_state_dict(found, path)
    for name, values in found.get_parameters().items():
        np.testing.assert_allclose(values, tensors[name], rtol=2.0 ** (1 - bits), atol=2.0**-24)


def test_a_layer_without_bias_has_zeros() -> None:
    network = blank(batch_norm=False)
    network.set_parameters({"b1": np.ones(8)})
    W = {f"{place}.weight": np.ones(network.shapes[f"W{place}"]) for place in (1, 2, 3)}
    gpunet.load_state_dict(network, W)
    assert not network.get_parameters()["b1"].any()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"0.bias": np.zeros(8)}, gpunet.InvalidValueError, "'0.bias' is nothing .* bias_before_batch_norm=True"),
        ({"0.weight": np.zeros((8, 4))}, gpunet.ShapeError, r"'0.weight' has shape \(8, 4\).*\(8, 5\), that of W1"),
        ({"1.bias": None}, gpunet.InvalidValueError, "'1' lacks 'bias'"),
        ({"11.weight": np.zeros((3, 3))}, gpunet.InvalidValueError, "4 linear layers .* the network 3"),
        ({"4.running_mean": None, "4.running_var": None}, gpunet.InvalidValueError, "4 linear layers"),
        ({"0.weight": np.full((8, 5), np.nan)}, gpunet.NonFiniteError, "W1"),
        ({3: np.zeros(3)}, gpunet.InvalidTypeError, "has the name 3"),
    ],
)
def test_what_does_not_fit_changes_nothing(change: dict[Any, Any], error: type, message: str) -> None:
    network, before = blank(), blank()
    tensors: dict[Any, Any] = renamed(other(), SEQUENTIAL) | change
    with pytest.raises(error, match=message):
        gpunet.load_state_dict(network, {name: values for name, values in tensors.items() if values is not None})
    assert same_numbers(network, before)


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    network, path = blank(), tmp_path / "theirs.safetensors"
    with pytest.raises(gpunet.MissingFileError, match="source: there is no file"):
        gpunet.load_state_dict(network, path)
    path.write_bytes(b"\x08\0\0\0\0\0\0\0nonsense")
    with pytest.raises(gpunet.FileFormatError, match="cannot be read as safetensors"):
        gpunet.load_state_dict(network, path)
    safetensors.save_file({"0.weight": np.zeros((8, 5), np.int32)}, path)
    with pytest.raises(gpunet.FileFormatError, match=r"'0\.weight' as I32"):
        gpunet.load_state_dict(network, path)
    with pytest.raises(gpunet.InvalidValueError, match=r"Expected \.safetensors"):
        gpunet.export_safetensors(network, tmp_path / "weights.npz")
    with pytest.raises(gpunet.InvalidValueError, match="layers: 'head' is none of the modules: batch_norm1, "):
        gpunet.load_state_dict(network, gpunet.export_safetensors(network, path), layers=["head"])


@pytest.mark.oracle
@pytest.mark.parametrize("batch_norm", [False, True])
def test_pytorch_reads_and_writes_the_same_files(batch_norm: bool, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="run by `make test-oracle`, which installs it")
    from safetensors.torch import load_file, save_file

    network = other(batch_norm=batch_norm)
    X, _ = random_problem(7, 5, 3)
    module = gpunet.to_torch(blank(batch_norm=batch_norm))
    module.load_state_dict(load_file(gpunet.export_safetensors(network, tmp_path / "ours.safetensors")))
    with torch.no_grad():
        found = module(torch.tensor(X, dtype=torch.float32)).numpy()
    np.testing.assert_allclose(found, network.logits(X), rtol=1e-4, atol=1e-5)
    save_file(module.state_dict(), tmp_path / "theirs.safetensors")
    for source in (tmp_path / "theirs.safetensors", module.state_dict()):
        back = blank(batch_norm=batch_norm)
        gpunet.load_state_dict(back, source)
        assert same_numbers(back, network)
