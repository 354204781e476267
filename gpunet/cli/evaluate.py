"""``gpunet evaluate``: loss, accuracy and confusions of a model, saying on which rows."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import numpy.typing as npt

from gpunet.cli.arguments import Parser, set_command
from gpunet.cli.confusions import count_confusions, draw_confusions
from gpunet.cli.models import load_model
from gpunet.cli.options import DATA_HELP, MODEL_HELP, add_device, add_table, table_options
from gpunet.cli.output import device_name, print_json, print_lines, print_table, require_rich
from gpunet.cli.progress import telling
from gpunet.cli.scores import Score, score_rows
from gpunet.cli.threads import suitable_threads
from gpunet.data import DataSet, Preparation, load_for_model, split_rows
from gpunet.errors import InvalidValueError, counted
from gpunet.plotting import check_figure_path, panels, save_figure
from gpunet.training.history import format_score

Array = npt.NDArray[Any]


def declare(parser: Parser) -> None:
    """Declare the arguments of ``gpunet evaluate``."""
    set_command(parser, run, "gpunet evaluate runs/digits/model.safetensors digits")
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("data", metavar="DATA", help=DATA_HELP)
    parser.add_argument(
        "--all", action="store_true", help="also the rows it was trained on (default: of the training data, the rest)"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw the confusions of the classes (.png, .svg, .pdf, ...)")
    add_device(parser)
    add_table(parser.add_argument_group("table"))


def run(arguments: argparse.Namespace) -> None:
    """Score a model on data: of the data it was trained on, only the rows held out, unless all are asked for.

    Raises
    ------
    GpunetError, OSError
    """
    require_rich()
    plot = None if arguments.plot is None else check_figure_path(arguments.plot, "plot")
    network = load_model(arguments)
    preparation = Preparation.from_metadata(network.metadata, network.layer_sizes, arguments.model)
    if plot is not None and preparation.class_names is None:
        raise InvalidValueError("--plot: draws the confusions of classes. Expected a classification, got a regression.")
    data = load_for_model(arguments.data, preparation, need_target=True, options=table_options(arguments))
    preparation.check_range(data, network.dtype)
    is_training_data = data.fingerprint() == preparation.fingerprint
    rows = _held_out_rows(data, preparation) if is_training_data and not arguments.all else np.arange(data.rows)
    with telling(), suitable_threads(network, len(rows), network.inference_work(len(rows))):
        score = score_rows(network, preparation, data, rows)
        confusions = count_confusions(network, preparation, data, rows)
    if plot is not None and confusions is not None and preparation.class_names is not None:
        figure, ((axes,),) = panels(1, 1, title="", width=1.5, height=1.5)
        draw_confusions(axes, confusions, preparation.class_names)
        save_figure(figure, plot)
    part = "held-out" if len(rows) < data.rows else "all"
    if arguments.json:
        print_json(
            {"model": arguments.model, "data": arguments.data, "task": preparation.task}
            | score.named()
            | {"rows": score.rows, "part": part, "is_training_data": is_training_data, "seed": preparation.seed}
            | {"class_names": preparation.class_names, "confusion": confusions}
            | {"device": device_name(network.backend)}
        )
        return
    print_lines(_which_rows(data, score, part, is_training_data, preparation.seed))
    print(f"loss {format_score(score.loss)}")
    if preparation.class_names is None or confusions is None:
        print(f"R2 {format_score(score.r2)}, RMSE {score.rmse:.6g}")
        return
    print(f"accuracy {format_score(score.accuracy)}")
    table = [[name, *map(str, row)] for name, row in zip(preparation.class_names, confusions, strict=True)]
    print_table(["true \\ predicted", *preparation.class_names], table)


def _held_out_rows(data: DataSet, preparation: Preparation) -> Array:
    """Return the test rows of the model's training, made again from its seed.

    Raises
    ------
    InvalidValueError
        The split came out differently: this scikit-learn draws otherwise.
    """
    rows = split_rows(data, preparation.seed).test
    if data.fingerprint(rows) != preparation.test_fingerprint:
        import sklearn

        raise InvalidValueError(
            f"{data.name}: scikit-learn {sklearn.__version__} splits these rows otherwise than when the model was "
            "trained, so the rows held out then are not known. Expected the same scikit-learn, or --all."
        )
    return rows


def _which_rows(data: DataSet, score: Score, part: str, is_training_data: bool, seed: int) -> str:
    if part == "held-out":
        return f"{data.name}: {score.rows:,} of {counted(data.rows, 'row')}, those held out from training (seed {seed})"
    if is_training_data:
        return f"{data.name}: all {counted(data.rows, 'row')}, including those that the model was trained on"
    return f"{data.name}: all {counted(data.rows, 'row')}; not the data set that the model was trained on"
