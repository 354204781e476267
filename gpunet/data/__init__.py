"""Data for the shell commands, data sets by name, tables, scaling, splits, and for using their models in Python."""

from gpunet.data.datasets import DataSet
from gpunet.data.loading import load_for_model, load_for_training
from gpunet.data.named import NAMED_SETS
from gpunet.data.options import TableOptions
from gpunet.data.parquet import ParquetRows
from gpunet.data.preparation import Preparation
from gpunet.data.scaling import Scaling
from gpunet.data.splits import Split, split_rows
from gpunet.data.trained import class_names, scale_inputs

__all__ = [
    "NAMED_SETS",
    "DataSet",
    "ParquetRows",
    "Preparation",
    "Scaling",
    "Split",
    "TableOptions",
    "class_names",
    "load_for_model",
    "load_for_training",
    "scale_inputs",
    "split_rows",
]
