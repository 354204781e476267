"""The compiled kernels of one device: which instantiations there are, compiled when the first of a group is needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.activations import ACTIVATIONS, Activation
from gpunet.backends.devices.device import Device
from gpunet.errors import InvalidTypeError, InvalidValueError
from gpunet.kernels import source

OPTIONS = ("-std=c++17", "-lineinfo")

# C++ names of what matrices are stored as. Kernels compute in float, or in double where they store double.
STORAGE_TYPES = {"float32": "float", "float64": "double", "float16": "__half", "bfloat16": "__nv_bfloat16"}
ITEM_SIZES = {"float": 4, "double": 8, "__half": 2, "__nv_bfloat16": 2}
PARAMETER_TYPES = ("float", "double")

ACTIVATION_CODES = {name: code for code, name in enumerate(ACTIVATIONS)}  # ActivationCode of activation.cuh

# (lanes per row, columns per lane) of softmax_cross_entropy_lanes.
SOFTMAX_SHAPES = ((8, 1), (16, 1), (32, 1), (32, 2), (32, 4), (32, 8), (32, 16), (32, 32))
# The words that gather_rows moves, by their bytes.
GATHER_WORDS = {16: "uint4", 8: "uint2", 4: "unsigned int", 2: "unsigned short"}

Group = tuple[str, ...]


def storage_type(dtype: npt.DTypeLike) -> str:
    """Return the C++ name of a dtype that matrices may have."""
    name = np.dtype(dtype).name
    if name not in STORAGE_TYPES:
        raise InvalidTypeError(f"dtype: there is no kernel for {name}. Expected one of: {', '.join(STORAGE_TYPES)}.")
    return STORAGE_TYPES[name]


def arithmetic_type(dtype: npt.DTypeLike) -> type[np.floating[Any]]:
    """Return the NumPy type of the numbers that a kernel for ``dtype`` computes with."""
    return np.float64 if np.dtype(dtype) == np.float64 else np.float32


def activation_code(activation: Activation) -> int:
    """Return the template argument that stands for an activation."""
    code = ACTIVATION_CODES.get(activation.name)
    if code is None or type(activation) is not ACTIVATIONS[activation.name]:
        raise InvalidValueError(
            f"activation: {activation!r} has no CUDA kernel. Expected one of: {', '.join(ACTIVATIONS)}; "
            "device='cpu' takes any."
        )
    return code


def widest_vector(storage: str) -> int:
    """Return how many elements one access of 16 bytes moves."""
    return 16 // ITEM_SIZES[storage]


def activation_group(storage: str, code: int) -> Group:
    """Return the kernels of ``activation.cu`` for one activation."""
    return tuple(
        f"bias_activation_{direction}<{storage}, {code}, {width}>"
        for direction in ("forward", "backward")
        for width in (1, widest_vector(storage))
    )


def dropout_group(storage: str) -> Group:
    """Return the kernels of ``dropout.cu``."""
    return tuple(
        f"dropout_{direction}<{storage}, {aligned}>"
        for direction in ("forward", "backward")
        for aligned in ("false", "true")
    )


def bernoulli_group(storage: str) -> Group:
    """Return the kernels of ``bernoulli.cu``."""
    return tuple(f"sample_bernoulli<{storage}, {aligned}>" for aligned in ("false", "true"))


def softmax_cross_entropy_group(storage: str) -> Group:
    """Return the kernels of ``softmax_cross_entropy.cu``."""
    lanes = (f"softmax_cross_entropy_lanes<{storage}, {lanes}, {values}>" for lanes, values in SOFTMAX_SHAPES)
    blocks = (f"softmax_cross_entropy_block<{storage}, {staged}>" for staged in ("false", "true"))
    return (*lanes, *blocks, f"total_weight<{_arithmetic_name(storage)}>")


def sigmoid_cross_entropy_group(storage: str) -> Group:
    """Return the kernels of ``sigmoid_cross_entropy.cu``."""
    return f"sigmoid_cross_entropy<{storage}>", f"total_weight<{_arithmetic_name(storage)}>"


def squared_error_group(storage: str) -> Group:
    """Return the kernels of ``squared_error.cu``."""
    return f"squared_error<{storage}>", f"total_weight<{_arithmetic_name(storage)}>"


def optimizer_group(parameter: str) -> Group:
    """Return the kernels of ``optimizer.cu``."""
    widths = (1, widest_vector(parameter))
    sgd = (f"sgd_step<{parameter}, {width}, {velocity}>" for width in widths for velocity in ("false", "true"))
    others = (f"{name}<{parameter}, {width}>" for width in widths for name in ("adam_step", "clip_factor"))
    return (*sgd, *others)


def gather_group() -> Group:
    """Return the kernels of ``gather.cu``."""
    return tuple(f"gather_rows<{word}>" for word in GATHER_WORDS.values())


def all_groups() -> Iterator[tuple[str, Group]]:
    """Yield (module, kernels) for everything that the CUDA backend may compile, for checks of all of them.

    All but ``batch_norm.cu``, whose kernels :func:`gpunet.backends.batch_norm_plan.batch_norm_group` lists.
    """
    yield "gather", gather_group()
    for parameter in PARAMETER_TYPES:
        yield "optimizer", optimizer_group(parameter)
    for storage in ITEM_SIZES:
        for code in ACTIVATION_CODES.values():
            yield "activation", activation_group(storage, code)
        yield "dropout", dropout_group(storage)
        yield "bernoulli", bernoulli_group(storage)
        yield "softmax_cross_entropy", softmax_cross_entropy_group(storage)
        yield "sigmoid_cross_entropy", sigmoid_cross_entropy_group(storage)
        yield "squared_error", squared_error_group(storage)


class KernelLibrary:
    """Compiles groups of kernels on first use and keeps them.

    Parameters
    ----------
    device : Device
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._kernels: dict[tuple[str, str], Any] = {}

    def get(self, module: str, expression: str, group: Group) -> Any:
        """Return a kernel, compiled together with the others of its group.

        Parameters
        ----------
        module : str
            The file, without ``.cu``.
        expression : str
            The C++ name with template arguments; one of ``group``.
        """
        kernel = self._kernels.get((module, expression))
        if kernel is None:
            loaded = self._device.load(source(module), OPTIONS, group, f"{module}.cu")
            self._kernels.update({(module, name): compiled for name, compiled in loaded.items()})
            kernel = self._kernels[module, expression]
        return kernel


def _arithmetic_name(storage: str) -> str:
    return "double" if storage == "double" else "float"
