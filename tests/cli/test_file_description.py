"""``gpunet info FILE``: what a model or a checkpoint is, and whether it is whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gpunet
from gpunet.serialization import open_tensors, read_tensors
from tests.helpers.cli import refusal, shell, write_blobs
from tests.helpers.files import MUTANTS, rewrite
from tests.helpers.mutation import mutants
from tests.helpers.networks import small_network

Capture = pytest.CaptureFixture[str]
MODEL, CHECKPOINT = Path("runs/places/model.safetensors"), Path("runs/places/checkpoint.safetensors")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def train(capsys: Capture) -> None:
    write_blobs(Path("places.csv"))
    command = ("train", "places.csv", "--target", "place", "--layers", "8,5", "--epochs", "2", "--checkpoint")
    assert shell(capsys, *command).status == 0


def test_a_model_and_a_checkpoint(capsys: Capture) -> None:
    train(capsys)
    model, checkpoint = (shell(capsys, "info", path, "--json").json for path in (MODEL, CHECKPOINT))
    network = gpunet.load(MODEL)
    shared = {
        "gpunet": gpunet.__version__,
        "digest": "right",
        "layers": [3, 8, 5, 2],
        "parameters": network.parameter_count,
        "activation": ["relu", "relu"],
        "own_activations": [],
        "own_loss": False,
        "batch_norm": [True, True],
        "loss": "softmax_cross_entropy",
        "dtype": "float32",
        "precision": "float32",
        "steps": network.steps,
        "data": {
            "name": "places",
            "task": "classification",
            "target": "place",
            "features": ["width", "height", "depth"],
            "inputs": ["width", "height", "depth"],
            "class_names": ["north", "south, far"],
            "fingerprint": network.metadata["data"]["fingerprint"],
        },
    }
    assert model == shared | {"file": str(MODEL), "kind": "model", "bytes": MODEL.stat().st_size}
    rest = {"file": str(CHECKPOINT), "kind": "checkpoint", "bytes": CHECKPOINT.stat().st_size}
    assert checkpoint == shared | rest | {"epochs": 2, "optimizer": "adam"}
    output = shell(capsys, "info", CHECKPOINT).output
    assert "kind          checkpoint\n" in output
    assert "digest        right" in output
    assert "2 epochs done, with adam" in output
    assert "places, classification: 3 features, 2 classes" in output


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_digests(capsys: Capture, suffix: str) -> None:
    path = small_network(activation="tanh", batch_norm=False).save(f"model{suffix}")
    assert shell(capsys, "info", path, "--json").json["data"] is None
    tensors, header = read_tensors(path)
    with open_tensors(path) as stored:
        whole = {**header, "gpunet": stored.version, "digest": stored.digest}
    rewrite(path, whole, {**tensors, "b1": tensors["b1"] + 1})
    wrong = shell(capsys, "info", path)
    assert (wrong.status, wrong.errors) == (1, "")
    assert "digest        wrong" in wrong.output
    assert shell(capsys, "info", path, "--json").status == 1
    rewrite(path, header, tensors)
    none = shell(capsys, "info", path)
    assert none.status == 0
    assert "digest        none" in none.output
    assert "written by    unknown" in none.output


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_an_activation_of_the_users_own_is_named(capsys: Capture, suffix: str) -> None:
    def own(name: str) -> gpunet.Activation:
        return gpunet.Activation(name, forward=lambda s: 2 * s, derivative=lambda s: 2 * np.ones_like(s))

    activations = {"activation": ["tanh", own("twice")], "output_activation": own("other"), "loss": "squared_error"}
    network = gpunet.Network([2, 3, 4, 2], **activations, device="cpu")
    path = network.save(f"twice{suffix}")
    content = shell(capsys, "info", path, "--json").json
    assert (content["activation"], content["own_activations"]) == (["tanh", "twice"], ["twice", "other"])
    assert (content["parameters"], content["digest"]) == (network.parameter_count, "right")
    output = shell(capsys, "info", path).output
    assert "activations   tanh, twice\n" in output
    assert "own functions twice, other: gpunet.load(..., activations=[...]) has to be given them\n" in output
    X, y = np.random.default_rng(0).normal(size=(2, 20, 2))
    gpunet.fit(network, X, y, epochs=1, checkpoint=f"checkpoint{suffix}")
    content = shell(capsys, "info", f"checkpoint{suffix}", "--json").json
    assert (content["kind"], content["own_activations"]) == ("checkpoint", ["twice", "other"])


def test_text_in_a_file_cannot_move_the_cursor(capsys: Capture) -> None:
    train(capsys)
    tensors, header = read_tensors(MODEL)
    header["metadata"]["data"]["data_set"] = "a\x1b[2J\nb"
    rewrite(MODEL, header | {"gpunet": "\x1b[2J", "digest": "\x1b[2J"}, tensors)
    output = shell(capsys, "info", MODEL).output
    assert "\x1b" not in output
    assert r"a\x1b[2J\nb, classification" in output


def test_files_that_cannot_be_described(capsys: Capture) -> None:
    assert "FILE: there is no file 'none.npz'" in refusal(capsys, "info", "none.npz")
    np.savez("data.npz", X=np.zeros((3, 2)))
    assert "FILE: 'data.npz' was not written by gpunet" in refusal(capsys, "info", "data.npz")
    path = small_network().save("model.npz")
    _, header = read_tensors(path)
    for odd in ({"format": "x"}, {"network": 3}, {"steps": None, "network": {}}, {"metadata": {"data": 3}}):
        assert "model.npz" in refusal(capsys, "info", rewrite(path, header | odd))


def test_mutants(capsys: Capture) -> None:
    train(capsys)
    for path in (MODEL, CHECKPOINT):
        for mutant in mutants(path.read_bytes(), MUTANTS, 0):
            path.write_bytes(mutant)
            result = shell(capsys, "info", path)
            assert result.status in (0, 1, 2)
            assert (result.errors.count("\n"), result.output == "") in ((0, False), (1, True))
