"""Model files and checkpoints that are damaged, foreign, or written to harm: refused, in time, with one error."""

from __future__ import annotations

import json
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

import gpunet
from gpunet.serialization import open_tensors, read_tensors, write_tensors
from tests.helpers.files import JSON, MUTANTS, places, replaced, rewrite
from tests.helpers.mutation import mutants
from tests.helpers.networks import learnable, small_network

SUFFIXES = (".npz", ".safetensors")
either = pytest.mark.parametrize("suffix", SUFFIXES)


PIECES = (b'"', b"{", b"]", b"1e999", b"9" * 400, b"F16", b"<f8", b"PK\1\2", b"\x93NUMPY")


def model(folder, suffix=".npz"):
    network = small_network(dropout=0.2)
    gpunet.fit(network, *learnable(40), epochs=1)
    network.metadata = {"names": ["a", "b"], "scale": 1.5}
    return network.save(folder / f"model{suffix}")


def checkpoint_run(path, **arguments):
    X, y = learnable(40)
    network = small_network()
    rule = gpunet.EarlyStopping(9)
    history = gpunet.fit(
        network, X, y, batch_size=16, validation=(X, y), early_stopping=rule, checkpoint=path, **arguments
    )
    return network, history


def checkpoint(folder, suffix=".npz"):
    path = folder / f"run{suffix}"
    checkpoint_run(path, epochs=2)
    return path


# --- the digest ------------------------------------------------------------------------------------------------------


@either
@pytest.mark.parametrize("write", [model, checkpoint])
def test_every_file_has_a_digest_and_the_version(tmp_path, suffix, write):
    with open_tensors(write(tmp_path, suffix)) as stored:
        assert stored.version == gpunet.__version__
        assert stored.digest.startswith("sha256:")
        assert stored.header.keys().isdisjoint({"gpunet", "digest"})


@either
def test_a_changed_weight_or_header_is_noticed(tmp_path, suffix):
    path = model(tmp_path, suffix)
    tensors, header = read_tensors(path)
    with open_tensors(path) as stored:
        whole = {**header, "gpunet": stored.version, "digest": stored.digest}
    assert gpunet.load(rewrite(path, whole)).metadata == {"names": ["a", "b"], "scale": 1.5}
    changed = {**tensors, "b2": tensors["b2"] + np.float32(1e-6)}
    for header, values in ((whole, changed), ({**whole, "steps": 7}, tensors), ({**whole, "digest": 3}, tensors)):
        with pytest.raises(gpunet.FileFormatError, match="damaged"):
            gpunet.load(rewrite(path, header, values))
        rewrite(path, whole, tensors)


@either
@pytest.mark.parametrize("name", ["digesu", None])
def test_a_digest_whose_name_was_hit_is_missed(tmp_path, suffix, name):
    path = model(tmp_path, suffix)
    tensors, header = read_tensors(path)
    with open_tensors(path) as stored:
        damaged = {**header, "gpunet": stored.version} | ({} if name is None else {name: stored.digest})
    rewrite(path, damaged, tensors)
    for read in (gpunet.load, read_tensors):
        with pytest.raises(gpunet.FileFormatError, match=r"damaged header: a version, but no digest"):
            read(path)


@either
def test_a_file_without_a_digest_is_read(tmp_path, suffix):
    path = model(tmp_path, suffix)
    before = gpunet.load(path)
    _, header = read_tensors(path)
    after = gpunet.load(rewrite(path, header))
    np.testing.assert_array_equal(after.flat_parameters, before.flat_parameters)
    assert after.metadata == before.metadata
    path = checkpoint(tmp_path, suffix)
    _, header = read_tensors(path)
    del header["metadata"]  # which the first checkpoints lack too
    assert len(checkpoint_run(rewrite(path, header), epochs=3, resume=True)[1]) == 3


