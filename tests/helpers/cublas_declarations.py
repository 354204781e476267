"""What the headers of cuBLAS declare of the functions, numbers and structures that gpunet names.

The wheels with the headers are large, so what is read there is kept beside the tests, for each CUDA version. Where
gpunet comes to name more of them, or for a new version:

    pip install --no-deps --target wheels nvidia-cublas-cu12 nvidia-cublas
    python -m tests.helpers.cublas_declarations wheels/nvidia/cublas/include wheels/nvidia/cu13/include
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from gpunet.backends.devices import cublas, cublas_lt

FOLDER = Path(__file__).parent.parent / "backends" / "devices" / "cublas_declarations"
ENUMERATIONS = (
    "cublasLtMatmulDescAttributes_t",
    "cublasLtEpilogue_t",
    "cublasLtMatmulPreferenceAttributes_t",
    "cublasStatus_t",
    "cublasComputeType_t",
)
STRUCTURES = ("cublasLtMatmulAlgo_t", "cublasLtMatmulHeuristicResult_t")


def read(include: Path) -> dict[str, Any]:
    """Return what the headers in a folder declare."""
    names = ("cublas_api.h", "cublasLt.h")
    text = "\n".join((include / name).read_text(encoding="utf-8") for name in names)
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
    functions = (*cublas.SIGNATURES, *cublas_lt.SIGNATURES)
    return {
        "version": [int(number) for number in re.findall(r"CUBLAS_VER_(?:MAJOR|MINOR|PATCH) (\d+)", text)],
        "functions": {name: _parameters(text, name) for name in functions},
        "numbers": {name: number for enumeration in ENUMERATIONS for name, number in _numbers(text, enumeration)},
        "structures": {name: _members(text, name) for name in STRUCTURES},
    }


def _parameters(text: str, function: str) -> list[str]:
    """Return the types of a function's parameters."""
    found = re.search(rf"cublasStatus_t CUBLASWINAPI\s+{function}\s*\(([^)]*)\)", text)
    assert found, function
    return [_type_of(parameter) for parameter in found[1].split(",")]


def _type_of(parameter: str) -> str:
    """Return ``"const void*"`` of ``"const void* A"``; an array is a pointer."""
    words = re.match(r"\s*(.*?)\s*(\w+)\s*(\[\])?\s*\Z", parameter, flags=re.DOTALL)
    assert words, parameter
    return re.sub(r"\s+", " ", words[1]).replace(" *", "*") + ("*" if words[3] else "")


def _body(text: str, name: str) -> str:
    end = re.search(rf"\}}\s*{name}\s*;", text)
    assert end, name
    return text[text.rindex("{", 0, end.start()) + 1 : end.start()]


def _numbers(text: str, enumeration: str) -> list[tuple[str, int]]:
    numbers: dict[str, int] = {}
    for part in _body(text, enumeration).split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        if name:
            numbers[name] = eval(value, {}, numbers)
    return list(numbers.items())


def _members(text: str, structure: str) -> list[str]:
    return [re.sub(r"\s+", " ", member).strip() for member in _body(text, structure).split(";") if member.strip()]


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        declarations = read(Path(argument))
        path = FOLDER / f"{declarations['version'][0]}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(declarations, indent=1) + "\n", encoding="utf-8")
        print(path)
