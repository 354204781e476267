"""What makes a run this run: a checkpoint records it, and resuming compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Any

import numpy.typing as npt

from gpunet.distributed import Ranks
from gpunet.errors import InvalidValueError
from gpunet.fingerprint import block_fingerprints, merge_fingerprints
from gpunet.network import ADDED_ARGUMENTS, Network
from gpunet.optimizers import Optimizer
from gpunet.training.evaluation import DeviceData
from gpunet.training.settings import ADDED_SETTINGS, FitSettings
from gpunet.training.stream import BatchStream

Array = npt.NDArray[Any]

# What the first checkpoints of version 1 do not say, in words.
_ADDED = {
    "hyperparameters": "the optimizer's hyperparameters",
    "digests": "the data in blocks of rows",
    "learning_rate": "the learning rate",
    "environment": "what computed it",
}


@dataclass(frozen=True)
class RunIdentity:
    """What a resumed run has to share with the interrupted one, and what its bits depend on.

    Attributes
    ----------
    network : dict
        The network's arguments, the initialiser aside: its work is done.
    settings : dict
        Rows, batch size, shuffle, l2, clip_norm, accumulate, the decay of the average.
    optimizer : str
    hyperparameters : dict
        The optimiser's: momentum, betas, ...
    digests : dict of str to (str or None)
        Of what ``fit`` was given, as the network takes it; None for what it was not given.
    learning_rate : str
        May change, with a warning.
    environment : dict of str to (str or None)
        What the bits of results depend on; may change, with a warning. None is not known, and not compared.
    """

    network: dict[str, Any]
    settings: dict[str, Any]
    optimizer: str
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str | None] = field(default_factory=dict)
    learning_rate: str = ""
    environment: dict[str, str | None] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        network: Network,
        settings: FitSettings,
        data: DeviceData | BatchStream,
        held_out: DeviceData | None,
        sample_weight: Array | None,
        class_weight: Array | None,
    ) -> RunIdentity:
        """Return the identity of a run that is about to start; reads its data once, of several ranks each a part.

        Parameters
        ----------
        network : Network
        settings : FitSettings
        data : DeviceData or BatchStream
        held_out : DeviceData or None
        sample_weight : array, (n,), or None
            On the device, like the data.
        class_weight : array, (c,), or None
        """
        backend, optimizer = network.backend, settings.optimizer
        given: dict[str, list[str] | None] = {}
        for prefix, arrays in (("", data), ("validation ", held_out)):
            for letter, name in (("X", "features"), ("y", "targets")):
                given[prefix + letter] = arrays.digests(name) if isinstance(arrays, DeviceData) else None
        for name, array in (("sample_weight", sample_weight), ("class_weight", class_weight)):
            to_numpy, part = backend.to_numpy, settings.part
            given[name] = None if array is None else block_fingerprints(array, to_numpy=to_numpy, part=part)
        digests = _merged(given, settings.ranks)
        if isinstance(data, BatchStream):
            digests["X"] = digests["y"] = data.fingerprint
        return cls(
            network={name: value for name, value in network.configuration.items() if name != "initializer"},
            settings=settings.fixed(None if isinstance(data, BatchStream) else data.rows),
            optimizer=optimizer.name,
            hyperparameters=optimizer.hyperparameters,
            digests=digests,
            learning_rate=in_words(optimizer.schedule),
            # By name: gpunet itself imports this module.
            environment={"gpunet": import_module("gpunet").__version__, **backend.arithmetic},
        )

    def to_header(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return what JSON can hold, with the hyperparameters as they are now: callbacks may have set others."""
        now = {"hyperparameters": optimizer.hyperparameters, "learning_rate": in_words(optimizer.schedule)}
        return asdict(self) | now

    def compare(self, found: Mapping[str, Any], source: str) -> list[str]:
        """Compare with the header of a checkpoint, and return what to warn of, in sentences.

        Parameters
        ----------
        found : mapping
            May lack what older checkpoints lack.
        source : str
            The checkpoint, for error messages.

        Raises
        ------
        InvalidValueError
            It is of another run; the message says what differs.
        KeyError, TypeError, AttributeError
            The header is damaged.
        """
        check_same(source, "a network", ADDED_ARGUMENTS | found["network"], self.network)
        check_same(source, "a run", ADDED_SETTINGS | found["settings"], self.settings)
        check_same(source, "a run", found, {"optimizer": self.optimizer})
        if "hyperparameters" in found:
            check_same(source, "an optimizer", found["hyperparameters"], self.hyperparameters)
        if "digests" in found:
            self._check_data(source, found["digests"])
        notes = []
        if "learning_rate" in found and found["learning_rate"] != self.learning_rate:
            notes.append(f"its learning rate was {found['learning_rate']!s:.200}, and is {self.learning_rate} now")
        environment = found.get("environment", {})
        for name in dict.fromkeys([*environment, *self.environment]):
            was, now = environment.get(name), self.environment.get(name)
            if was is not None and now is not None and was != now:
                notes.append(f"it was computed with {name} {was!s:.200}, and this is {name} {now}")
        missing = [words for name, words in _ADDED.items() if name not in found]
        if missing:
            notes.append(f"an older gpunet wrote it, which did not record {', '.join(missing)}: not compared")
        return notes

    def _check_data(self, source: str, found: Mapping[str, Any]) -> None:
        for name, value in self.digests.items():
            if found[name] == value:
                continue
            was = "a run without" if found[name] is None else "a run with" if value is None else "a run with another"
            raise InvalidValueError(
                f"checkpoint: {source} is of {was} {name}. Expected the data and weights that the run began with."
            )


def _merged(given: Mapping[str, list[str] | None], ranks: Ranks | None) -> dict[str, str | None]:
    """Return the digests of whole arrays, from those of the blocks that each rank has read."""
    parts: list[Any] = [given] if ranks is None else ranks.share(given)
    return {
        name: None if blocks is None else merge_fingerprints(block for part in parts for block in part[name])
        for name, blocks in given.items()
    }


def in_words(schedule: Any) -> str:
    """Return the ``repr`` of a schedule or another setting; its class where that would be an address in memory."""
    text = repr(schedule)
    return type(schedule).__qualname__ if text == object.__repr__(schedule) else text


def check_same(source: str, what: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise InvalidValueError, which names it, where a value differs from that of a checkpoint."""
    for name, value in expected.items():
        if found[name] != value:
            raise InvalidValueError(
                f"checkpoint: {source} is of {what} with {name}={found[name]!r:.200}. Expected {value!r}."
            )
