"""The peers, gpunet's own among them; :func:`find_peer` imports no library, a peer does that in its own process."""

from __future__ import annotations

import importlib

from benchmarks.peers.peer import Peer
from benchmarks.report.results import BESIDE, Case
from gpunet.errors import InvalidValueError, counted, unknown_name

# What makes each peer, and what tables call it; gpunet's first. Those with "cuda" in their names work on a GPU.
PEERS = {
    "gpunet-numpy": ("gpunet_peers:GpunetNumpy", "gpunet (NumPy)"),
    "gpunet-compiled": ("gpunet_peers:GpunetCompiled", "gpunet (compiled)"),
    "gpunet-compiled-mkl": ("gpunet_peers:GpunetCompiledMkl", "gpunet (compiled, MKL)"),
    "gpunet-cuda": ("gpunet_peers:GpunetCuda", "gpunet (CUDA)"),
    "gpunet-cuda-unfused": ("gpunet_peers:GpunetCudaUnfused", "gpunet (CuPy expressions)"),
    "torch-eager": ("torch_peers:TorchEager", "PyTorch (eager)"),
    "torch-tuned": ("torch_peers:TorchTuned", "PyTorch (tuned)"),
    "torch-compile": ("torch_peers:TorchCompile", "PyTorch (compiled)"),
    "torch-cuda-eager": ("torch_peers:TorchEager", "PyTorch (eager, CUDA)"),
    "torch-cuda-tuned": ("torch_peers:TorchTuned", "PyTorch (tuned, CUDA)"),
    "torch-cuda-compile": ("torch_peers:TorchCompile", "PyTorch (compiled, CUDA)"),
    "torch-cuda-graph": ("torch_peers:TorchGraph", "PyTorch (compiled, CUDA graph)"),
    "jax": ("jax_peers:Jax", "JAX"),
    "jax-cuda": ("jax_peers:Jax", "JAX (CUDA)"),
    "keras": ("keras_peers:Keras", "Keras (JAX)"),
    "keras-cuda": ("keras_peers:Keras", "Keras (JAX, CUDA)"),
    "sklearn": ("sklearn_peers:Sklearn", "scikit-learn"),
}
# Ratios are taken to the first of these that took part.
RATIOS_TO = ("gpunet-cuda", "gpunet-compiled", "gpunet-numpy")
# Whose float64 the outputs are compared with.
REFERENCE = "gpunet-numpy"
# Who works beside a busy program, and with how many threads: NAME@THREADS, or its own choice of those of the run.
BESIDE_OTHERS = (
    "gpunet-numpy",
    "gpunet-numpy@1",
    "gpunet-compiled",
    "gpunet-compiled@1",
    "gpunet-compiled@2",
    "torch-tuned",
    "torch-tuned@1",
)


def find_peer(name: str) -> Peer:
    """Return the peer with a name, ``name@threads``, or of a class of your own, ``package.module:Class``.

    Raises
    ------
    InvalidValueError
        There is none; the message has the nearest name.
    """
    base, _, threads = name.partition("@")
    if ":" not in name and (base not in PEERS or not (threads.isdecimal() or name == base)):
        raise unknown_name("peer", name, PEERS)
    path, label = (name, None) if ":" in name else PEERS[base]
    module, _, cls = path.partition(":")
    try:
        peer: Peer = getattr(importlib.import_module(module if label is None else f"{__name__}.{module}"), cls)()
    except (ImportError, AttributeError) as error:
        raise InvalidValueError(f"peer: {name!r} cannot be loaded: {error}.") from None
    if label is not None:
        peer.name, peer.label, peer.on_device = name, label, "cuda" in name
        if threads:
            peer.threads, peer.label = int(threads), f"{label}, {counted(int(threads), 'thread')}"
    return peer


def peers_for(device: str) -> list[str]:
    """Return the names of the peers that are compared on a device; on ``"cuda"`` NumPy takes part, for the crossing."""
    names = [name for name in PEERS if ("cuda" in name) == (device == "cuda") or name == "gpunet-numpy"]
    return names if device == "cuda" else list(dict.fromkeys((*names, *BESIDE_OTHERS)))


def is_worth(peer: Peer, case: Case, threads: int) -> bool:
    """Whether a peer is worth its time in a case of the suite, with so many threads at most."""
    if case.label == BESIDE:
        return peer.name in BESIDE_OTHERS and (peer.threads or 1) <= threads
    return peer.threads is None and peer.is_worth(case)
