"""``gpunet info``: versions, processors, devices, what is missing and what brings it; or what a file holds."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import subprocess
import sys
from typing import Any

import numpy as np

import gpunet
from gpunet.backends.by_work import compiled_backend
from gpunet.backends.cuda import CudaBackend
from gpunet.backends.cuda.proof import Proof, proof_of
from gpunet.backends.cuda.tuning import find_tuning
from gpunet.backends.devices.nccl import load_nccl
from gpunet.backends.devices.probe import GpuReport, probe_gpu
from gpunet.backends.selection import compiled_problem, cuda_problem, select_backend
from gpunet.backends.switches import COMPILED_CPU, SWITCHES
from gpunet.cli.arguments import Parser, set_command
from gpunet.cli.file_description import WRONG, describe_file, description_lines
from gpunet.cli.output import device_name, print_json, print_lines
from gpunet.distributed.message_passing import library_name
from gpunet.environment import blas_libraries, cpu_name, usable_cores
from gpunet.errors import DeviceError, counted
from gpunet.serialization import SUFFIXES

EXIT_DAMAGED = 1
# Optional packages and the extra of gpunet that brings each.
OPTIONAL_PACKAGES = {
    "scikit-learn": "cli",
    "rich": "cli",
    "safetensors": "cli",
    "threadpoolctl": "cpu",
    "numba": "cpu",
    "pandas": "data",
    "mlxtend": "data",
    "narwhals": "data",
    "pyarrow": "parquet",
    "matplotlib": "plot",
    "onnx": "onnx",
    "mpi4py": "mpi",
}
# After so many, a library of MPI that is asked for its name does not answer.
_SECONDS_TO_ANSWER = 60


def declare(parser: Parser) -> None:
    """Declare the arguments of ``gpunet info``."""
    set_command(parser, run, "gpunet info runs/digits/model.safetensors")
    parser.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help=f"a model or a checkpoint ({' or '.join(SUFFIXES)}); status 1 if it does not fit its digest",
    )


def run(arguments: argparse.Namespace) -> None:
    """Print what gpunet runs on here, or what a model or checkpoint holds.

    Raises
    ------
    GpunetError, OSError
        The file cannot be described.
    SystemExit
        With status 1, after the description of a file that does not fit its digest.
    """
    content = collect() if arguments.file is None else describe_file(arguments.file)
    if arguments.json:
        print_json(content)
    else:
        for name, value in _lines(content) if arguments.file is None else description_lines(content):
            print_lines(f"{name:<14}{value}")
    if content.get("digest") == WRONG:
        raise SystemExit(EXIT_DAMAGED)


def collect() -> dict[str, Any]:
    """Return everything that ``gpunet info`` knows."""
    report = probe_gpu()
    problem = cuda_problem(report, 0)
    proof = Proof({}) if problem else proof_of(0)
    backend = select_backend("auto")
    packages = {name: _version(name) for name in OPTIONAL_PACKAGES}
    return {
        "gpunet": gpunet.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "numpy": np.__version__,
        "blas": blas_libraries(),
        "cpu": {"name": cpu_name(), "cores": usable_cores()},
        "compiled_cpu": _compiled_cpu(),
        "device": device_name(backend),
        "driver_cuda": None if report.driver_cuda is None else "{}.{}".format(*report.driver_cuda),
        "cuda_devices": list(report.devices),
        "cupy": report.cupy,
        "cupy_extra": report.extra,
        "cuda_problem": problem or proof.problem,
        "cuda_proof": {name: failure or "ok" for name, failure in proof.results.items()},
        "launch_plans": find_tuning(backend.device).source if isinstance(backend, CudaBackend) else None,
        "mpi": _mpi(packages["mpi4py"]),
        "nccl": _nccl(report),
        "switches": {switch.variable: switch.is_on() for switch in SWITCHES},
        "packages": packages,
        "missing": _missing(report, packages),
    }


def _compiled_cpu() -> dict[str, Any]:
    """Return what runs much work on a CPU, or why NumPy does."""
    problem = compiled_problem() if COMPILED_CPU.is_on() else f"{COMPILED_CPU.variable}=0"
    return {"problem": problem} | ({} if problem else compiled_backend().description)


def _mpi(mpi4py: str | None) -> dict[str, str | None]:
    """Return which library of MPI there is, or why none is; asked in another process, which it may end."""
    if mpi4py is None:
        return {"library": None, "problem": "several processes need mpi4py: pip install 'gpunet[mpi]'"}
    command = [sys.executable, "-m", "mpi4py", "--mpi-lib-version"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_SECONDS_TO_ANSWER, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"library": None, "problem": " ".join(str(error).split())}
    if done.returncode:
        told = done.stderr.strip().splitlines() or [f"it ends with status {done.returncode}"]
        return {"library": None, "problem": f"mpi4py {mpi4py} finds no library of MPI: {told[-1]}"}
    return {"library": library_name(done.stdout), "problem": None}


def _nccl(report: GpuReport) -> dict[str, str | None]:
    """Return which NCCL moves arrays between GPUs, or why none does."""
    if report.cupy is None or not report.devices:
        return {"version": None, "problem": "it comes with CuPy, where there is a GPU"}
    try:
        nccl = load_nccl()
    except DeviceError as error:
        return {"version": None, "problem": str(error)}
    number = int(nccl.get_version())
    return {"version": f"{number // 10_000}.{number // 100 % 100}.{number % 100}", "problem": None}


def _missing(report: GpuReport, packages: dict[str, str | None]) -> list[dict[str, str]]:
    missing = [
        {"package": name, "install": f"pip install 'gpunet[{OPTIONAL_PACKAGES[name]}]'"}
        for name, version in packages.items()
        if version is None
    ]
    if report.extra is not None and report.cupy is None:
        missing.insert(0, {"package": "cupy", "install": f"pip install 'gpunet[{report.extra}]'"})
    return missing


def _lines(content: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [
        ("gpunet", content["gpunet"]),
        ("Python", f"{content['python']}, {content['platform']}"),
        ("NumPy", content["numpy"]),
    ]
    for blas in content["blas"]:
        known = blas["threads"]
        threads = "threads unknown (threadpoolctl tells)" if known is None else counted(known, "thread")
        lines.append(("BLAS", f"{blas['name']} {blas['version'] or ''}, {threads}"))
    lines += [
        ("CPU", f"{content['cpu']['name']}, {counted(content['cpu']['cores'], 'core')}"),
        ("compiled CPU", _compiled_line(content["compiled_cpu"])),
        ("device", f"{content['device']} (what --device auto takes)"),
        ("NVIDIA driver", f"CUDA {content['driver_cuda']}" if content["driver_cuda"] else "none"),
    ]
    lines += [(f"cuda:{number}", name) for number, name in enumerate(content["cuda_devices"])]
    lines.append(("CuPy", content["cupy"] or "not installed"))
    if content["cuda_problem"]:
        lines.append(("CUDA", content["cuda_problem"]))
    lines += [("proof", f"{name}: {outcome}") for name, outcome in content["cuda_proof"].items()]
    if content["launch_plans"]:
        lines.append(("launch plans", content["launch_plans"]))
    lines += [
        ("MPI", content["mpi"]["library"] or content["mpi"]["problem"]),
        ("NCCL", content["nccl"]["version"] or f"none: {content['nccl']['problem']}"),
    ]
    lines += [("switch", f"{switch.variable}={switch.is_on():d}: {switch.meaning}") for switch in SWITCHES]
    lines += [(name, version) for name, version in content["packages"].items() if version]
    lines += [("missing", f"{entry['package']}: {entry['install']}") for entry in content["missing"]]
    return lines


def _compiled_line(compiled: dict[str, Any]) -> str:
    if compiled["problem"]:
        return f"NumPy does everything: {compiled['problem']}"
    threads = counted(compiled["threads"], "thread")
    return f"Numba {compiled['numba']}, products by {compiled['blas']}, {threads} of its own"


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
