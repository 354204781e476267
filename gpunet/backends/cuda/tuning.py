"""The constants of launch plans: estimates, or what ``gpunet tune`` has measured on a device and written to a file.

Only what a measurement can decide is here. Threads and registers of a block are compiled into the kernels, and the
widths of accesses are the hardware's.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from gpunet.backends.devices.device import Device
from gpunet.backends.notices import say_once
from gpunet.backends.switches import TUNING
from gpunet.files import write_text
from gpunet.version import __version__

FORMAT, FORMAT_VERSION = "gpunet.tuning", 1
KIB = 1024


@dataclass(frozen=True)
class Tuning:
    """Constants of launch plans; by default, the estimates.

    Attributes
    ----------
    streaming_waves : int
        How often the blocks of an element-wise kernel fill the device: few long-lived blocks would all end at once.
    resident_threads : int
        Threads of a block of resident batch norm with a small tile.
    cluster_bytes : int
        What the barriers of a cluster cost, in bytes that a multiprocessor moves meanwhile: about 0.5 microseconds.
    wait_bytes : int
        The same of the wait between the two sweeps of striped batch norm: about 2 microseconds.
    striped_blocks : int
        Blocks of striped batch norm for each multiprocessor. Any has room for 1,024 threads, and from compute
        capability 8.0 on for two to four such chunks. Where fewer fit, the others come later, which the algorithm
        allows.
    l2_thirds : int
        Thirds of the L2 cache for the three stripes in flight: the one being read, and the inputs and outputs of the
        one before it.
    """

    streaming_waves: int = 4
    resident_threads: int = 256
    cluster_bytes: int = 16 * KIB
    wait_bytes: int = 64 * KIB
    striped_blocks: int = 4
    l2_thirds: int = 2

    @property
    def in_words(self) -> str:
        """What differs from the estimates."""
        return _in_words(asdict(self))

    @property
    def order_of_sums(self) -> str:
        """The part of it that the order of sums, and so the bits of results, depend on."""
        return _in_words({name: value for name, value in asdict(self).items() if name != "streaming_waves"})


ESTIMATES = Tuning()
# What is tried for each, the estimate among them; in this order, each with the best of those before it.
CANDIDATES: dict[str, tuple[int, ...]] = {
    "streaming_waves": (1, 2, 4, 8),
    "resident_threads": (128, 256, 512),
    "cluster_bytes": (4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB),
    "wait_bytes": (16 * KIB, 64 * KIB, 256 * KIB),
    "striped_blocks": (2, 4, 8),
    "l2_thirds": (1, 2, 3),
}


def _in_words(values: dict[str, int]) -> str:
    estimated = asdict(ESTIMATES)
    return ", ".join(f"{name}={value}" for name, value in values.items() if value != estimated[name]) or "estimates"


@dataclass(frozen=True)
class Found:
    """The constants for a device, and where they come from.

    Attributes
    ----------
    tuning : Tuning
    source : str
        In words.
    problem : str
        Why a file that is there is not used; empty where none is there, or it is.
    """

    tuning: Tuning
    source: str
    problem: str = ""


def tuning_of(device: Device) -> Tuning:
    """Return the constants for a device; where its file cannot be used, the estimates, and a notice once."""
    found = find_tuning(device)
    if found.problem:
        say_once(f"on {device.name}, launch plans rest on estimates", found.problem)
    return found.tuning


def find_tuning(device: Device) -> Found:
    """Look for the constants measured on a device.

    Parameters
    ----------
    device : Device

    Raises
    ------
    InvalidValueError
        ``GPUNET_TUNING`` has a value that means nothing.
    """
    if not TUNING.is_on():
        return Found(ESTIMATES, f"estimates ({TUNING.variable}=0)")
    try:
        path = tuning_path(device)
        if not path.is_file():
            return Found(ESTIMATES, "estimates (`gpunet tune` measures)")
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("format") != FORMAT or content.get("format_version") != FORMAT_VERSION:
            raise ValueError("it is no tuning of this format")
        differences = [
            f"{name} {content['measured_on'].get(name)} (here {value})"
            for name, value in identity(device).items()
            if content["measured_on"].get(name) != value
        ]
        if differences:
            return _unused(f"{path} was measured with {', '.join(differences)}; `gpunet tune` measures again")
        tuning = _checked(content["tuning"])
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError, RuntimeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return _unused(f"what `gpunet tune` has measured cannot be read ({reason:.200}); it measures again")
    return Found(tuning, f"measured: {tuning.in_words} ({path})")


def save_tuning(device: Device, tuning: Tuning) -> Path:
    """Write constants to the file of a device, at once or not at all.

    Raises
    ------
    OSError
    """
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "measured_on": identity(device),
        "tuning": asdict(tuning),
    }
    return write_text(tuning_path(device), json.dumps(content, indent=1) + "\n")


def identity(device: Device) -> dict[str, str]:
    """Return what a measurement holds for: version, model, how much of the device there is, driver."""
    return {
        "gpunet": __version__,
        "device": _model(device),
        "multiprocessors": str(device.multiprocessor_count),
        "L2 bytes": str(device.l2_bytes),
        "driver": str(getattr(device, "driver", "none")),
    }


def tuning_path(device: Device) -> Path:
    """Return the file of a model of device: the newest measurement of one replaces the older."""
    return cache_folder() / f"{re.sub('[^a-z0-9]+', '-', _model(device).lower()).strip('-')}.json"


def cache_folder() -> Path:
    """Return the folder of such files: ``GPUNET_CACHE_DIR``, or gpunet's in the platform's folder of caches."""
    if named := os.environ.get("GPUNET_CACHE_DIR"):
        return Path(named)
    if sys.platform == "win32":
        folder = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        folder = Path.home() / "Library" / "Caches"
    else:
        folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "gpunet"


def _model(device: Device) -> str:
    return str(getattr(device, "model", device.name))


def _unused(problem: str) -> Found:
    return Found(ESTIMATES, f"estimates: {problem}", problem)


def _checked(values: Any) -> Tuning:
    """Return constants from a file, of which each has to be one of the candidates."""
    expected = {field.name for field in fields(Tuning)}
    if values.keys() != expected:
        raise ValueError(f"it has other constants than {', '.join(sorted(expected))}")
    for name, value in values.items():
        if type(value) is not int or value not in CANDIDATES[name]:
            raise ValueError(f"{name} is {value!r:.40}")
    return Tuning(**values)
