"""``gpunet predict``: one prediction per row, printed or written to a table."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from gpunet.cli.arguments import Parser, set_command
from gpunet.cli.models import load_model, refuse_to_replace
from gpunet.cli.options import DATA_HELP, MODEL_HELP, add_device, add_table, table_options
from gpunet.cli.output import print_json, print_lines
from gpunet.cli.progress import telling
from gpunet.cli.readers import csv_file
from gpunet.cli.scores import naming_rows
from gpunet.cli.streams import printable
from gpunet.cli.threads import suitable_threads
from gpunet.data import Preparation, load_for_model
from gpunet.errors import InvalidValueError
from gpunet.files import write_text

Array = npt.NDArray[Any]


def declare(parser: Parser) -> None:
    """Declare the arguments of ``gpunet predict``."""
    set_command(parser, run, "gpunet predict runs/iris/model.safetensors new.csv --out predictions.csv")
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("data", metavar="DATA", help=f"{DATA_HELP}; the targets may be missing")
    parser.add_argument("--out", type=csv_file, metavar="FILE.csv", help="write a table instead of printing")
    parser.add_argument("--probabilities", action="store_true", help="add a column per class")
    add_device(parser)
    add_table(parser.add_argument_group("table"))


def run(arguments: argparse.Namespace) -> None:
    """Print or write a model's predictions.

    Raises
    ------
    GpunetError, OSError
    """
    if arguments.out is not None:
        refuse_to_replace("--out", arguments.out, arguments.data, arguments.model)
    network = load_model(arguments)
    preparation = Preparation.from_metadata(network.metadata, network.layer_sizes, arguments.model)
    names = preparation.class_names
    if arguments.probabilities and names is None:
        raise InvalidValueError(f"--probabilities: {arguments.model} predicts numbers, which have none.")
    data = load_for_model(arguments.data, preparation, need_target=False, options=table_options(arguments))
    preparation.check_range(data, network.dtype)
    inputs = preparation.inputs_of(data)

    predictions: list[str] | list[float]
    cells: list[str]
    probabilities: Array | None = None
    threads = suitable_threads(network, data.rows, network.inference_work(data.rows))
    with telling(), threads, naming_rows(data, np.arange(data.rows)):
        outputs = network.predict_proba(inputs) if arguments.probabilities else network.predict(inputs)
    if names is None:
        numbers = preparation.numbers(outputs)
        predictions = numbers.tolist()
        cells = list(map(str, predictions))
    elif arguments.probabilities:
        probabilities = outputs
        predictions = cells = [names[label] for label in probabilities.argmax(axis=1)]
    else:
        predictions = cells = [names[label] for label in outputs]

    if arguments.out is not None:
        table = io.StringIO(newline="")
        _write_table(table, cells, names or (), probabilities)
        write_text(arguments.out, table.getvalue())
    if arguments.json:
        content: dict[str, Any] = {"model": arguments.model, "data": arguments.data, "rows": data.rows}
        content["predictions"] = predictions
        if probabilities is not None:
            content |= {"class_names": names, "probabilities": probabilities.tolist()}
        if arguments.out is not None:
            content["out"] = str(arguments.out)
        print_json(content)
    elif arguments.out is not None:
        print_lines(f"{arguments.out}: {data.rows:,} predictions")
    elif probabilities is not None:
        _write_table(sys.stdout, list(map(printable, cells)), map(printable, names or ()), probabilities)
    else:
        print_lines(*cells)


def _write_table(file: TextIO, cells: Sequence[str], names: Iterable[str], probabilities: Array | None) -> None:
    writer = csv.writer(file, lineterminator="\n")
    if probabilities is None:
        writer.writerow(["prediction"])
        writer.writerows([cell] for cell in cells)
        return
    writer.writerow(["prediction", *(f"probability {name}" for name in names)])
    for cell, row in zip(cells, probabilities, strict=True):
        writer.writerow([cell, *(str(np.format_float_positional(value, trim="-")) for value in row)])
