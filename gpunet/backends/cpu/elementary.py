"""Elementary functions without branches, so that loops over them are vectorised: Numba alone would call the C library.

References
----------
The polynomials are those of Moshier's Cephes library (expf.c, exp.c, tanhf.c, tanh.c, unity.c).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

# Not "nnan" and "ninf": NaN and infinity mean something. Not "afn": the C library's functions stay what they are.
# Division by zero is infinite or NaN: an exception could not leave a kernel, and looking for it stops vectorisation.
ELEMENTWISE = {"fastmath": {"contract", "nsz", "arcp"}, "error_model": "numpy"}
# Sums in another order, to be vectorised; also other products, which may overflow where the ones written do not.
OPTIONS = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy"}
# For what kernels call: a function of its own would be found, where it has just been compiled, in another version than
# in the kernel on disk, with sums in another order.
INLINED = {**OPTIONS, "forceinline": True}
_LOG2_E = 1.4426950408889634
# ln 2 in two parts; products of the first with a small integer are exact.
_LN2_HIGH = {types.float32: 0.693359375, types.float64: 6.93145751953125e-1}
_LN2_LOW = {types.float32: -2.12194440e-4, types.float64: 1.42860682030941723212e-6}
# Below and above these, exp is 0 and infinite.
_EXP_RANGE = {types.float32: (-104.0, 89.0), types.float64: (-746.0, 710.0)}


@intrinsic
def select(typing_context: Any, condition: Any, yes: Any, no: Any) -> Any:
    """Return ``yes`` or ``no``; both have been evaluated."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(args[0], args[1], args[2])

    return yes(types.boolean, yes, yes), generate