def test_what_is_written_is_what_is_read(tmp_path):
    header = {"tuple": (1, 2), "numbers": {10: 1, 9: 2}, "text": "ä\ud800\n", "float": 0.1, "none": None}
    tensors = {"a": np.arange(6.0).reshape(2, 3).T, "b": np.float32([np.nan, -0.0]), "empty": np.empty((0, 2))}
    for suffix in SUFFIXES:
        found, content = read_tensors(write_tensors(tmp_path / f"file{suffix}", tensors, header))
        assert content == json.loads(json.dumps(header))
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(found[name], tensor)
            assert found[name].dtype == tensor.dtype


# --- cost ------------------------------------------------------------------------------------------------------------


def peak_bytes_of_refusal(path):
    tracemalloc.start()
    try:
        with pytest.raises(gpunet.FileFormatError) as caught:
            gpunet.load(path, device="cpu")
        assert len(str(caught.value)) < 1000
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@either
@pytest.mark.parametrize(
    "sizes", [[6, 30_000, 3], [6, 10**9, 3], [6, 10**400, 3], [10**6, 10**6], [6, *[1] * 500, 3], "6", 6, None, {}]
)
def test_sizes_are_compared_before_anything_is_allocated(tmp_path, suffix, sizes):
    path = model(tmp_path, suffix)
    _, header = read_tensors(path)
    rewrite(path, header | {"network": header["network"] | {"layer_sizes": sizes, "activation": "relu"}})
    assert peak_bytes_of_refusal(path) < 2**20


def test_a_compressed_file_of_much_more_than_it_should_be(tmp_path):
    path = model(tmp_path)
    tensors, header = read_tensors(path)
    np.savez_compressed(path, **tensors, W3=np.zeros((2000, 2000)), gpunet=np.array(json.dumps(header)))
    assert path.stat().st_size < 100_000
    assert peak_bytes_of_refusal(path) < 2**21


def test_a_tensor_that_nobody_asked_for_is_not_read(tmp_path):
    path = model(tmp_path)
    tensors, header = read_tensors(path)
    rewrite(path, header, {**tensors, "W3": np.zeros(10**6)})
    assert peak_bytes_of_refusal(path) < 2**20
    path = checkpoint(tmp_path)
    tensors, header = read_tensors(path)
    rewrite(path, header, {**tensors, "W3": np.zeros(10**6)})
    with pytest.raises(gpunet.FileFormatError, match=r"checkpoint: .* no use for 'W3'"):
        checkpoint_run(path, epochs=3, resume=True)


def test_loading_draws_no_weights(tmp_path, monkeypatch):
    path = model(tmp_path)
    monkeypatch.setattr(gpunet.Network, "reset_parameters", lambda self: pytest.fail("weights were drawn"))
    loaded = gpunet.load(path)
    assert type(loaded) is gpunet.Network
    monkeypatch.undo()
    loaded.reset_parameters()
    np.testing.assert_array_equal(loaded.flat_parameters, small_network(dropout=0.2).flat_parameters)


# --- foreign and damaged files ---------------------------------------------------------------------------------------


def test_dtypes_that_are_no_float32_or_float64(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    path = model(tmp_path, ".safetensors")
    tensors, header = read_tensors(path)
    for dtype in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.float16, np.int32, np.bool_):
        rewrite(path, header, {**tensors, "b2": np.zeros(3, dtype)})
        with pytest.raises(gpunet.FileFormatError, match=r"'b2' as .* Expected float32 or float64"):
            gpunet.load(path)
        rewrite(path, header, tensors)
    path = model(tmp_path)
    for value in (np.zeros(3, "f4,f4"), np.zeros(3, "U4"), np.zeros(3, "M8[s]"), np.zeros(3, complex)):
        rewrite(path, header, {**tensors, "b2": value})
        with pytest.raises(gpunet.FileFormatError, match=r"'b2' as .* Expected float32 or float64"):
            gpunet.load(path)
        rewrite(path, header, tensors)
    rewrite(path, header, {**tensors, "b2": tensors["b2"].astype(">f8")})
    np.testing.assert_array_equal(gpunet.load(path).parameters["b2"], tensors["b2"])


