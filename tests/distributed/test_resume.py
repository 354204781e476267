"""A checkpoint of N ranks goes on on M, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import gpunet
from gpunet.distributed import Ranks, one_rank
from gpunet.errors import InvalidValueError
from tests.helpers.threaded_ranks import run_ranks

RNG = np.random.default_rng(3)
X, Y = RNG.standard_normal((210, 6)), RNG.integers(0, 4, 210)
SHARDS = 12


def train(ranks: Ranks | None, path: Path, epochs: int, **more: Any) -> np.ndarray:
    made = gpunet.Network([6, 9, 4], device="cpu:numpy", seed=8, dropout=0.2)
    gpunet.fit(
        made,
        more.pop("X", X),
        Y,
        epochs=epochs,
        batch_size=40,
        optimizer=more.pop("optimizer", None) or gpunet.Adam(1e-2),
        validation=(X[:50], Y[:50]),
        early_stopping=gpunet.EarlyStopping(patience=9),
        checkpoint=path,
        resume=True,
        distributed=ranks,
        **more,
    )
    return np.concatenate([made.flat_parameters, made.flat_state])


def test_a_run_goes_on_on_any_number_of_ranks(tmp_path: Path) -> None:
    expected = train(one_rank(SHARDS), tmp_path / "whole.safetensors", 9)
    for epochs, size in ((2, 4), (3, 1), (6, 3), (7, 2), (9, 4)):
        found = run_ranks(
            size, SHARDS, lambda ranks, epochs=epochs: train(ranks, tmp_path / "parts.safetensors", epochs)
        )
    for one in found:
        np.testing.assert_array_equal(one, expected)


def test_the_weights_of_an_epoch_are_scaled_by_its_own(tmp_path: Path) -> None:
    """Where those of the epoch before would let half precision overflow, and a resumed run does not know them."""

    def go_on(path: Path, epochs: int) -> np.ndarray:
        made = gpunet.Network([6, 9, 4], device="cpu:numpy", precision="float16", seed=8)
        weights = np.linspace(0.5, 2, 210)
        gpunet.fit(
            made,
            batches=lambda epoch: [(X, Y, weights * 2.0 ** (40 * epoch - 80))] * 3,
            epochs=epochs,
            checkpoint=path,
            resume=True,
            distributed=one_rank(SHARDS),
        )
        return np.concatenate([made.flat_parameters, made.flat_state])

    expected = go_on(tmp_path / "whole.npz", 3)
    for epochs in (1, 2, 3):
        found = go_on(tmp_path / "parts.npz", epochs)
    np.testing.assert_array_equal(found, expected)


def test_another_number_of_shards_is_another_run(tmp_path: Path) -> None:
    train(one_rank(4), tmp_path / "run.safetensors", 1)
    with pytest.raises(InvalidValueError, match=r"is of a run with shards=4\. Expected 8"):
        train(one_rank(8), tmp_path / "run.safetensors", 2)
    with pytest.raises(InvalidValueError, match=r"is of a run with shards=4\. Expected None"):
        train(None, tmp_path / "run.safetensors", 2)


def test_only_rank_0_warns(tmp_path: Path) -> None:
    train(one_rank(SHARDS), tmp_path / "run.safetensors", 1)
    with pytest.warns(gpunet.ResumeWarning, match="its learning rate was") as caught:
        run_ranks(3, SHARDS, lambda ranks: train(ranks, tmp_path / "run.safetensors", 2, optimizer=gpunet.Adam(0.5)))
    assert len(caught) == 1


def test_only_rank_0_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    write = gpunet.training.loop.write_checkpoint
    monkeypatch.setattr(
        gpunet.training.loop, "write_checkpoint", lambda path, *others: (written.append(path), write(path, *others))
    )
    run_ranks(3, 3, lambda ranks: train(ranks, tmp_path / f"of-{ranks.rank}.safetensors", 2))
    assert written == [tmp_path / "of-0.safetensors"] * 2


def test_each_block_of_rows_is_digested_by_one_rank_and_plain_fit_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without shards, for any number of ranks and for none."""
    monkeypatch.setattr(gpunet.fingerprint, "_BYTES_AT_A_TIME", 400)  # 17 rows of X
    digested: list[int] = []
    digest = gpunet.fingerprint.fingerprint
    monkeypatch.setattr(
        gpunet.fingerprint,
        "fingerprint",
        lambda array, **others: (digested.append(array.size), digest(array, **others))[1],
    )
    path, numbers = tmp_path / "run.npz", (210 + 50) * (6 + 1)
    for epochs, size in enumerate((3, 1, 7, 2), start=1):
        digested.clear()
        run_ranks(size, None, lambda ranks, epochs=epochs: train(ranks, path, epochs))
        assert sum(digested) == numbers
    with threadpool_limits(1):
        train(None, path, epochs + 1)
    with pytest.raises(InvalidValueError, match="is of a run with another X"):
        train(None, path, epochs + 2, X=X[::-1])