@intrinsic
def fused_multiply_add(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a b + c, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    return c(c, c, c), generate


@intrinsic
def _nearest_integer(typing_context: Any, x: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = args[0].type
        function = ir.FunctionType(kind, [kind])
        name = f"llvm.rint.{'f32' if kind == ir.FloatType() else 'f64'}"
        return builder.call(cgutils.get_or_insert_function(builder.module, function, name), args)

    return x(x), generate


@intrinsic
def _power_of_two(typing_context: Any, exponent: Any) -> Any:
    """Return 2^n for an n, of a floating type, whose power is a normal number."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = args[0].type
        integer, bits, bias = (ir.IntType(32), 23, 127) if kind == ir.FloatType() else (ir.IntType(64), 52, 1023)
        number = builder.add(builder.fptosi(args[0], integer), ir.Constant(integer, bias))
        return builder.bitcast(builder.shl(number, ir.Constant(integer, bits)), kind)

    return exponent(exponent), generate


def exponential(x: Any) -> Any:
    """Return exp(x) within two units in the last place."""
    raise NotImplementedError


@overload(exponential, jit_options=OPTIONS, inline="never")
def _exponential(x: Any) -> Any:
    A = np.float32 if x == types.float32 else np.float64
    low, high = map(A, _EXP_RANGE[x])
    ln2_high, ln2_low, log2_e = A(-_LN2_HIGH[x]), A(-_LN2_LOW[x]), A(_LOG2_E)
    half, one, two = A(0.5), A(1), A(2)
    if x == types.float32:

        @njit(**INLINED)
        def of_rest(r: Any) -> Any:
            p = A(1.9875691500e-4)
            p = p * r + A(1.3981999507e-3)
            p = p * r + A(8.3334519073e-3)
            p = p * r + A(4.1665795894e-2)
            p = p * r + A(1.6666665459e-1)
            p = p * r + A(5.0000001201e-1)
            return one + (r + p * r * r)

    else:

        @njit(**INLINED)
        def of_rest(r: Any) -> Any:
            z = r * r
            p = r * ((1.26177193074810590878e-4 * z + 3.02994407707441961300e-2) * z + 9.99999999999999999910e-1)
            q = (3.00198505138664455042e-6 * z + 2.52448340349684104192e-3) * z + 2.27265548208155028766e-1
            return one + two * (p / (q * z + 2.0 - p))

    def implementation(x: Any) -> Any:
        near = select(x < low, low, select(x > high, high, x))
        n = _nearest_integer(near * log2_e)
        r = fused_multiply_add(n, ln2_low, fused_multiply_add(n, ln2_high, near))
        first = _nearest_integer(half * n)
        y = of_rest(r) * _power_of_two(first) * _power_of_two(n - first)
        return select(x != x, x, y)

    return implementation


def exponential_minus_one(x: Any) -> Any:
    """Return exp(x) - 1 within some units in the last place, also near 0."""
    raise NotImplementedError


@overload(exponential_minus_one, jit_options=OPTIONS, inline="never")
def _exponential_minus_one(x: Any) -> Any:
    A = np.float32 if x == types.float32 else np.float64
    half, one, two = A(0.5), A(1), A(2)
    p0, p1, p2 = A(1.2617719307481059087798e-4), A(3.0299440770744196129956e-2), A(9.9999999999999999991025e-1)
    q0, q1, q2 = A(3.0019850513866445504159e-6), A(2.5244834034968410419224e-3), A(2.2726554820815502876593e-1)

    def implementation(x: Any) -> Any:
        z = x * x
        p = x * ((p0 * z + p1) * z + p2)
        near = two * (p / (((q0 * z + q1) * z + q2) * z + two - p))
        return select(abs(x) <= half, near, exponential(x) - one)

    return implementation


def hyperbolic_tangent(x: Any) -> Any:
    """Return tanh(x) within some units in the last place."""
    raise NotImplementedError


@overload(hyperbolic_tangent, jit_options=OPTIONS, inline="never")
def _hyperbolic_tangent(x: Any) -> Any:
    A = np.float32 if x == types.float32 else np.float64
    one, two, near = A(1), A(2), A(0.625)
    if x == types.float32:

        @njit(**INLINED)
        def near_zero(x: Any) -> Any:
            z = x * x
            p = ((A(-5.70498872745e-3) * z + A(2.06390887954e-2)) * z - A(5.37397155531e-2)) * z
            return ((p + A(1.33314422036e-1)) * z - A(3.33332819422e-1)) * z * x + x

    else:

        @njit(**INLINED)
        def near_zero(x: Any) -> Any:
            z = x * x
            p = (-9.64399179425052238628e-1 * z - 9.92877231001918586564e1) * z - 1.61468768441708447952e3
            q = ((z + 1.12811678491632931402e2) * z + 2.23548839060100448583e3) * z + 4.84406305325125486048e3
            return x + x * z * (p / q)

    def implementation(x: Any) -> Any:
        distance = abs(x)
        far = one - two / (exponential(distance + distance) + one)
        return select(distance < near, near_zero(x), select(x < A(0), -far, far))

    return implementation


@njit(**INLINED)
def logarithm_of_one_plus(x: Any) -> Any:
    """Return log(1 + x), as the C library has it."""
    return np.log1p(x)


def logarithm_of_one_plus_share(x: Any) -> Any:
    """Return log(1 + x) for x in [0, 1], within some units in the last place; NaN stays NaN.

    By the series of 2 artanh(r) = 2 (r + r^3 / 3 + r^5 / 5 + ...), r = x / (2 + x): at most 1/3, so that each term adds
    a digit.
    """
    raise NotImplementedError


@overload(logarithm_of_one_plus_share, jit_options=OPTIONS, inline="never")
def _logarithm_of_one_plus_share(x: Any) -> Any:
    A, terms = (np.float32, 8) if x == types.float32 else (np.float64, 17)
    coefficients = tuple(A(2 / (2 * term + 1)) for term in reversed(range(terms)))
    two = A(2)

    def implementation(x: Any) -> Any:
        r = x / (x + two)
        square, total = r * r, A(0)
        for coefficient in coefficients:
            total = total * square + coefficient
        return total * r

    return implementation


@njit(**INLINED)
def clamped(x: Any, low: Any, high: Any) -> Any:
    """Return the number nearest to x from ``low`` to ``high``; NaN stays NaN."""
    return select(x < low, low, select(x > high, high, x))


@njit(**INLINED)
def multiply_rounded(a: Any, b: Any) -> Any:
    """Return a b."""
    return a * b


@njit
def error_function(x: Any) -> Any:
    """Return erf(x)."""
    return math.erf(x)
