"""What a model must remember of its training data, so that it treats new data in the same way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.data.datasets import DataSet
from gpunet.data.imputation import Imputation
from gpunet.data.inputs import Input, input_columns, unscaled_inputs
from gpunet.data.one_hot import OneHot
from gpunet.data.scaling import Scaling
from gpunet.data.splits import LARGEST_SEED, Split
from gpunet.data.targets import CLASSIFICATION, REGRESSION, TASKS
from gpunet.errors import FileFormatError, NonFiniteError
from gpunet.validation import check_integer

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Preparation:
    """The link between a model and its data; kept in ``network.metadata``.

    Features become inputs in three steps: missing values are filled in, text is encoded one-hot, all is scaled.

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
        Of the inputs; those that are 0 or 1, of categories and of missing values, stay as they are.
    target_scaling : Scaling or None
        Of the targets of a regression.
    seed : int
        Of the split.
    fingerprint, test_fingerprint : str
        Digests of the whole data set and of its test part: they tell whether data are those the model was trained on,
        and whether a split made again is the one that was used.
    column_names : list of str, or None
        All columns of the table that it was trained on.
    imputation : Imputation or None
        None: data must be complete.
    one_hot : OneHot or None
        None: all features are numbers.
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
    column_names: list[str] | None = None
    imputation: Imputation | None = None
    one_hot: OneHot | None = None

    @classmethod
    def learn(cls, data: DataSet, split: Split, seed: int) -> Preparation:
        """Return the preparation of a data set; every step learns from the training part only.

        Raises
        ------
        NonFiniteError
            A column cannot be standardised.
        InvalidValueError
            A column has no value in any training row.
        """
        assert data.targets is not None
        names, categories, train = data.feature_names, data.raw.categories, data.features[split.train]
        imputation = None if data.missing is None else Imputation.learn(data.missing, train, names, list(categories))
        one_hot = OneHot.learn(train, names, categories) if categories else None
        if data.raw.largest is None:
            columns = input_columns(names, imputation, one_hot)
            scaling = Scaling.standardising(
                unscaled_inputs(train, names, imputation, one_hot, categories),
                [column.name for column in columns],
                [column.is_flag for column in columns],
            )
        else:
            scaling = Scaling.dividing(len(names), data.raw.largest)
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
            column_names=data.raw.column_names,
            imputation=imputation,
            one_hot=one_hot,
        )

    @property
    def outputs(self) -> int:
        """How many outputs the network has: one per class, or one."""
        return 1 if self.class_names is None else len(self.class_names)

    @property
    def input_columns(self) -> list[Input]:
        """What each input of the network is made of."""
        return input_columns(self.feature_names, self.imputation, self.one_hot)

    def inputs(self, features: Array, categories: Mapping[str, Sequence[str]] | None = None) -> Array:
        """Return what goes into the network, float64 (n, inputs).

        Parameters
        ----------
        features : ndarray of float64, (n, d)
        categories : mapping of str to sequence of str, or None
            What the places in columns of text stand for, in these features; None where there is no text.
        """
        unscaled = unscaled_inputs(features, self.feature_names, self.imputation, self.one_hot, categories or {})
        return self.scaling.apply(unscaled)

    def inputs_of(self, data: DataSet, rows: Array | slice = slice(None)) -> Array:
        """Return what goes into the network of some rows of a data set."""
        return self.inputs(data.features[rows], data.raw.categories)

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
        raw, features = data.raw, [column.feature for column in self.input_columns]
        parts: list[tuple[Array, Array, Callable[[int], str]]] = [
            (self.inputs_of(data), data.features[:, features], lambda column: raw.feature_place(features[column]))
        ]
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
            names, one_hot, imputation = content["feature_names"], content.get("one_hot"), content.get("imputation")
            if one_hot is not None:
                content["one_hot"] = OneHot.from_metadata(one_hot, names)
            if imputation is not None:
                text = [] if one_hot is None else one_hot["categories"]
                content["imputation"] = Imputation.from_metadata(imputation, names, text)
            scaling = Scaling.from_metadata(content.pop("scaling"), layer_sizes[0])
            target_scaling = content.pop("target_scaling")
            if target_scaling is not None:
                target_scaling = Scaling.from_metadata(target_scaling, 1)
            preparation = cls(**content, scaling=scaling, target_scaling=target_scaling)
            preparation._check_types()
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise FileFormatError(f"{source}: its data preparation is damaged ({error}).") from None
        if (len(preparation.input_columns), preparation.outputs) != (layer_sizes[0], layer_sizes[-1]):
            raise FileFormatError(f"{source}: its data preparation does not fit its layers {tuple(layer_sizes)}.")
        return preparation

    def _check_types(self) -> None:
        """Raise TypeError or ValueError unless everything is what :meth:`learn` makes of it."""
        given = [names for names in (self.class_names, self.column_names) if names is not None]
        for names in (self.feature_names, *given):
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
