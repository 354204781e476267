"""``gpunet train``: from a data set to a model, its history and its test accuracy."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from gpunet.batches import batch_slices
from gpunet.cli.arguments import Parser, set_command
from gpunet.cli.classes import class_lines, count_classes
from gpunet.cli.comparison import sklearn_score
from gpunet.cli.confusions import count_confusions, draw_confusions
from gpunet.cli.diagnosis import DIAGNOSTICS, DIVERGED_DIAGNOSTICS, RunDiagnosis
from gpunet.cli.folders import check_folder, check_same_names, holds_other_data
from gpunet.cli.options import DATA_HELP, add_device, add_seed, add_table, table_options
from gpunet.cli.output import device_name, print_json, print_lines, print_table, require, require_rich
from gpunet.cli.progress import is_watched, note, telling
from gpunet.cli.readers import folder, names, number, whole_number, widths
from gpunet.cli.scores import Score, score_rows
from gpunet.cli.threads import suitable_threads
from gpunet.data import DataSet, Preparation, Split, load_for_training, split_rows
from gpunet.data.options import STRATEGIES
from gpunet.data.targets import CLASSIFICATION, TASKS
from gpunet.data_initializers import DATA_INITIALIZERS
from gpunet.diagnostics import spread_rows
from gpunet.errors import InvalidValueError, MissingFileError, TrainingDivergedError, counted
from gpunet.layers import Huber, Loss, Quantile, SoftmaxCrossEntropy, SquaredError, get_loss
from gpunet.network import Network
from gpunet.optimizers import OPTIMIZERS, SGD, Optimizer
from gpunet.plotting import check_figure_path, save_figure
from gpunet.schedules import (
    ConstantRate,
    CosineRate,
    CyclicalRate,
    OneCycleRate,
    ReduceOnPlateauRate,
    Schedule,
    StepRate,
)
from gpunet.signals import Interruption
from gpunet.training import Callback, EarlyStopping, EpochRecord, History, ProgressBar, Run, WeightAverage, fit
from gpunet.training.distribution import together
from gpunet.training.history import format_score
from gpunet.validation import PRECISIONS

MODEL, HISTORY, CHECKPOINT = "model.safetensors", "history.json", "checkpoint.safetensors"
# Beside a good model and its history, which a diverged run leaves as they are.
DIVERGED_MODEL, DIVERGED_HISTORY = "diverged.safetensors", "diverged-history.json"
_PARTS = ("train", "validation", "test")
LEARNING_RATE, LEARNING_RATE_SGD, MOMENTUM, L2 = 0.003, 0.1, 0.9, 0.001
# What the initialisers that need data look at.
INITIALIZER_ROWS = 1024

# Each takes the largest learning rate and the steps of the whole run.
SCHEDULES: dict[str, Callable[[float, int], Schedule]] = {
    "constant": lambda rate, steps: ConstantRate(rate),
    "step": lambda rate, steps: StepRate(rate, every=-(-steps // 3)),
    "cosine": CosineRate,
    "cyclical": lambda rate, steps: CyclicalRate(rate / 10, rate, half_cycle=-(-steps // 6)),
    "one_cycle": lambda rate, steps: OneCycleRate(rate, max(steps, 2)),
    "reduce_on_plateau": lambda rate, steps: ReduceOnPlateauRate(rate, patience=3),
}


def declare(parser: Parser) -> None:
    """Declare the arguments of ``gpunet train``."""
    set_command(parser, run, "gpunet train iris.csv --target species")
    parser.add_argument("data", metavar="DATA", help=DATA_HELP)
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no notes")
    parser.add_argument("--compare-sklearn", action="store_true", help="train scikit-learn's MLP on the same rows too")
    parser.add_argument(
        "--diagnose",
        action="store_true",
        help="write figures of activations, gradients, dead and saturated units, and say what looks wrong",
    )

    data = parser.add_argument_group("data")
    data.add_argument("--target", metavar="NAME", help="the target column of a table")
    data.add_argument("--task", choices=TASKS, help="numbers as targets need it (default: classification)")
    add_seed(data, "split, weights and order")
    add_table(data)
    data.add_argument(
        "--categorical",
        type=names,
        default=[],
        metavar="A,B,...",
        help="columns of categories, an input for each; auto: those that hold text",
    )
    data.add_argument(
        "--missing",
        choices=STRATEGIES,
        help="what stands for missing numbers, beside an input that tells where (default: refuse them)",
    )

    network = parser.add_argument_group("network")
    network.add_argument(
        "--layers", type=widths, default=[128, 128], metavar="M1,M2,...", help="hidden widths (default: 128,128)"
    )
    network.add_argument(
        "--activation",
        default="relu",
        metavar="NAME",
        help="relu, leaky_relu(0.1), elu, gelu, silu, mish, tanh, ... (default: relu)",
    )
    network.add_argument("--no-batch-norm", action="store_true", help="biases instead of batch normalisation")
    network.add_argument(
        "--dropout", type=number(0, below=1), default=0.0, metavar="RATE", help="after each hidden layer (default: 0)"
    )
    network.add_argument(
        "--initializer",
        metavar="NAME",
        help="he_normal, xavier_uniform, normal(0.01), orthogonal, random_walk, lsuv, data_dependent, ... "
        "(default: by activation)",
    )
    add_device(network)
    network.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="default: float32")
    network.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="of float32: tf32, bfloat16 and float16 use a GPU's tensor cores (default: float32)",
    )

    training = parser.add_argument_group("training")
    training.add_argument("--epochs", type=whole_number(1), default=30, metavar="N", help="default: 30")
    training.add_argument("--batch-size", type=whole_number(1), default=32, metavar="N", help="default: 32")
    training.add_argument("--optimizer", choices=tuple(OPTIMIZERS), default="adam", help="default: adam")
    training.add_argument(
        "--learning-rate",
        type=number(0),
        metavar="RATE",
        help="the schedule's largest (default: 0.003; 0.1 with sgd)",
    )
    training.add_argument(
        "--loss",
        metavar="NAME",
        help="for numbers squared_error, huber(1.0) or quantile(0.5), in standard deviations of the target; "
        "for classes softmax_cross_entropy (default: by the task)",
    )
    training.add_argument(
        "--label-smoothing",
        type=number(0, below=1),
        metavar="SHARE",
        help="of each row's target that goes to all classes alike (default: 0)",
    )
    training.add_argument("--momentum", type=number(0, below=1), metavar="M", help="of sgd (default: 0.9)")
    training.add_argument(
        "--schedule",
        choices=tuple(SCHEDULES),
        default="cosine",
        help="step: a tenth after each third of the run; cyclical: three cycles, down to a tenth; reduce_on_plateau: a "
        "tenth after four epochs without a better validation loss (default: cosine)",
    )
    training.add_argument(
        "--l2",
        type=number(0),
        metavar="LAMBDA",
        help="adds LAMBDA sum ||W||^2 to the loss (default: 0.001; 0 with adamw, which decays its weights by 0.01)",
    )
    training.add_argument(
        "--patience",
        type=whole_number(1),
        metavar="N",
        help="stop after N epochs without a better validation loss and keep the best weights (default: do not)",
    )
    training.add_argument(
        "--clip-norm", type=number(0, above=True), metavar="NORM", help="the gradient's largest norm (default: none)"
    )
    training.add_argument(
        "--accumulate", type=whole_number(1), default=1, metavar="N", help="batches that make an update (default: 1)"
    )
    training.add_argument(
        "--average",
        type=number(0, below=1),
        metavar="DECAY",
        help="keep the moving average of the weights, such as 0.999 (default: do not)",
    )
    training.add_argument("--class-weight", choices=("balanced",), help="rare classes count more")
    training.add_argument(
        "--shards",
        type=whole_number(1),
        metavar="S",
        help="cut each batch into S parts, for processes that mpiexec starts: the same S gives the same weights with "
        "any number of them (default: one for each)",
    )

    files = parser.add_argument_group("files")
    files.add_argument(
        "--out", type=folder, metavar="DIR", help="for model and history (default: runs/NAME of the data)"
    )
    files.add_argument("--checkpoint", action="store_true", help="write DIR/checkpoint.safetensors after each epoch")
    files.add_argument(
        "--plot", metavar="FILE", help="draw loss, accuracy and the test rows' confusions (.png, .svg, .pdf, ...)"
    )
    files.add_argument(
        "--resume", action="store_true", help="go on from DIR/checkpoint.safetensors, with the same options"
    )


class _Watch(Callback):
    """Keeps the run in sight, so that its history survives an error, and says where there is nothing to do."""

    run: Run | None = None

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def on_fit_start(self, run: Run) -> None:
        self.run = run
        done = len(run.history)
        if self.quiet:
            return
        if run.history.stopped_early:
            note(f"nothing left to do: the run stopped early, after {counted(done, 'epoch')}")
        elif done >= run.epochs:
            note(f"nothing left to do: the checkpoint has {counted(done, 'epoch')}; more with --epochs")


class _EndsAfterBatch(Callback):
    """Lets Ctrl-C wait for the end of a batch, but for the first, which may compile for long."""

    every_step = False

    def __init__(self, interruption: Interruption) -> None:
        self.interruption = interruption

    def on_step_end(self, run: Run) -> None:
        self.interruption.is_awaited = True
        self.interruption.raise_if_come()

    def on_epoch_end(self, run: Run, record: EpochRecord) -> None:
        self.interruption.raise_if_come()

    def on_fit_end(self, run: Run) -> None:
        self.interruption.is_awaited = False


@dataclass(frozen=True)
class _Job:
    """What one call of the command works on."""

    arguments: argparse.Namespace
    data: DataSet
    split: Split
    preparation: Preparation
    network: Network
    folder: Path


def run(arguments: argparse.Namespace) -> None:
    """Train, score and write what the arguments ask for.

    Raises
    ------
    GpunetError, OSError
    KeyboardInterrupt
        Its message says where the checkpoint is.
    """
    company = arguments.company
    ranks = company.join(arguments.shards)
    arguments.quiet |= company.is_silent
    device = arguments.device if ranks is None else ranks.own_device(arguments.device)
    with together(ranks) as described:
        job, replaced = _prepare(arguments, device)
        described |= {"--seed": arguments.seed, "digest of DATA": job.preparation.to_metadata()["data"]["fingerprint"]}
    data, split, network = job.data, job.split, job.network

    for line in () if arguments.quiet else replaced:
        note(line)
    if is_watched(arguments.quiet):
        for line in (_opening(job), *class_lines(count_classes(data, split))):
            note(line)
    batch = min(arguments.batch_size, len(split.train))
    with telling(arguments.quiet), suitable_threads(network, batch, network.training_work(len(split.train))):
        history, diagnosis = _fit(job)
        if company.is_silent:
            return
        network.save(job.folder / MODEL)
        history.save(job.folder / HISTORY)
        if diagnosis is not None:
            diagnosis.write(network, job.folder)
        scores = {name: score_rows(network, job.preparation, data, getattr(split, name)) for name in _PARTS}
        compared = _compare(job) if arguments.compare_sklearn else None
        if arguments.plot is not None:
            _draw(job, history, Path(arguments.plot))
    (_print_json if arguments.json else _print_text)(job, history, scores, compared, diagnosis)


def _prepare(arguments: argparse.Namespace, device: str) -> tuple[_Job, list[str]]:
    """Return what to work on, and what to say of files that are replaced; nothing has been written yet."""
    _require_packages(arguments)
    if arguments.plot is not None:
        check_figure_path(arguments.plot, "plot")
    if arguments.momentum is not None and arguments.optimizer != SGD.name:
        raise InvalidValueError(f"--momentum: only sgd has it. Expected --optimizer sgd, got {arguments.optimizer}.")
    data = load_for_training(
        arguments.data,
        target=arguments.target,
        task=arguments.task,
        options=table_options(arguments),
        categorical=arguments.categorical,
        missing=arguments.missing,
    )
    split = split_rows(data, arguments.seed)
    preparation = Preparation.learn(data, split, arguments.seed)
    network = _network(arguments, preparation, device)
    preparation.check_range(data, network.dtype)
    folder = arguments.out or Path("runs") / data.name
    replaced = []
    if not arguments.company.is_silent:
        check_folder(folder)
        replaced = _what_is_replaced(arguments, folder, preparation)
    if arguments.resume and not (folder / CHECKPOINT).is_file():
        raise MissingFileError(f"--resume: there is no checkpoint {str(folder / CHECKPOINT)!r} to go on from.")
    if arguments.resume:
        check_same_names(folder / CHECKPOINT, preparation)
    return _Job(arguments, data, split, preparation, network, folder), replaced


def _require_packages(arguments: argparse.Namespace) -> None:
    require_rich()
    if arguments.diagnose:
        require("matplotlib", extra="plot", purpose="--diagnose")
    require("safetensors", extra="cli", purpose="writing the model")


def _what_is_replaced(arguments: argparse.Namespace, folder: Path, preparation: Preparation) -> list[str]:
    """Return what to say of the files of others in the folder.

    Raises
    ------
    InvalidValueError
        The folder was not asked for, and holds a model or, where one would be written, a checkpoint of other data.
    """
    model, checkpoint = folder / MODEL, folder / CHECKPOINT
    begins_checkpoint = arguments.checkpoint and not arguments.resume
    for file in (model, checkpoint) if begins_checkpoint else (model,):
        if not holds_other_data(file, preparation):
            continue
        if arguments.out is None:
            raise InvalidValueError(
                f"--out: {file} was trained on other data than {arguments.data}. Expected --out with another folder, "
                f"or with {str(folder)!r} to replace it."
            )
        return [f"{file} was trained on other data and will be replaced"]
    if begins_checkpoint and checkpoint.is_file() and not model.is_file():
        return [f"{checkpoint}, of a run that was interrupted, will be replaced; --resume goes on from it"]
    return []


def _network(arguments: argparse.Namespace, preparation: Preparation, device: str) -> Network:
    network = Network(
        [len(preparation.input_columns), *arguments.layers, preparation.outputs],
        activation=arguments.activation,
        batch_norm=not arguments.no_batch_norm,
        dropout=arguments.dropout,
        initializer=None if _data_initializer(arguments) else arguments.initializer,
        loss=_loss(arguments, preparation.task),
        seed=arguments.seed,
        dtype=arguments.dtype,
        precision=arguments.precision,
        device=device,
    )
    network.metadata = preparation.to_metadata()
    return network


def _loss(arguments: argparse.Namespace, task: str) -> Loss:
    """Return the loss that is asked for, or the task's own.

    Raises
    ------
    InvalidValueError
        It is for another task.
    """
    kinds: list[type[Loss]] = [SoftmaxCrossEntropy] if task == CLASSIFICATION else [SquaredError, Huber, Quantile]
    loss = get_loss(arguments.loss or kinds[0].name)
    if type(loss) not in kinds:
        names = ", ".join(kind.name for kind in kinds)
        raise InvalidValueError(f"--loss: {arguments.loss} is not for a {task}. Expected one of: {names}.")
    if loss.shares_targets:
        raise InvalidValueError(f"--loss: got {arguments.loss}. Expected one quantile: a model predicts one number.")
    if arguments.label_smoothing is None:
        return loss
    if task != CLASSIFICATION or loss.numbers:
        raise InvalidValueError(
            f"--label-smoothing: is for a classification, and said once. Got a {task} with the loss {loss}."
        )
    return SoftmaxCrossEntropy(arguments.label_smoothing)


def _data_initializer(arguments: argparse.Namespace) -> Callable[..., Any] | None:
    """Return the initialiser that needs data, if one is asked for."""
    return DATA_INITIALIZERS.get((arguments.initializer or "").strip().lower())


def _optimizer(arguments: argparse.Namespace, steps: int) -> Optimizer:
    is_sgd = arguments.optimizer == SGD.name
    rate = arguments.learning_rate
    if rate is None:
        rate = LEARNING_RATE_SGD if is_sgd else LEARNING_RATE
    schedule = SCHEDULES[arguments.schedule](rate, steps)
    if is_sgd:
        return SGD(schedule, momentum=MOMENTUM if arguments.momentum is None else arguments.momentum)
    return OPTIMIZERS[arguments.optimizer](schedule)


def _fit(job: _Job) -> tuple[History, RunDiagnosis | None]:
    arguments, data, split, network = job.arguments, job.data, job.split, job.network
    assert data.targets is not None
    inputs = job.preparation.inputs_of(data)
    targets = job.preparation.network_targets(data.targets)
    batches = len(batch_slices(len(split.train), arguments.batch_size, network.minimum_batch))
    updates = arguments.epochs * -(-batches // arguments.accumulate)
    l2 = arguments.l2
    if l2 is None:
        l2 = 0.0 if OPTIMIZERS[arguments.optimizer].decays_weights else L2
    keeps_checkpoint = arguments.checkpoint or arguments.resume
    watch = _Watch(arguments.quiet)
    callbacks: list[Callback] = [watch, _EndsAfterBatch(arguments.interruption)]
    if is_watched(arguments.quiet):
        callbacks.append(ProgressBar())
    diagnosis = None
    if arguments.diagnose:
        diagnosis = RunDiagnosis(inputs[split.train], targets[split.train], arguments.epochs, l2)
        callbacks.append(diagnosis.callback)
    initialize = _data_initializer(arguments)
    if initialize is not None and not arguments.resume:
        initialize(network, inputs[split.train][spread_rows(len(split.train), INITIALIZER_ROWS)])
    try:
        history = fit(
            network,
            inputs[split.train],
            targets[split.train],
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
            optimizer=_optimizer(arguments, updates),
            l2=l2,
            clip_norm=arguments.clip_norm,
            accumulate=arguments.accumulate,
            average=None if arguments.average is None else WeightAverage(arguments.average),
            validation=(inputs[split.validation], targets[split.validation]),
            class_weight=arguments.class_weight,
            early_stopping=None if arguments.patience is None else EarlyStopping(arguments.patience),
            callbacks=callbacks,
            checkpoint=job.folder / CHECKPOINT if keeps_checkpoint else None,
            resume=arguments.resume,
            distributed=arguments.company.ranks,
        )
        arguments.interruption.raise_if_come()
    except TrainingDivergedError as error:
        if arguments.company.is_silent:
            raise
        _keep_what_is_good(job, watch, error, diagnosis)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_interrupted(job, keeps_checkpoint)) from None
    return history, diagnosis


def _keep_what_is_good(
    job: _Job, watch: _Watch, error: TrainingDivergedError, diagnosis: RunDiagnosis | None
) -> NoReturn:
    model = job.network.save(job.folder / DIVERGED_MODEL)
    history = watch.run.history if watch.run is not None else History()
    path = history.save(job.folder / DIVERGED_HISTORY)
    told = ""
    if diagnosis is not None:
        told = f" A diagnosis is in {diagnosis.write(job.network, job.folder, DIVERGED_DIAGNOSTICS)[0]}."
    told_better = TrainingDivergedError(
        f"{error} Those weights are in {model}, the epochs before in {path}.{told}",
        epoch=error.epoch,
        step=error.step,
        layer=error.layer,
        history=history,
    )
    ranks = job.arguments.company.ranks
    raise (told_better if ranks is None else ranks.reported(told_better)) from None


def _interrupted(job: _Job, keeps_checkpoint: bool) -> str:
    checkpoint = job.folder / CHECKPOINT
    if keeps_checkpoint and checkpoint.is_file():
        return f"interrupted; the checkpoint is {checkpoint}, and --resume goes on from it"
    if keeps_checkpoint:
        return "interrupted before the first epoch ended, so there is no checkpoint"
    return "interrupted; nothing was kept (--checkpoint keeps each epoch)"


def _compare(job: _Job) -> Score:
    if is_watched(job.arguments.quiet):
        note("training scikit-learn's MLP on the same rows")
    arguments = job.arguments
    return sklearn_score(
        job.data,
        job.split,
        job.preparation,
        hidden=arguments.layers,
        batch_size=arguments.batch_size,
        epochs=arguments.epochs,
        seed=arguments.seed,
    )


def _draw(job: _Job, history: History, path: Path) -> None:
    confusions = count_confusions(job.network, job.preparation, job.data, job.split.test)
    figure, free = history.figure(beside=0 if confusions is None else 1)
    if confusions is not None and job.preparation.class_names is not None:
        draw_confusions(free[0], confusions, job.preparation.class_names)
        free[0].set_title("test rows", fontsize=10)
    save_figure(figure, path)


def _opening(job: _Job) -> str:
    train, validation, test = (len(getattr(job.split, part)) for part in _PARTS)
    return f"{job.data.name}: {counted(train, 'row')} to train, {validation:,} to validate, {test:,} to test"


def _company(job: _Job) -> str:
    """Return how many ranks trained, and of how many shards, where there are any."""
    ranks = job.arguments.company.ranks
    if ranks is None:
        return ""
    return f", ranks: {ranks.size}" + ("" if ranks.shards is None else f", shards: {ranks.shards}")


def _samples_per_second(history: History, rows: int) -> float:
    """Return training examples over training time, of all epochs."""
    return len(history) * rows / math.fsum(rows / rate for rate in history["samples_per_second"])


def _print_json(
    job: _Job, history: History, scores: dict[str, Score], compared: Score | None, diagnosis: RunDiagnosis | None
) -> None:
    checkpoint, ranks = job.folder / CHECKPOINT, job.arguments.company.ranks
    content: dict[str, Any] = {"data": job.data.name, "task": job.preparation.task}
    for name in reversed(_PARTS):
        content |= scores[name].named(f"{name}_")
    if compared is not None:
        content |= {f"sklearn_{name}": value for name, value in compared.named("test_").items()}
    if diagnosis is not None:
        content |= {"diagnostics": str(job.folder / f"{DIAGNOSTICS}.json"), "findings": diagnosis.findings}
    print_json(
        content
        | {
            "rows": {name: score.rows for name, score in scores.items()},
            "classes": [asdict(one) for one in count_classes(job.data, job.split)] or None,
            "layers": list(job.network.layer_sizes),
            "parameters": job.network.parameter_count,
            "epochs": len(history),
            "best_epoch": history.best_epoch,
            "stopped_early": history.stopped_early,
            "seconds": sum(history["seconds"]),
            "samples_per_second": _samples_per_second(history, len(job.split.train)),
            "ranks": 1 if ranks is None else ranks.size,
            "shards": None if ranks is None else ranks.shards,
            "device": device_name(job.network.backend),
            "dtype": job.network.dtype.name,
            "precision": job.network.precision,
            "seed": job.arguments.seed,
            "model": str(job.folder / MODEL),
            "history": str(job.folder / HISTORY),
            "plot": job.arguments.plot,
            "checkpoint": str(checkpoint) if job.arguments.checkpoint or job.arguments.resume else None,
        }
    )


def _print_text(
    job: _Job, history: History, scores: dict[str, Score], compared: Score | None, diagnosis: RunDiagnosis | None
) -> None:
    test = scores["test"]
    quality, value = ("R2", test.r2) if job.preparation.class_names is None else ("accuracy", test.accuracy)
    rows = [[name, *score.cells()] for name, score in scores.items()]
    if compared is not None:
        rows.append(["test, scikit-learn's MLP", *compared.cells()])
    print_table(["part", "rows", "loss", quality], rows)
    speed = _samples_per_second(history, len(job.split.train))
    stopped = "; validation stopped improving" if history.stopped_early else ""
    best = f"; weights of epoch {history.best_epoch}" if history.best_epoch is not None else ""
    sizes = "-".join(map(str, job.network.layer_sizes))
    device, network = device_name(job.network.backend), job.network
    numbers = network.precision if network.precision != "float32" else network.dtype.name
    print_lines(
        *class_lines(count_classes(job.data, job.split)),
        f"{sizes} network, {counted(network.parameter_count, 'parameter')}, {numbers} on {device}{_company(job)}",
        f"{counted(len(history), 'epoch')} in {sum(history['seconds']):.1f} s, {speed:,.0f} samples/s{stopped}{best}",
        ", ".join(map(str, filter(None, (job.folder / MODEL, job.folder / HISTORY, job.arguments.plot)))),
    )
    if diagnosis is not None:
        print_lines(f"{job.folder / DIAGNOSTICS}.json, figures beside it", *diagnosis.verdict())
    print(f"test {quality} {format_score(value)}")
