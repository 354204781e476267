"""What a model must remember of its training data, so that it treats new data in the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.data.datasets import DataSet
from gpunet.data.scaling import Scaling
from gpunet.data.splits import LARGEST_SEED, Split
from gpunet.data.targets import CLASSIFICATION, REGRESSION, TASKS
from gpunet.errors import FileFormatError, NonFiniteError
from gpunet.validation import check_integer

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Preparation:
    """The link between a model and its data; kept in ``network.metadata``.

    Attributes
    ----------
    data_set : str
        Name of the training data.
    task : str
        ``"classification"`` or ``"regression"``.
    feature_names : list of str
    class_names : list of str, or None
    target_name : str or None
        The target column of a table.
    scaling : Scaling
        Of the features.
    target_scaling : Scaling or None
        Of the targets of a regression.
    seed : int
        Of the split.
    fingerprint, test_fingerprint : str
        Digests of the whole data set and of its test part: they tell whether data are those the model was trained on,
        and whether a split made again is the one that was used.
    """

    data_set: str
    task: str
    feature_names: list[str]
    class_names: list[str] | None
    target_name: str | None
    scaling: Scaling
    target_scaling: Scaling | None
    seed: int
    fingerprint: str
    test_fingerprint: str

    @classmethod
    def learn(cls, data: DataSet, split: Split, seed: int) -> Preparation:
        """Return the preparation of a data set; scalings see the training part only.

        Raises
        ------
        NonFiniteError
            A column cannot be standardised.
        """
        assert data.targets is not None
        columns = data.features.shape[1]
        if data.raw.largest is None:
            scaling = Scaling.standardising(data.features[split.train], data.feature_names)
        else:
            scaling = Scaling.dividing(columns, data.raw.largest)
        target_scaling = None
        if data.class_names is None:
            name = data.raw.target_name or "y"
            target_scaling = Scaling.standardising(data.targets[split.train].reshape(-1, 1), [name])
        return cls(
            data_set=data.name,
            task=REGRESSION if data.class_names is None else CLASSIFICATION,
            feature_names=data.feature_names,
            class_names=data.class_names,
            target_name=data.raw.target_name,
            scaling=scaling,
            target_scaling=target_scaling,
            seed=seed,
            fingerprint=data.fingerprint(),
            test_fingerprint=data.fingerprint(split.test),
        )

    @property
    def outputs(self) -> int:
        """How many outputs the network has: one per class, or one."""
        return 1 if self.class_names is None else len(self.class_names)

    def inputs(self, features: Array) -> Array:
        """Return what goes into the network, float64 (n, d)."""
        return self.scaling.apply(features)

    def network_targets(self, targets: Array) -> Array:
        """Return what the network learns: labels as they are, numbers scaled, (n, 1)."""
        if self.target_scaling is None:
            return targets
        return self.target_scaling.apply(targets.reshape(-1, 1))

    def numbers(self, outputs: Array) -> Array:
        """Return the predictions of a regression in the units of its targets, float64 (n,).

        The network's own dtype would round them: 1,700,000,060 is 1,700,000,000 in float32.
        """
        assert self.target_scaling is not None
        return self.target_scaling.invert(outputs.astype(np.float64).reshape(-1, 1))[:, 0]

    def check_range(self, data: DataSet, dtype: np.dtype[Any]) -> None:
        """Raise unless all of a data set, once it is scaled, is within the range of a network's dtype.

        Raises
        ------
        NonFiniteError
            The message has the line and the column.
        """
        raw = data.raw
        parts = [(self.inputs(data.features), data.features, raw.feature_place)]
        if data.targets is not None and self.target_scaling is not None:
            numbers = data.targets.reshape(-1, 1)
            parts.append((self.network_targets(numbers), numbers, lambda column: raw.target_place))
        for scaled, values, place in parts:
            with np.errstate(over="ignore"):
                outside = ~np.isfinite(scaled.astype(dtype))
            if outside.any():
                row, column = map(int, np.argwhere(outside)[0])
                raise NonFiniteError(
                    f"{place(column)}, {raw.row_place(row)}: {values[row, column]} is {scaled[row, column]:.3g} when "
                    f"it is scaled as the training rows are. Expected what {dtype} can hold."
                )

    def to_metadata(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {"data": asdict(self)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], layer_sizes: Sequence[int], source: str) -> Preparation:
        """Return the preparation in a network's metadata.

        Parameters
        ----------
        metadata : mapping
        layer_sizes : sequence of int
            The network's; the preparation must fit.
        source : str
            The model's file, for error messages.

        Raises
        ------
        FileFormatError
            ``gpunet train`` did not write the model, or it is damaged.
        """
        if "data" not in metadata:
            raise FileFormatError(
                f"{source}: does not say how its data were prepared. Expected a model that 'gpunet train' wrote; "
                "others predict in Python, by gpunet.load(...).predict."
            )
        try:
            content = dict(metadata["data"])
            scaling = Scaling.from_metadata(content.pop("scaling"), layer_sizes[0])
            target_scaling = content.pop("target_scaling")
            if target_scaling is not None:
                target_scaling = Scaling.from_metadata(target_scaling, 1)
            preparation = cls(**content, scaling=scaling, target_scaling=target_scaling)
            preparation._check_types()
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise FileFormatError(f"{source}: its data preparation is damaged ({error}).") from None
        if (len(preparation.feature_names), preparation.outputs) != (layer_sizes[0], layer_sizes[-1]):
            raise FileFormatError(f"{source}: its data preparation does not fit its layers {tuple(layer_sizes)}.")
        return preparation

    def _check_types(self) -> None:
        """Raise TypeError or ValueError unless everything is what :meth:`learn` makes of it."""
        for names in (self.feature_names, [] if self.class_names is None else self.class_names):
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise TypeError("expected lists of names")
            if len(set(names)) < len(names):
                raise ValueError("a name occurs twice")
        target_name = "" if self.target_name is None else self.target_name
        for text in (self.data_set, self.fingerprint, self.test_fingerprint, target_name):
            if not isinstance(text, str):
                raise TypeError(f"expected text, got {text!r}")
        check_integer("seed", self.seed, 0, LARGEST_SEED)
        is_regression = self.task == REGRESSION
        agree = is_regression == (self.class_names is None) == (self.target_scaling is not None)
        if self.task not in TASKS or not agree:
            raise ValueError("task, classes and target scaling contradict one another")