@either
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[]", "3", "nul", '{"steps": 1' + "0" * 5000 + "}"])
def test_headers_that_are_no_description(tmp_path, suffix, text):
    path = model(tmp_path, suffix)
    with pytest.raises(gpunet.FileFormatError, match="header"):
        gpunet.load(rewrite(path, text))


@either
def test_a_header_as_deep_as_can_be_read(tmp_path, suffix):
    path = model(tmp_path, suffix)
    tensors, header = read_tensors(path)
    text = json.dumps(header | {"metadata": "HERE", "digest": "sha256:0"})
    for depth in (100, *range(700, 1000, 7)):
        rewrite(path, text.replace('"HERE"', '{"a":' * depth + "{}" + "}" * depth), tensors)
        assert not only_documented(model, path)


NUMBERS = [10**400, -1, 1e400, float("nan"), "1", None, [], {}, True, 2**63]


@pytest.mark.parametrize("key", ["batch_norm_epsilon", "batch_norm_momentum", "initial_bias", "dropout", "seed"])
def test_numbers_that_are_none(tmp_path, key):
    path = model(tmp_path)
    _, header = read_tensors(path)
    for value in NUMBERS:
        rewrite(path, header | {"network": header["network"] | {key: value}})
        only_documented(model, path)
        rewrite(path, header)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    return {(write, suffix): write(folder, suffix) for write in (model, checkpoint) for suffix in SUFFIXES}


def resume(path):
    checkpoint_run(path, epochs=2, resume=True)


@pytest.mark.parametrize("write", [model, checkpoint])
def test_any_value_anywhere_in_a_header(originals, tmp_path, write):
    tensors, header = read_tensors(originals[write, ".npz"])
    path = tmp_path / "file.npz"

    @settings(max_examples=4 * MUTANTS, deadline=None, database=None)
    @given(st.data())
    def check(data):
        place = data.draw(st.sampled_from(sorted(places(header), key=repr)))
        np.savez(path, **tensors, gpunet=np.array(json.dumps(replaced(header, place, data.draw(JSON)))))
        only_documented(write, path)

    check()


def only_documented(write, path):
    """Read a file and let only the errors pass that the reader promises; say whether it was read."""
    # Of a checkpoint, the second means: of another run.
    documented = gpunet.FileFormatError if write is model else (gpunet.FileFormatError, gpunet.InvalidValueError)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            gpunet.load(path, device="cpu") if write is model else resume(path)
        except documented:
            return False
        except gpunet.InvalidValueError as error:  # a text that could be the name of an activation of the user's own
            if not str(error).startswith("activations: the network in"):
                raise
            return False
    return True


@either
@pytest.mark.parametrize("write", [model, checkpoint])
def test_mutants_are_refused_or_hold_what_was_written(originals, tmp_path, suffix, write):
    original = originals[write, suffix]
    tensors, header = read_tensors(original)
    path = tmp_path / f"mutant{suffix}"
    read = 0
    for mutant in mutants(original.read_bytes(), MUTANTS, 0, PIECES):
        path.write_bytes(mutant)
        if only_documented(write, path):
            read += 1
            found, content = read_tensors(path)
            assert content == header
            for name, tensor in tensors.items():
                np.testing.assert_array_equal(found[name], tensor)
    assert read < MUTANTS


def test_a_name_that_takes_long_to_read(tmp_path):
    path = model(tmp_path)
    _, header = read_tensors(path)
    rewrite(path, header | {"network": header["network"] | {"output_activation": "relu(" + " " * 5000}})
    with pytest.raises(gpunet.FileFormatError, match="output_activation"):
        gpunet.load(path)


def test_an_encrypted_member(tmp_path):
    path = model(tmp_path)
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(whole)
    assert zipfile.is_zipfile(path)
    with pytest.raises(gpunet.FileFormatError, match="encrypted"):
        gpunet.load(path)


def test_safetensors_of_others(tmp_path):
    path = tmp_path / "other.safetensors"
    for metadata in (None, {"format": "pt"}, {"gpunet": "hello"}):
        safetensors.numpy.save_file({"a": np.zeros(3)}, path, metadata)
        with pytest.raises(gpunet.FileFormatError, match="header"):
            gpunet.load(path)
