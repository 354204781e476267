"""The proof bites: known bugs, planted one at a time in the kernels, and the row of ``gpunet verify`` that finds each.

A bug is an exact replacement of text that must occur once: an edit of a kernel cannot leave a bug here that is planted
nowhere. The same checks pass without the bug.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from gpunet.backends.cuda.sources import names
from tests.backends import test_not_finite as not_finite_tests
from tests.emulation import EmulationError
from tests.helpers.verification import PlantedDevice, verify
from tests.kernels import test_orders as orders


@dataclass(frozen=True)
class Bug:
    """One bug, and how it is found.

    Attributes
    ----------
    name, module : str
        What it is, and in which kernel file.
    old, new : str
        The replacement.
    kernels : str
        Pattern of the kernels that the checks launch: the others of their group are not compiled.
    row : str
        The row of the table that finds it.
    words : tuple of str
        What the names of the checks have that are done here; all of them are, by ``gpunet verify``.
    finding : str
        Pattern of what the check says.
    """

    name: str
    module: str
    old: str
    new: str
    kernels: str
    row: str
    words: tuple[str, ...]
    finding: str = "elements are wrong|gave other bits"

    def __str__(self) -> str:
        return f"{self.module}-{self.name.replace(' ', '_')}"


RELU = r"bias_activation_\w+<float, relu_activation, 1>"
SILU = r"bias_activation_\w+<float, silu_activation, 1>"
SOFTMAX = "softmax_cross_entropy_lanes<float, 16, 1>|total_weight<float>"
SIGMOID = "sigmoid_cross_entropy<float>|total_weight<float>"
SQUARED_ERROR = "squared_error<float>|total_weight<float>"
SOFT = "soft_cross_entropy<float, (int|float)>|total_weight<float>"
HUBER, QUANTILE = SQUARED_ERROR.replace("squared_error", "huber"), SQUARED_ERROR.replace("squared_error", "quantile")
NARROW = "narrow network", ("narrow network", "batch norm, relu", "65 rows, 8 x 16 x 16 x 4, aligned")

BUGS = [
    Bug(
        "no barrier before sums are read",
        "activation",
        "= values[i];\n    __syncthreads();\n",
        "= values[i];\n",
        RELU,
        "bias and activation backward",
        ("bias and activation backward", "float32", "relu, 257 x 10"),
    ),
    Bug(
        "threads outside the matrix leave before a barrier",
        "activation",
        "    A sums[N] = {};\n    if (column < columns) {",
        "    A sums[N] = {};\n    if (column >= columns) return; {",
        RELU,
        "bias and activation backward",
        ("bias and activation backward", "float32", "relu, 257 x 10"),
        "threads have diverged",
    ),
    Bug(
        "one column too many",
        "activation",
        "    if (column >= columns) return;\n    A shift[N];",
        "    if (column > columns) return;\n    A shift[N];",
        RELU,
        "bias and activation forward",
        ("bias and activation forward", "float32", "relu, 257 x 10"),
    ),
    Bug(
        "the last part of the rows is not added",
        "activation",
        "part < gridDim.y; part",
        "part < gridDim.y - 1; part",
        RELU,
        "bias and activation backward",
        ("bias and activation backward", "float32", "relu, 257 x 10"),
    ),
    Bug(
        "another derivative at zero",
        "activation",
        "return y > A(0) ? A(1) : A(0);",
        "return y >= A(0) ? A(1) : A(0);",
        RELU,
        "bias and activation backward",
        ("bias and activation backward", "float32", "relu, 257 x 10"),
    ),
    Bug(
        "the kept input comes without its bias",
        "activation",
        "argument = argument + shift[i];",
        "argument = argument + A(0) * shift[i];",
        SILU,
        "bias and activation backward",
        ("bias and activation backward", "float32", "silu, 33 x 7"),
    ),
    Bug(
        "the derivative forgets that the gate moves",
        "activation",
        "return gate * (A(1) + near * (A(1) - gate));",
        "return gate * (A(1) + A(0) * near);",
        SILU,
        "bias and activation backward",
        ("bias and activation backward", "float32", "silu, 33 x 7"),
    ),
    Bug(
        "minus infinity times a closed gate",
        "activation",
        "return (s < A(-1000) ? A(-1000) : s) / (A(1) + exponential(-s));",
        "return s / (A(1) + exponential(-s));",
        "bias_activation_forward<float, silu_activation, 4>",
        "bias and activation forward",
        ("float32", "silu, NaN"),
        r"out\[0, 2\] is nan",
    ),
    Bug(
        "rows that do not exist deviate from the mean",
        "narrow_pass",
        "numbers[p][q] = own.row + q < rows ? s[p][q] - mean[p] : T(0);",
        "numbers[p][q] = s[p][q] - mean[p];",
        "",
        *NARROW,
    ),
    Bug(
        "blocks count as if they had the same number of rows",
        "narrow_pass",
        "sums[0] += count * one;",
        "sums[0] += (MOMENTS ? T(rows) / T(gridDim.y) : T(1)) * one;",
        "",
        *NARROW,
    ),
    Bug(
        "numbers between two vectors are left as they were",
        "narrow_pass",
        "numbers[end + threadIdx.x] = 0;",
        ";",
        "",
        *NARROW,
    ),
    Bug(
        "the last block's part of the gradient is not added",
        "narrow_pass",
        "block < gridDim.y; ++block) total",
        "block < gridDim.y - 1; ++block) total",
        "",
        *NARROW,
    ),
    Bug(
        "every block moves the running averages",
        "narrow_pass",
        "if (blockIdx.y == 0 && unit < layer(i).outputs)",
        "if (unit < layer(i).outputs)",
        "",
        *NARROW,
    ),
    Bug(
        "the mean of a block's losses",
        "narrow_pass",
        "last.outputs, rows);",
        "last.outputs, own_rows);",
        "",
        *NARROW,
    ),
    Bug(
        "the first layer's gradient takes another layer's input",
        "narrow_pass",
        "multiply<true, true>(own, gradient, outputs_below(i),",
        "multiply<true, true>(own, gradient, outputs,",
        "",
        *NARROW,
    ),
    Bug(
        "batch norm takes y for z",
        "batch_norm",
        "return dy * F::derivative(normalised(s, index), parameter);",
        "return dy * F::derivative(to_arithmetic(output<F>(s, index, parameter)), parameter);",
        "",
        "batch norm backward, striped",
        ("batch norm backward, striped", "silu, 130 x 36"),
    ),
    Bug(
        "the normal distribution has its other half",
        "batch_norm",
        "return probability + near *",
        "return A(1) - probability + near *",
        "",
        "batch norm backward, striped",
        ("batch norm backward, striped", "gelu, 130 x 36"),
    ),
    Bug(
        "the merge forgets the distance of the means",
        "batch_norm",
        "+ A(count) * distance * distance;\n        }\n        shared.totals",
        "+ A(count) * distance * A(0);\n        }\n        shared.totals",
        "",
        "batch norm forward, resident, cluster of 2",
        ("forward", "cluster of 2", "float32", "257 x 36"),
    ),
    Bug(
        "the merge takes parts for equal",
        "batch_norm",
        "shift[0][i] += count * (",
        "shift[0][i] += (A(0) * count + A(rows / chunks)) * (",
        "",
        "batch norm forward, striped",
        ("batch norm forward, striped", "float32", "1025 x 3"),
    ),
    Bug(
        "the last chunk is not added",
        "batch_norm",
        "chunk < (region.is_inside() ? chunks : 0)",
        "chunk < (region.is_inside() ? chunks - 1 : 0)",
        "",
        "batch norm backward, striped",
        ("batch norm backward, striped", "float32", "1025 x 3"),
    ),
    Bug(
        "biased variance in the running average",
        "batch_norm",
        "(squares / A(rows - 1))",
        "(squares / A(rows))",
        "",
        "batch norm forward, resident, cluster of 2",
        ("forward", "cluster of 2", "float32", "257 x 36"),
        r"running_variance\[",
    ),
    Bug(
        "backward takes y before it was rounded",
        "batch_norm",
        "F::derivative(to_arithmetic(output<F>(s, index, parameter)), parameter);",
        "F::derivative(F::forward(normalised(s, index), parameter), parameter);",
        "",
        "batch norm backward, striped",
        ("batch norm backward, striped", "float16", "sides of 0"),
        r"dbeta\[",
    ),
    Bug(
        "blocks of a cluster do not wait for each other",
        "batch_norm",
        "    find_block_statistics(shared, region);\n    sync_tile<CLUSTER>();",
        "    find_block_statistics(shared, region);\n    __syncthreads();",
        "",
        "batch norm forward, resident, cluster of 8",
        ("forward", "cluster of 8", "float32", "1025 x 3"),
    ),
    Bug(
        "dz is kept where dy may be read again",
        "batch_norm",
        "sums[1][i] += dz * own.centred(input, i);",
        "sums[1][i] += dz * own.centred(input, i);"
        " ds[element_offset(row + k * stride, region.column + i, columns)] = to_storage<T>(dz);",
        "",
        "batch norm backward, striped",
        ("batch norm backward, striped", "float32", "in place"),
    ),
    Bug(
        "no barrier between the sums of warps and their reader",
        "batch_norm",
        "lane * N + i] = sum;\n        }\n    __syncthreads();\n",
        "lane * N + i] = sum;\n        }\n",
        "",
        "batch norm forward, striped",
        ("batch norm forward, striped", "float32", "1025 x 3"),
    ),
    Bug(
        "the counter of blocks is left as it is",
        "batch_norm",
        "atomicInc(counter, blocks - 1)",
        "atomicAdd(counter, 1u)",
        "",
        "batch norm forward, striped",
        ("batch norm forward, striped", "float32", "257 x 36"),
        "counters: blocks have left them",
    ),
    Bug(
        "gamma and beta change places",
        "batch_norm",
        "gamma,               // (columns,) or null\n    const arithmetic<T>* __restrict__ beta,  ",
        "beta,               // (columns,) or null\n    const arithmetic<T>* __restrict__ gamma,  ",
        "",
        "batch norm inference",
        ("batch norm inference", "float32", "31 x 33"),
    ),
    Bug(
        "samples share the words of dropout",
        "bernoulli",
        "random_words<SAMPLING>",
        "random_words<DROPOUT>",
        "sample_bernoulli<float, true>",
        "binary samples",
        ("binary", "float32", "seed 0"),
    ),
    Bug(
        "the bound is rounded down",
        "bernoulli",
        "ceilf(probability * 4294967296.0f)",
        "floorf(probability * 4294967296.0f)",
        "sample_bernoulli<float, true>",
        "binary samples",
        ("binary", "float32", "the words"),
    ),
    Bug(
        "a word that equals the bound counts",
        "bernoulli",
        "word < (unsigned int)ceilf",
        "word <= (unsigned int)ceilf",
        "sample_bernoulli<float, true>",
        "binary samples",
        ("binary", "float32", "the words"),
    ),
    Bug(
        "the bound of 1 does not fit a word",
        "bernoulli",
        "if (probability >= 1.0f) return true;",
        "if (probability > 1.0f) return true;",
        "sample_bernoulli<float, true>",
        "binary samples",
        ("binary", "float32", "NaN"),
    ),
    Bug(
        "a double is rounded to a float",
        "bernoulli",
        "(double)word < probability * 4294967296.0",
        "(float)word < (float)probability * 4294967296.0f",
        "sample_bernoulli<double, true>",
        "binary samples",
        ("binary", "float64", "the words"),
    ),
    Bug(
        "the last elements are left over",
        "bernoulli",
        "4 * quad < count; quad",
        "4 * quad + 4 <= count; quad",
        "sample_bernoulli<float, true>",
        "binary samples",
        ("binary", "float32", "31 x 33"),
        "is nan",
    ),
    Bug(
        "a round of Philox is missing",
        "dropout",
        "constexpr int ROUNDS = 10;",
        "constexpr int ROUNDS = 9;",
        "dropout_forward<float, true>",
        "dropout forward",
        ("dropout forward", "float32", "seed 18446744073709551615"),
    ),
    Bug(
        "the upper half of the step is not in the counter",
        "dropout",
        "(unsigned int)(step >> 32) |",
        "0u |",
        "dropout_forward<float, true>",
        "dropout forward",
        ("dropout forward", "float32", "step 1099511627776"),
    ),
    Bug(
        "padding counts as elements",
        "dropout",
        "element / columns * stride + element % columns",
        "element",
        "dropout_forward<__half, true>",
        "dropout forward",
        ("dropout forward", "float16", "19 x 20 of 24"),
    ),
    Bug(
        "padding is not set to zero",
        "rounding",
        "float values[N] = {};",
        "float values[N]; for (int i = 0; i < N; ++i) values[i] = 1.0f;",
        "round_rows<__half, 8>",
        "rows rounded to half precision",
        ("rows rounded", "float16", "65 x 10 x 16"),
    ),
    Bug(
        "rows of the source are taken for aligned",
        "rounding",
        "columns % READ == 0 && is_aligned",
        "is_aligned",
        "round_rows<__half, 8>",
        "rows rounded to half precision",
        ("rows rounded", "float16", "257 x 9 x 16"),
        "misaligned address|elements are wrong|outside",
    ),
    Bug(
        "the factor is forgotten",
        "rounding",
        "pack.set(i, scale * values[i])",
        "pack.set(i, (scale > 0 ? 1.0f : 0.0f) * values[i])",
        "round_rows<__half, 8>",
        "rows rounded to half precision",
        ("rows rounded", "float16", "scaled"),
    ),
    Bug(
        "all weights are the first",
        "rounding",
        "blockIdx.y * TABLE_COLUMNS",
        "0 * TABLE_COLUMNS",
        "round_rows<__half, 8>",
        "weights rounded to half precision",
        ("weights rounded", "float16", "padded to 8"),
    ),
    Bug(
        "one of four gradients is tested",
        "loss_scale",
        "if (!is_finite(values.values[i])) *wrong",
        "if (i == 0 && !is_finite(values.values[i])) *wrong",
        "unscale_gradients<4>",
        "loss scale",
        ("loss scale", "1023 gradients, NaN at 511"),
    ),
    Bug(
        "gradients stay scaled",
        "loss_scale",
        "values.values[i] /= scale;",
        "values.values[i] *= scale > 0 ? 1.0f : 0.0f;",
        "unscale_gradients<4>",
        "loss scale",
        ("loss scale", "1023 gradients"),
    ),
    Bug(
        "a loss that is not finite passes",
        "loss_scale",
        "wrong == 0.0f && is_finite(loss[0])",
        "wrong == 0.0f",
        "unscale_gradients<4>",
        "loss scale",
        ("loss scale", "loss inf"),
    ),
    Bug(
        "the scale grows a step late",
        "loss_scale",
        "good >= (float)interval",
        "good > (float)interval",
        "unscale_gradients<4>",
        "loss scale",
        ("loss scale", "at the end of the interval"),
    ),
    Bug(
        "an overflow does not end the finite steps in a row",
        "loss_scale",
        "is_good ? scale[1] + 1.0f : 0.0f",
        "scale[1] + 1.0f",
        "unscale_gradients<4>",
        "loss scale",
        ("loss scale", "one inf"),
    ),
    Bug(
        "16 bytes at an address that is no multiple of 16",
        "dropout",
        "if (ALIGNED && first + 4 <= count) {\n            const long long place = place_of(first, columns, stride);\n"
        "            Quad<T> values;\n            values.load(x + place);",
        "if (first + 4 <= count) {\n            const long long place = place_of(first, columns, stride);\n"
        "            Quad<T> values;\n            values.load(x + place);",
        "dropout_forward<float, false>",
        "dropout forward",
        ("dropout forward", "float32", "x past alignment"),
        "misaligned address",
    ),
    Bug(
        "the rest of the row is one word short",
        "gather",
        "for (; word < array.words; word += step)",
        "for (; word < array.words - 1; word += step)",
        "gather_batch",
        "rows of a batch",
        ("rows", "float32", "45 x 33"),
        "is nan",
    ),
    Bug(
        "one word too many",
        "gather",
        "for (; word < array.words; word += step)",
        "for (; word <= array.words; word += step)",
        "gather_batch",
        "rows of a batch",
        ("rows", "float32", "45 x 33"),
    ),
    Bug(
        "every batch is the first of the order",
        "gather",
        "if (first != nullptr) index += *first;",
        "",
        "gather_batch",
        "rows of a batch",
        ("rows", "float32", "from the row 1 "),
    ),
    Bug(
        "weights go on to change after a loss that is lost",
        "training",
        "if (!is_finite(before)) loss[0]",
        "if (false) loss[0]",
        "count_step<float>",
        "count of a step",
        ("count of a step", "float32", "step 1, "),
        r"loss\[0\]",
    ),
    Bug(
        "the learning rate of the step before",
        "training",
        "table[updates * scalar_count + i]",
        "table[(updates == 0 ? 0 : updates - 1) * scalar_count + i]",
        "count_step<float>",
        "count of a step",
        ("count of a step", "float32", "step 1, 3 numbers"),
    ),
    Bug(
        "a skipped step counts as an update",
        "training",
        "skipped == nullptr ? number : number - (long long)*skipped",
        "number",
        "count_step<float>",
        "count of a step",
        ("count of a step", "float32", "as many skipped"),
    ),
    Bug(
        "a loss counts no step",
        "squared_error",
        "step.add(loss, rows);",
        "",
        SQUARED_ERROR,
        "squared error",
        ("squared error", "float32", "2 x 3, bias, counted"),
    ),
    Bug(
        "every block counts the step",
        "squared_error",
        "if (!is_last_block(ticket, gridDim.x)) return;",
        "if (threadIdx.x == 0) step.add(loss, rows);\n    if (!is_last_block(ticket, gridDim.x)) return;",
        SQUARED_ERROR,
        "squared error",
        ("squared error", "float32", "37 x 20", "counted as step 0"),
    ),
    Bug(
        "a step is counted before its loss is known",
        "squared_error",
        "loss[1] = total;\n        step.add(loss, rows);",
        "const A known = loss[0]; loss[0] = A(0); step.add(loss, rows); loss[0] = known; loss[1] = total;",
        SQUARED_ERROR,
        "squared error",
        ("squared error", "float32", "2 x 3, bias, counted"),
    ),
    Bug(
        "windows of every epoch begin with the same place",
        "training",
        "(place[2] + number / every) % 2",
        "number / every % 2",
        "keep_weights<float, .*>",
        "good weights",
        ("good weights", "float32", "after 5 windows"),
    ),
    Bug(
        "weights are kept that gave no finite loss",
        "training",
        "if (number > 0 && !is_finite(losses[2 * (number - 1)])) return;",
        "",
        "keep_weights<float, .*>",
        "good weights",
        ("good weights", "float32", "after a loss of nan"),
    ),
    Bug(
        "biases are penalised",
        "training",
        "if (first + i < weight_count) *squares",
        "*squares",
        "summarize<float, .*>",
        "finite numbers and penalty",
        ("finite numbers", "float32", "1023 parameters"),
    ),
    Bug(
        "every batch counts the same",
        "training",
        "weight / (before + weight)",
        "T(0.5)",
        "accumulate_gradients<float, .*>",
        "mean gradient of batches",
        ("mean gradient", "float32", "1023 parameters, later batch"),
    ),
    Bug(
        "the first batch finds those of the update before",
        "training",
        "is_first ? T(0) : mean[1]",
        "mean[1]",
        "accumulate_gradients<float, .*>",
        "mean gradient of batches",
        ("mean gradient", "float32", "1023 parameters, first batch"),
    ),
    Bug(
        "the last batch leaves the mean beside the gradients",
        "training",
        "is_last ? gradients : accumulated",
        "accumulated",
        "accumulate_gradients<float, .*>",
        "mean gradient of batches",
        ("mean gradient", "float32", "1023 parameters, later batch, the last"),
        "only to be read",
    ),
    Bug(
        "the mean moves on before every block has read it",
        "training",
        "if (!is_last_block(ticket, gridDim.x) || threadIdx.x != 0) return;\n    mean[0]",
        "if (blockIdx.x != 0 || threadIdx.x != 0) return;\n    mean[0]",
        "accumulate_gradients<float, .*>",
        "mean gradient of batches",
        ("mean gradient", "float32", "40000 parameters, later batch"),
    ),
    Bug(
        "the first update is averaged with what was there",
        "training",
        "averaged_parameters, share, before == 0}",
        "averaged_parameters, share, false}",
        "average_weights<float, .*>",
        "average of weights",
        ("average of weights", "float32", "0 updates before"),
    ),
    Bug(
        "running averages are not averaged",
        "training",
        "for_each_element<N>(state_count,",
        "for_each_element<N>(0LL,",
        "average_weights<float, .*>",
        "average of weights",
        ("average of weights", "float32", "1023 parameters, 64 averages"),
    ),
    Bug(
        "a step without update is averaged",
        "training",
        "    if (!is_finite(loss[0])) return;\n    const long long before",
        "    const long long before",
        "average_weights<float, .*>",
        "average of weights",
        ("average of weights", "float32", "loss nan"),
    ),
    Bug(
        "the batches of a skipped step count as one",
        "loss_scale",
        "scale[3] += (float)batches",
        "scale[3] += 1.0f",
        "unscale_gradients<4>",
        "loss scale",
        ("loss scale", "three batches"),
    ),
    Bug(
        "infinity passes for a number",
        "training",
        "if (!is_finite(value)) *wrong += 1;",
        "if (value != value) *wrong += 1;",
        "summarize<float, .*>",
        "finite numbers and penalty",
        ("finite numbers", "float32", "3 not finite"),
    ),
    Bug(
        "the last of equal outputs counts",
        "score",
        "is_equal && column < other_column",
        "is_equal && column > other_column",
        "score_classes<float>",
        "right classes",
        ("right classes", "float32", "7 x 10"),
    ),
    Bug(
        "NaN is below all numbers",
        "score",
        "one != one ? other == other : one > other",
        "one > other",
        "score_classes<float>",
        "right classes",
        ("right classes", "float32", "1100 x 10"),
    ),
    Bug(
        "a target of a half is true",
        "score",
        "to_arithmetic(targets[i]) > A(0.5)",
        "to_arithmetic(targets[i]) >= A(0.5)",
        "score_switches<float>",
        "right switches",
        ("right switches", "float32", "7 x 10"),
    ),
    Bug(
        "targets begin with their second block",
        "gather",
        "        block -= feature_blocks;",
        "        block -= feature_blocks - 1;",
        "gather_batch",
        "rows of a batch",
        ("rows", "float32", "45 x 33, targets and weights"),
        r"batch_targets\[",
    ),
    Bug(
        "weights are taken for targets",
        "gather",
        "array = {weights, batch_weights,",
        "array = {targets, batch_weights,",
        "gather_batch",
        "rows of a batch",
        ("rows", "float32", "45 x 33, targets and weights"),
        r"batch_weights\[",
    ),
    Bug(
        "weights end one later",
        "optimizer",
        "has_term = first + i < weight_count",
        "has_term = first + i <= weight_count",
        "sgd_step<float, .*, true>",
        "SGD step",
        ("SGD", "float32", "1023 parameters", "momentum 0.9"),
        r"\[500\]",
    ),
    Bug(
        "the last element is left over",
        "optimizer",
        "thread < count - whole * N)",
        "thread < count - whole * N - 1)",
        "sgd_step<float, .*, true>",
        "SGD step",
        ("SGD", "float32", "1023 parameters", "momentum 0.9"),
        r"\[1022\]",
    ),
    Bug(
        "beta_1 and beta_2 change places",
        "optimizer",
        "T decay, T beta_1, T beta_2,",
        "T decay, T beta_2, T beta_1,",
        "adam_step<float, ",
        "Adam step",
        ("Adam", "float32", "64 parameters"),
    ),
    Bug(
        "no barrier before the sums of warps are added",
        "optimizer",
        "    __syncthreads();\n    value = scratch[0];",
        "    value = scratch[0];",
        "clip_factor<float, ",
        "clipping factor",
        ("clipping", "float32", "40000 parameters"),
    ),
    Bug(
        "lanes of one row are taken for those of another",
        "softmax_cross_entropy",
        "sum = warp_reduce<Sum>(sum, ROWS);",
        "sum = warp_reduce<Sum>(sum, LANES);",
        SOFTMAX,
        "softmax cross entropy",
        ("softmax", "float32", "130 x 10"),
    ),
    Bug(
        "the sign of the logit is lost",
        "sigmoid_cross_entropy",
        "negative ? complement * e - target",
        "false ? complement * e - target",
        SIGMOID,
        "sigmoid cross entropy",
        ("sigmoid cross", "float32", "257 x 10"),
    ),
    Bug(
        "the logarithm loses small numbers",
        "sigmoid_cross_entropy",
        "return log1pf(value);",
        "return logf(1.0f + value);",
        SIGMOID,
        "sigmoid cross entropy",
        ("sigmoid cross", "float32", "logit 30,"),
        r"loss\[0\]",
    ),
    Bug(
        "the gradient is a difference of nearly equal numbers",
        "sigmoid_cross_entropy",
        "complement - target * e) / (A(1) + e)",
        "A(1) / (A(1) + e) - target)",
        SIGMOID,
        "sigmoid cross entropy",
        ("sigmoid cross", "float32", "logit 30, target 1"),
        "doutputs",
    ),
    Bug(
        "exp overflows",
        "sigmoid_cross_entropy",
        "exponential(-absolute(output))",
        "exponential(-output)",
        SIGMOID,
        "sigmoid cross entropy",
        ("sigmoid cross", "float32", "257 x 10"),
    ),
    Bug(
        "the loss is not weighted",
        "sigmoid_cross_entropy",
        "part += weight * (linear",
        "part += A(1) * (linear",
        SIGMOID,
        "sigmoid cross entropy",
        ("sigmoid cross", "float32", "257 x 10, weights"),
    ),
    Bug(
        "weights by column",
        "squared_error",
        "weights[i / columns]",
        "weights[i % columns]",
        SQUARED_ERROR,
        "squared error",
        ("squared", "float32", "257 x 10, weights"),
    ),
    Bug(
        "parts of the last blocks are not added",
        "squared_error",
        "block < gridDim.x; block",
        "block < blockDim.x && block < gridDim.x - 1; block",
        SQUARED_ERROR,
        "squared error",
        ("squared", "float32", "257 x 10, weights"),
    ),
    Bug(
        "the bias of another column",
        "squared_error",
        "output_at(outputs, i, bias, (int)(i % columns))",
        "output_at(outputs, i, bias, (int)(i % rows))",
        SQUARED_ERROR,
        "squared error",
        ("squared", "float32", "33 x 1, bias"),
    ),
    Bug(
        "the label's weight is not taken out of the classes'",
        "soft_cross_entropy",
        "smoothing / (A(columns) * own)",
        "smoothing / A(columns)",
        SOFT,
        "soft cross entropy",
        ("soft cross", "float32", "257 x 10"),
    ),
    Bug(
        "smoothing leaves a row more than it has",
        "soft_cross_entropy",
        "kept(A(1) - smoothing),\n          even",
        "kept(A(1)),\n          even",
        SOFT,
        "soft cross entropy",
        ("soft cross", "float32", "64 x 64"),
    ),
    Bug(
        "a gradient as if the classes of a row counted 1 together",
        "soft_cross_entropy",
        "scale = mass / sum",
        "scale = A(1) / sum",
        SOFT,
        "soft cross entropy",
        ("soft cross", "float32", "64 x 64"),
    ),
    Bug(
        "lanes keep what they have of a row's probabilities",
        "soft_cross_entropy",
        "mass = warp_reduce<Sum>(mass);",
        "",
        SOFT,
        "soft cross entropy",
        ("soft cross", "float32", "2 x 31"),
    ),
    Bug(
        "the last of equal probabilities is the label",
        "score",
        "return is_above || (is_equal && column < other_column);",
        "return is_above || (is_equal && column > other_column);",
        "score_soft_classes<float>",
        "most probable classes",
        ("most probable classes", "float32", "130 x 3"),
    ),
    Bug(
        "errors below are not limited",
        "huber",
        "error < -delta ? -delta : error;",
        "error;",
        HUBER,
        "huber",
        ("huber", "float32", "64 x 64"),
    ),
    Bug(
        "the loss of large errors is half the limit times the error",
        "huber",
        "(gradient * (error - gradient / A(2)))",
        "(gradient * error / A(2))",
        HUBER,
        "huber",
        ("huber", "float32", "64 x 64"),
        r"loss\[0\]",
    ),
    Bug(
        "the quantile of the first output is that of all",
        "quantile",
        "levels[column * level_stride]",
        "levels[0]",
        QUANTILE,
        "quantile",
        ("quantile", "float32", "64 x 64"),
    ),
    Bug(
        "outputs above and below are exchanged",
        "quantile",
        "error > A(0) ? A(1) - level : error < A(0) ? -level : error",
        "error > A(0) ? level : error < A(0) ? level - A(1) : error",
        QUANTILE,
        "quantile",
        ("quantile", "float32", "257 x 10"),
    ),
    Bug(
        "an output that is right is pulled down",
        "quantile",
        "error > A(0) ? A(1) - level",
        "error >= A(0) ? A(1) - level",
        QUANTILE,
        "quantile",
        ("quantile", "float32", "64 x 64"),
    ),
    Bug(
        "the outputs are left without their bias",
        "sigmoid_cross_entropy",
        "    outputs[offset] = biased;\n",
        "",
        SIGMOID,
        "sigmoid cross entropy",
        ("sigmoid cross", "float32", "257 x 10, bias"),
        r"outputs\[",
    ),
    Bug(
        "rows beyond the last add the bias to it again",
        "softmax_cross_entropy",
        "held[i] = is_row && column < columns ?",
        "held[i] = column < columns ?",
        SOFTMAX,
        "softmax cross entropy",
        ("softmax", "float32", "257 x 10, bias"),
    ),
    Bug(
        "the rows of one strip are not added",
        "softmax_cross_entropy",
        "for (int thread = threadIdx.x + lanes;",
        "for (int thread = threadIdx.x + 2 * lanes;",
        SOFTMAX,
        "softmax cross entropy",
        ("softmax", "float32", "257 x 10, bias"),
        r"dbias\[",
    ),
    Bug(
        "the columns of the second round are those of the first",
        "squared_error",
        "const int column = first + threadIdx.x % lanes;",
        "const int column = threadIdx.x % lanes;",
        SQUARED_ERROR,
        "squared error",
        ("squared", "float32", "5 x 1023, bias"),
        r"dbias\[",
    ),
]


@pytest.mark.parametrize("bug", BUGS, ids=str)
def test_a_planted_bug_is_found(bug: Bug) -> None:
    assert verify(PlantedDevice(None, bug.kernels), *bug.words).is_right
    failure = verify(PlantedDevice((bug.old, bug.new), bug.kernels, bug.module), *bug.words).first_failure
    assert failure is not None
    assert failure.check.what == bug.row
    assert re.search(bug.finding, failure.text), failure.text


@dataclass(frozen=True)
class OtherBug:
    """A bug that ``check``, a test of another file, finds; else as :class:`Bug`."""

    name: str
    module: str
    old: str
    new: str
    kernels: str
    check: Callable[[PlantedDevice], None]
    finding: str = "elements are wrong|gave other bits|Not equal to tolerance|Arrays are not equal"

    __str__ = Bug.__str__


def not_finite(operation: str, value: float) -> Callable[[PlantedDevice], None]:
    return lambda device: not_finite_tests.check(device, operation, value)


ENDLESS = "wait in loops for what no other thread brings"


def in_order(name: str) -> Callable[[PlantedDevice], None]:
    return lambda device: orders.in_every_order(device, orders.OPERATIONS[name])


def stripes(device: PlantedDevice) -> None:
    orders.batch_norm_in_every_order(device, *orders.STRIPES)


def clusters(device: PlantedDevice) -> None:
    orders.batch_norm_in_every_order(device, *orders.CLUSTERS)


OTHER_BUGS = [
    OtherBug(
        "no barrier before blocks meet",
        "narrow_pass",
        "    __threadfence();\n    __syncthreads();\n    if (threadIdx.x == 0) {\n        atomicInc",
        "    __threadfence();\n    if (threadIdx.x == 0) {\n        atomicInc",
        "",
        in_order("narrow network"),
    ),
    OtherBug(
        "no block waits for the others",
        "narrow_pass",
        "while (*reinterpret_cast<volatile unsigned int*>(counter) < gridDim.y) __nanosleep(20);",
        "",
        "",
        in_order("narrow network"),
    ),
    OtherBug(
        "a block's threads do not wait for the one that waits",
        "narrow_pass",
        "        work();\n    }\n    __syncthreads();\n",
        "        work();\n    }\n",
        "",
        in_order("narrow network"),
    ),
    OtherBug(
        "blocks that go are not counted",
        "narrow_pass",
        "        __threadfence();\n        atomicInc(counter, 2 * gridDim.y - 1);\n",
        "        __threadfence();\n",
        "",
        in_order("narrow network"),
        "blocks have left them other than 0",
    ),
    OtherBug(
        "weights are overwritten while others multiply them",
        "narrow_pass",
        "            __syncthreads();\n            load_weights<0>(i - 1);",
        "            load_weights<0>(i - 1);",
        "",
        in_order("narrow network without batch norm"),
    ),
    OtherBug(
        "no barrier before the parts of a sum are added",
        "narrow_pass",
        "scratch[THREADS + threadIdx.x] = sums[1];\n    __syncthreads();\n",
        "scratch[THREADS + threadIdx.x] = sums[1];\n",
        "",
        in_order("narrow network"),
    ),
    OtherBug(
        "a block of a cluster ends while others read its memory",
        "batch_norm",
        "sync_tile<CLUSTER>();  // results is complete",
        "__syncthreads();  // results is complete",
        "",
        clusters,
        "of the cluster has ended",
    ),
    OtherBug(
        "parts of the rows share a ticket with those of other columns",
        "activation",
        "is_last_block(tickets + blockIdx.x, gridDim.y)",
        "is_last_block(tickets, gridDim.y)",
        RELU,
        in_order("bias gradient"),
    ),
    OtherBug(
        "no barrier before the ticket of the last block",
        "activation",
        "    __threadfence();\n    __syncthreads();\n    if (thread_in_block() == 0) arrived_before",
        "    __threadfence();\n    if (thread_in_block() == 0) arrived_before",
        RELU,
        in_order("bias gradient"),
    ),
    OtherBug(
        "no barrier after the wait for a tile",
        "batch_norm",
        "READY, 0u);\n    }\n    __syncthreads();\n",
        "READY, 0u);\n    }\n",
        "",
        stripes,
    ),
    OtherBug(
        "no barrier before a tile is announced",
        "batch_norm",
        "    __threadfence();\n"
        "    __syncthreads();\n    if (thread_in_block() == 0) atomicExch(tile_counters + READY, 1u);",
        "    __threadfence();\n    if (thread_in_block() == 0) atomicExch(tile_counters + READY, 1u);",
        "",
        stripes,
    ),
    OtherBug(
        "nobody waits for a tile",
        "batch_norm",
        "while (*reinterpret_cast<volatile unsigned int*>(tile_counters + READY) == 0) __nanosleep(100);",
        "",
        "",
        stripes,
    ),
    OtherBug(
        "a tile is announced before its sums are written",
        "batch_norm",
        "    sum_over_block(merged, shared);\n",
        "    sum_over_block(merged, shared);\n    announce_tile(tile_counters);\n",
        "",
        stripes,
    ),
    OtherBug(
        "the first block to come by clears the mark",
        "batch_norm",
        "if (atomicInc(tile_counters + PASSED, chunks - 1) == chunks - 1)",
        "if (atomicInc(tile_counters + PASSED, chunks - 1) == 0)",
        "",
        stripes,
        ENDLESS,
    ),
    OtherBug(
        "blocks take their number for the order in which they start",
        "batch_norm",
        "ticket[0] = atomicInc(counters, gridDim.x - 1);",
        "ticket[0] = blockIdx.x;",
        "",
        stripes,
        ENDLESS,
    ),
    OtherBug(
        "no barrier between reduction and reduction",
        "softmax_cross_entropy",
        "scratch[warp]);\n    __syncthreads();\n",
        "scratch[warp]);\n",
        "softmax_cross_entropy_block<float, true>|total_weight<float>",
        in_order("rows of a block"),
    ),
    OtherBug(
        "a block takes its ticket before it has written",
        "squared_error",
        "    if (threadIdx.x == 0) partial[blockIdx.x] = block_sum;\n"
        "    if (!is_last_block(ticket, gridDim.x)) return;",
        "    const bool is_last = is_last_block(ticket, gridDim.x);\n"
        "    if (threadIdx.x == 0) partial[blockIdx.x] = block_sum;\n    if (!is_last) return;",
        SQUARED_ERROR,
        in_order("mean of losses"),
    ),
    OtherBug(
        "no barrier before one thread adds what the others have of a column of the bias",
        "squared_error",
        "        sums[threadIdx.x] = sum;\n        __syncthreads();",
        "        sums[threadIdx.x] = sum;",
        SQUARED_ERROR,
        in_order("gradient of a bias"),
    ),
    OtherBug(
        "NaN is dropped by chance",
        "dropout",
        "to_storage<T>(to_arithmetic(x[place]) * (kept ? scale : arithmetic<T>(0)))",
        "to_storage<T>(kept ? to_arithmetic(x[place]) * scale : arithmetic<T>(0))",
        "dropout_forward<double",
        not_finite("dropout_forward", float("nan")),
    ),
    OtherBug(
        "the gradient of a dropped infinity is 0",
        "dropout",
        "values.get(i) * (bytes >> 8 * i & 1u ? scale : arithmetic<T>(0))",
        "bytes >> 8 * i & 1u ? values.get(i) * scale : arithmetic<T>(0)",
        "dropout_backward<double",
        not_finite("dropout_backward", float("inf")),
    ),
    OtherBug(
        "one NaN in the gradient is in all of it after clipping",
        "optimizer",
        "factor == factor ? factor : T(0)",
        "factor",
        "clip_factor<double",
        not_finite("clip_factor", float("nan")),
    ),
    OtherBug(
        "the norm of large gradients is infinite",
        "optimizer",
        "SCALE = 0x1p-600",
        "SCALE = 0x1p-2",
        "clip_factor<double",
        lambda device: not_finite_tests.test_gradients_whose_squares_overflow_are_clipped_all_the_same(device, 3),
    ),
    OtherBug(
        "no L2 term times infinity",
        "optimizer",
        " && !(WITHOUT_TERM && decay == T(0))",
        "",
        "adam_step<double",
        not_finite("adam_step", float("inf")),
    ),
]


@pytest.mark.parametrize("bug", OTHER_BUGS, ids=str)
def test_a_bug_that_another_test_finds(bug: OtherBug) -> None:
    many = {} if bug.module != "batch_norm" else {"multiprocessor_count": 132}
    bug.check(PlantedDevice(None, bug.kernels, **many))
    with pytest.raises((AssertionError, EmulationError), match=bug.finding):
        bug.check(PlantedDevice((bug.old, bug.new), bug.kernels, bug.module, **many))


def test_every_kernel_file_has_a_planted_bug() -> None:
    assert {bug.module for bug in BUGS} == set(names())
