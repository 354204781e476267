"""One BLAS thread for products that are too small to be shared."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

import gpunet
import gpunet.cli.train as train_command
from gpunet.cli.threads import VARIABLES, largest_product, suitable_threads
from tests.helpers.cli import shell, write_blobs

Capture = pytest.CaptureFixture[str]
SMALL = gpunet.Network([64, 128, 128, 10], device="cpu")
LITTLE, MUCH = 1e9, 1e12


def threads() -> int:
    libraries = ThreadpoolController().select(user_api="blas").info()
    return max(library["num_threads"] for library in libraries)


@pytest.fixture(autouse=True)
def _two_threads(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with threadpool_limits(2, user_api="blas"):
        if threads() < 2:
            pytest.skip("this BLAS has one thread")
        yield


def test_small_products_get_one_thread_and_large_ones_all() -> None:
    assert largest_product(SMALL, 32) == 2 * 32 * 128 * 128
    with suitable_threads(SMALL, 32, LITTLE):
        assert threads() == 1
    assert threads() == 2
    with suitable_threads(SMALL, 256, LITTLE):
        assert threads() == 2


@pytest.mark.parametrize("name", VARIABLES)
def test_the_users_choice_stands(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "2")
    with suitable_threads(SMALL, 32, LITTLE):
        assert threads() == 2


def test_nothing_changes_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with suitable_threads(SMALL, 32, LITTLE):
        assert threads() == 2


def test_nothing_changes_where_compiled_kernels_do_the_work() -> None:
    with suitable_threads(SMALL, 32, MUCH):
        assert threads() == 2


def test_nothing_changes_for_a_network_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    network = gpunet.Network([4, 3], device="cpu")
    monkeypatch.setattr(network.backend, "name", "cuda")
    with suitable_threads(network, 32, LITTLE):
        assert threads() == 2


def test_commands_and_the_comparison_run_under_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    write_blobs(Path("places.csv"))
    seen: list[int] = []

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            seen.append(threads())
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(train_command, "fit", watched(train_command.fit))
    monkeypatch.setattr(train_command, "sklearn_score", watched(train_command.sklearn_score))
    train = ("train", "places.csv", "--target", "place", "--layers", 8, "--epochs", 1, "--compare-sklearn")
    assert shell(capsys, *train).status == 0
    assert seen == [1, 1]
    monkeypatch.setattr(gpunet.Network, "predict", watched(gpunet.Network.predict))
    for command in ("predict", "evaluate"):
        assert shell(capsys, command, "runs/places/model.safetensors", "places.csv").status == 0
    assert seen == [1, 1, 1, 1]
