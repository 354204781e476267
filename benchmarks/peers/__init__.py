"""The peers, gpunet's own among them; :func:`find_peer` imports no library, a peer does that in its own process."""

from __future__ import annotations

import importlib

from benchmarks.peers.peer import Peer
from gpunet.errors import InvalidValueError, unknown_name

# The module of each peer, and what makes it there; gpunet's first.
PEERS = {
    "gpunet-numpy": "gpunet_peers:GpunetNumpy",
    "gpunet-cuda": "gpunet_peers:GpunetCuda",
    "gpunet-cuda-unfused": "gpunet_peers:GpunetCudaUnfused",
    "torch-eager": "torch_peers:TorchEager",
    "torch-tuned": "torch_peers:TorchTuned",
    "torch-compile": "torch_peers:TorchCompile",
    "torch-cuda-eager": "torch_peers:TorchCudaEager",
    "torch-cuda-tuned": "torch_peers:TorchCudaTuned",
    "torch-cuda-compile": "torch_peers:TorchCudaCompile",
    "torch-cuda-graph": "torch_peers:TorchCudaGraph",
    "jax": "jax_peers:Jax",
    "jax-cuda": "jax_peers:JaxCuda",
    "keras": "keras_peers:Keras",
    "keras-cuda": "keras_peers:KerasCuda",
    "sklearn": "sklearn_peers:Sklearn",
}
# Ratios are taken to the first of these that took part.
RATIOS_TO = ("gpunet-cuda", "gpunet-numpy")
# Whose float64 the outputs are compared with.
REFERENCE = "gpunet-numpy"


def find_peer(name: str) -> Peer:
    """Return the peer with a name, or of a class of your own, ``package.module:Class``.

    Raises
    ------
    InvalidValueError
        There is none; the message has the nearest name.
    """
    if ":" not in name and name not in PEERS:
        raise unknown_name("peer", name, PEERS)
    path, _, cls = (name if ":" in name else f"{__name__}.{PEERS[name]}").partition(":")
    try:
        peer: Peer = getattr(importlib.import_module(path), cls)()
    except (ImportError, AttributeError) as error:
        raise InvalidValueError(f"peer: {name!r} cannot be loaded: {error}.") from None
    return peer


def peers_for(device: str) -> list[str]:
    """Return the names of the peers that are compared on a device; on ``"cuda"`` NumPy takes part, for the crossing."""
    return [name for name in PEERS if ("cuda" in name) == (device == "cuda") or name == "gpunet-numpy"]
