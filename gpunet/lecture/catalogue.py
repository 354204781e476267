"""The experiments in the lecture's order, all that is said of them outside their modules, and how to find one.

The shell's list, the page and docs/lecture.md are made from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from gpunet.errors import InvalidValueError, unknown_name
from gpunet.lecture.experiment import Experiment

EXPERIMENTS = (
    Experiment(
        row="L1",
        name="linear-scores",
        title="The linear scoring function s = Wx + b",
        shows="A linear classifier's rows are templates, and its regions are bounded by straight lines.",
        figure="Ten templates that resemble their digits; ten bars, that of a 4 far the highest; a plane cut "
        "into three by rays",
        code=("layers/linear.py", "layers/activation.py"),
        tests=("test_gradients.py", "lecture/experiments/test_networks.py"),
        data_sets=("digits",),
        is_documented=True,
    ),
    Experiment(
        row="L2",
        name="layers",
        title="Networks of 2, 3 and k layers",
        shows="Layers with an activation between them solve what no linear layer can; width and depth add to that.",
        figure="Two spirals, cut by a straight line, then followed ever closer by bent boundaries; four "
        "clouds; two charts",
        code=("layer_stack.py", "network.py"),
        tests=("test_network.py", "lecture/experiments/test_networks.py"),
        is_documented=True,
    ),
    Experiment(
        row="L3",
        name="activations",
        title="Activation functions and their derivatives",
        shows="The lecture's five activations and later ones, with derivatives that agree with numerical ones.",
        figure="Curves f(s), bent at 0, with dashed slopes, and errors near rounding on a logarithmic axis",
        code=("activations/activation.py", "lecture/derivations/activations.py"),
        tests=("test_activations.py", "lecture/experiments/test_networks.py"),
    ),
    Experiment(
        row="L4",
        name="softmax-loss",
        title="Softmax, cross-entropy and the cost J",
        shows="The gradient is p - y, the shift keeps it finite, and J is the mean loss plus lambda sum ||W_i||^2.",
        figure="Losses over the margin and of growing scores, bars of p, y and the gradient, and of J over lambda",
        code=("layers/softmax_cross_entropy.py", "backends/reference/softmax_cross_entropy.py"),
        tests=("layers/test_softmax_cross_entropy.py", "test_gradients.py", "lecture/experiments/test_networks.py"),
        data_sets=("digits",),
    ),
    Experiment(
        row="L5",
        name="mini-batches",
        title="Mini-batch stochastic gradient descent",
        shows="Sample, forward, backward, update: what a batch's size costs and brings, and how noisy its gradient is.",
        figure="Loss over epochs and over updates by batch size, and the noise of the gradient over the batch size",
        code=("training/fitting.py", "training/loop.py", "training/step.py", "optimizers.py"),
        tests=("training/test_fit.py", "test_optimizers.py", "lecture/experiments/test_networks.py"),
        data_sets=("digits",),
    ),
    Experiment(
        row="L6",
        name="single-example",
        title="Back propagation for one example, with explicit Jacobians",
        shows="The product of the local Jacobians is the gradient that the library computes without them.",
        figure="Seven matrices with their numbers, and differences between gradients on a logarithmic axis",
        code=("lecture/derivations/single_example.py",),
        tests=("lecture/derivations/test_single_example.py", "lecture/experiments/test_derivations.py"),
    ),
    Experiment(
        row="L7",
        name="batch-gradient",
        title="The gradient of a batch, looped and vectorised",
        shows="Loop over examples and aggregated pass for k layers give the same gradient; vectorising saves "
        "operations.",
        figure="One line rises with the examples where the other is level, two rise side by side, and "
        "differences near 1e-15",
        code=("lecture/derivations/batch_gradient.py", "lecture/counting.py"),
        tests=("lecture/derivations/test_batch_gradient.py", "lecture/experiments/test_derivations.py"),
        is_documented=True,
    ),
    Experiment(
        row="L8",
        name="capacity",
        title="Hidden nodes, initial weights and L2",
        shows="More nodes bend the boundary more, its shape depends on the initial weights, and L2 smooths it.",
        figure="Eleven boundaries between two half moons, nearly straight or with bays around single points; "
        "dots of test errors",
        code=("network.py", "training/step.py"),
        tests=("lecture/experiments/test_networks.py",),
        is_documented=True,
    ),
    Experiment(
        row="L9",
        name="perceptron",
        title="The perceptron learns from its mistakes, and makes no more than the margin allows",
        shows="Updates on mistakes separate the classes within Novikoff's bound; averaging helps where nothing "
        "separates.",
        figure="Boundaries after each update, the loss, mistakes under their bound, and accuracy over the epochs",
        code=("classic/perceptron.py",),
        tests=("classic/test_perceptron.py", "lecture/experiments/test_rules.py"),
    ),
    Experiment(
        row="L10",
        name="adaline",
        title="ADALINE converges below a learning rate that the data set, and diverges above",
        shows="The Widrow-Hoff rule reaches the least-squares solution for rates below 2 / lambda_max, and "
        "diverges above.",
        figure="Errors over the epochs that fall or rise with the rate, and the pace over the rate beside theory",
        code=("classic/adaline.py",),
        tests=("classic/test_adaline.py", "lecture/experiments/test_rules.py"),
    ),
    Experiment(
        row="L11",
        name="madaline",
        title="A Madaline learns what no single ADALINE can",
        shows="Madaline Rule II trains a layer of ADALINEs, without a gradient, to learn XOR and the parity of "
        "features.",
        figure="Four clouds divided by one line and by two, errors over the epochs, and accuracy over features",
        code=("classic/madaline.py",),
        tests=("classic/test_madaline.py", "lecture/experiments/test_rules.py"),
    ),
    Experiment(
        row="L12",
        name="delta-rule",
        title="The generalised delta rule finds internal representations",
        shows="Back-propagation as of 1986 learns XOR from most seeds, codes in the encoder, and to detect symmetry.",
        figure="Errors on exclusive or over the epochs, a table of hidden outputs, and bars of mirrored weights",
        code=("classic/delta_rule.py", "layers/squared_error.py"),
        tests=("classic/test_delta_rule.py", "lecture/experiments/test_rules.py"),
    ),
    Experiment(
        row="L13",
        name="pretraining",
        title="Layer-wise pre-training with restricted Boltzmann machines",
        shows="A stack of restricted Boltzmann machines gives deep sigmoid networks a better start than random "
        "weights do.",
        figure="Weights as images, test errors over the epochs and by seed, and digits with reconstructions",
        code=(
            "classic/restricted_boltzmann.py",
            "classic/contrastive_divergence.py",
            "classic/pretraining.py",
            "classic/autoencoder.py",
            "classic/pretrained_classifier.py",
            "lecture/starts.py",
        ),
        tests=(
            "classic/test_restricted_boltzmann.py",
            "classic/test_contrastive_divergence.py",
            "classic/test_pretraining.py",
            "classic/test_autoencoder.py",
            "lecture/experiments/test_pretraining.py",
        ),
        data_sets=("digits", "mnist5k"),
    ),
    Experiment(
        row="L14",
        name="saturation",
        title="Saturated units pass no gradient on",
        shows="How the derivatives of sigmoid and tanh vanish for abs(s) > 5, and with them the gradient of a network.",
        figure="Sigmoid and tanh with derivatives, and gradients over the inputs' scale and over the layers",
        code=("activations/squashing.py", "layer_stack.py"),
        tests=("lecture/experiments/test_activations.py",),
    ),
    Experiment(
        row="L15",
        name="zig-zag",
        title="Inputs that are not zero-centred make gradient descent zig-zag",
        shows="All-positive inputs give all weights of a unit gradients of one sign, so the path to the optimum "
        "zig-zags.",
        figure="A path that turns back on itself across narrow ellipses, a smoother one across circles, and "
        "falling curves",
        code=("activations/squashing.py",),
        tests=("lecture/experiments/test_activations.py",),
        data_sets=("digits",),
        is_documented=True,
    ),
    Experiment(
        row="L16",
        name="activation-cost",
        title="What an activation costs: exp is expensive",
        shows="Operations and nanoseconds per element of each activation, forward and backward.",
        figure="Bars of operations and of nanoseconds per element for five activations, forward and backward",
        code=("activations/rectifiers.py", "lecture/counting.py"),
        tests=("lecture/experiments/test_activations.py",),
        is_timed=True,
    ),
    Experiment(
        row="L17",
        name="dead-units",
        title="Dead ReLU units, and which activation learns fastest",
        shows="ReLU units that die and never update, their remedies, and the epochs each activation needs to learn.",
        figure="Dead units over epochs and learning rates, losses over epochs, epochs to learn over learning rates",
        code=("activations/rectifiers.py", "diagnostics/findings.py"),
        tests=("lecture/experiments/test_activations.py", "diagnostics/test_inspection.py"),
        data_sets=("digits",),
    ),
    Experiment(
        row="L18",
        name="initial-bias",
        title="ReLU: initial biases, learning rates and dead units",
        shows="What slightly positive and negative initial biases do to ReLU networks, and what large learning "
        "rates do.",
        figure="Curves of the loss over the epochs, one for each of five values, at a small and a large step, "
        "and bars before and after",
        code=("network.py",),
        tests=("test_initializers.py", "lecture/experiments/test_initialization.py"),
        data_sets=("digits",),
    ),
    Experiment(
        row="L19",
        name="initialization",
        title="Initial weights of a deep tanh network: activations and gradients before training",
        shows="How zero, small and large random weights and Xavier's pass activations and gradients through ten "
        "layers.",
        figure="Upright histograms that collapse to 0, stick to both ends or keep their spread over ten "
        "layers, and bell curves",
        code=("initializers.py", "diagnostics/inspection.py"),
        tests=("test_initializers.py", "test_initializers_depth.py", "lecture/experiments/test_initialization.py"),
        is_documented=True,
    ),
    Experiment(
        row="L20",
        name="relu-initialization",
        title="Initial weights of a deep ReLU network: Xavier's fade, He's do not",
        shows="How Xavier's weights lose half of the mean square in every ReLU layer, and He's keep it.",
        figure="Upright histograms that shorten from layer to layer on the left and stay alike on the right; "
        "lines that say so",
        code=("initializers.py",),
        tests=("test_initializers_depth.py", "lecture/experiments/test_initialization.py"),
        is_documented=True,
    ),
    Experiment(
        row="L21",
        name="initializers",
        title="The six initialisers that the lecture cites",
        shows="How Glorot's, orthogonal, random-walk, He's, data-dependent and LSUV weights start and train deep "
        "networks.",
        figure="Activations and gradients over the layers, losses over the epochs, for tanh above and ReLU below",
        code=("initializers.py", "data_initializers/data_dependent.py", "data_initializers/lsuv.py"),
        tests=(
            "test_initializers.py",
            "data_initializers/test_data_initializers.py",
            "lecture/experiments/test_initialization.py",
        ),
        data_sets=("digits",),
    ),
    Experiment(
        row="L22",
        name="batch-norm",
        title="What batch normalisation does to the scores",
        shows="The distribution of what enters each activation during training: without batch norm, with, and with"
        " scale and shift.",
        figure="Percentiles of a unit's scores over the epochs, boxes of the layers' scores, drift, and losses",
        code=("layers/batch_norm.py", "backends/reference/batch_norm.py"),
        tests=("layers/test_batch_norm.py", "lecture/experiments/test_batch_norm.py"),
        data_sets=("digits",),
    ),
    Experiment(
        row="L23",
        name="test-time",
        title="Batch norm at test time: running averages",
        shows="Running averages settle, make predictions independent of the batch, and what happens without them.",
        figure="Gaps that settle over batches and lag over epochs, accuracy, and predictions that scatter in "
        "small company",
        code=("layers/batch_norm.py",),
        tests=("layers/test_batch_norm.py", "lecture/experiments/test_batch_norm.py"),
        data_sets=("digits",),
    ),
    Experiment(
        row="L24",
        name="batch-norm-gradient",
        title="The gradient through batch norm, term by term",
        shows="The three terms of dJ/ds_i, four ways to compute their sum, and what happens where one is dropped.",
        figure="Bars of three terms for each example, errors of other ways, and a bias and a scale over steps",
        code=("lecture/derivations/batch_norm.py", "layers/batch_norm.py"),
        tests=("lecture/derivations/test_batch_norm.py", "lecture/experiments/test_batch_norm.py"),
    ),
    Experiment(
        row="L25",
        name="batch-norm-benefits",
        title="What batch norm buys",
        shows="Which depths, learning rates and initial weights learn, without batch norm and with it, and its noise.",
        figure="Eight heat maps: on the left mostly dark squares and crosses, on the right bright up to 20 "
        "layers; two charts",
        code=("layers/batch_norm.py",),
        tests=("lecture/experiments/test_batch_norm.py",),
        data_sets=("digits",),
        is_documented=True,
    ),
)


def find_experiment(name: str, other_words: Iterable[str] = ()) -> Experiment:
    """Return the experiment with a name (``initialization``) or a row (``L19``, in either case).

    Parameters
    ----------
    name : str
    other_words : iterable of str
        What else the caller would have understood, for the error message.

    Raises
    ------
    InvalidValueError
        There is none; the message has the nearest name.
    """
    by_row = {experiment.row: experiment for experiment in EXPERIMENTS}
    if name.upper() in by_row:
        return by_row[name.upper()]
    if re.fullmatch(r"[lL]?\d+", name):
        first, *_, last = by_row
        raise InvalidValueError(f"name: {name!r} is no row of the lecture. Expected {first} to {last}, or a name.")
    by_name = {experiment.name: experiment for experiment in EXPERIMENTS}
    wanted = name.lower().replace("_", "-")
    if wanted not in by_name:
        raise unknown_name("name", name, [*by_name, *other_words])
    return by_name[wanted]
