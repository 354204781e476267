"""What Numba lacks for threads that share memory: atomic words, pauses, calls by address, arrays at an address.

Addresses are int64 numbers, so that compiled code holds none of this process's and can be cached on disk.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

_INT64 = ir.IntType(64)
# What a core does between two looks at a word that another one will write.
_X86_PAUSE: tuple[str, list[int]] = ("llvm.x86.sse2.pause", [])
_ARM_BARRIER = ("llvm.aarch64.isb", [15])  # a hint, "yield", ends too soon
_PAUSES = dict.fromkeys(("x86_64", "AMD64"), _X86_PAUSE) | dict.fromkeys(("aarch64", "arm64", "ARM64"), _ARM_BARRIER)


def _pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, _INT64.as_pointer())


@intrinsic
def load(typing_context: Any, address: Any) -> Any:
    """Return the word at an address; what its writer wrote before it is seen after it (acquire)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_pointer(builder, args[0]), "seq_cst", 8)

    return types.int64(types.int64), generate


@intrinsic
def store(typing_context: Any, address: Any, value: Any) -> Any:
    """Write the word at an address; who reads it sees what was written before it (release)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store_atomic(args[1], _pointer(builder, args[0]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def add(typing_context: Any, address: Any, value: Any) -> Any:
    """Add to the word at an address and return what it was."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", _pointer(builder, args[0]), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def exchange(typing_context: Any, address: Any, value: Any) -> Any:
    """Write the word at an address and return what it was."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("xchg", _pointer(builder, args[0]), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def replace(typing_context: Any, address: Any, expected: Any, value: Any) -> Any:
    """Write the word at an address if it is as expected, and return whether it was."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pair = builder.cmpxchg(_pointer(builder, args[0]), args[1], args[2], "seq_cst", "seq_cst")
        return builder.extract_value(pair, 1)

    return types.boolean(types.int64, types.int64, types.int64), generate


@intrinsic
def pause(typing_context: Any) -> Any:
    """Let a core rest for some cycles."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if platform.machine() in _PAUSES:
            name, numbers = _PAUSES[platform.machine()]
            given = [ir.Constant(ir.IntType(32), number) for number in numbers]
            function = ir.FunctionType(ir.VoidType(), [number.type for number in given])
            builder.call(cgutils.get_or_insert_function(builder.module, function, name), given)
        return context.get_dummy_value()

    return types.void(), generate


# Bits of MXCSR: denormal results become 0, and denormal operands count as 0.
_FLUSH_TO_ZERO, _DENORMALS_ARE_ZERO = 1 << 15, 1 << 6
FLUSHES_DENORMALS = platform.machine() in ("x86_64", "AMD64")


def _access_control_register(builder: Any, name: str, place: Any) -> None:
    function = ir.FunctionType(ir.VoidType(), [place.type])
    builder.call(cgutils.get_or_insert_function(builder.module, function, f"llvm.x86.sse.{name}"), [place])


@intrinsic
def flush_denormals(typing_context: Any) -> Any:
    """Let this thread take denormal numbers for 0, and return how it was; elsewhere than on x86 they cost little."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if not FLUSHES_DENORMALS:
            return ir.Constant(ir.IntType(32), 0)
        place = cgutils.alloca_once(builder, ir.IntType(32))
        pointer = builder.bitcast(place, ir.IntType(8).as_pointer())
        _access_control_register(builder, "stmxcsr", pointer)
        before = builder.load(place)
        flushing = ir.Constant(ir.IntType(32), _FLUSH_TO_ZERO | _DENORMALS_ARE_ZERO)
        builder.store(builder.or_(before, flushing), place)
        _access_control_register(builder, "ldmxcsr", pointer)
        return before

    return types.int32(), generate


@intrinsic
def treat_denormals(typing_context: Any, before: Any) -> Any:
    """Let this thread treat denormal numbers as :func:`flush_denormals` says it did."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if FLUSHES_DENORMALS:
            place = cgutils.alloca_once(builder, ir.IntType(32))
            builder.store(args[0], place)
            _access_control_register(builder, "ldmxcsr", builder.bitcast(place, ir.IntType(8).as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int32), generate


def _caller(result: Any, *arguments: Any) -> Any:
    """Return an intrinsic that calls the C function at an address."""
    llvm = {
        types.int32: ir.IntType(32),
        types.int64: _INT64,
        types.float32: ir.FloatType(),
        types.float64: ir.DoubleType(),
    }

    @intrinsic
    def call(typing_context: Any, address: Any, values: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            given = cgutils.unpack_tuple(builder, args[1])
            given = [
                context.cast(builder, value, have, want)
                for value, have, want in zip(given, signature.args[1].types, arguments, strict=True)
            ]
            returned = ir.VoidType() if result == types.void else llvm[result]
            function = ir.FunctionType(returned, [llvm[argument] for argument in arguments])
            value = builder.call(builder.inttoptr(args[0], function.as_pointer()), given)
            return context.get_dummy_value() if result == types.void else value

        return result(types.int64, values), generate

    return call


call_stripe = _caller(types.void, types.int64, types.int64)
call_lock = _caller(types.int32, types.int64, types.int32)  # PyThread_acquire_lock(lock, wait)
call_unlock = _caller(types.void, types.int64)  # PyThread_release_lock(lock)
call_get = _caller(types.int32)  # sched_yield()
call_exchange = _caller(types.int32, types.int32)  # MKL_Set_Num_Threads_Local(n)
_TWO_MATRICES = {
    (real, integer): _caller(
        types.void,
        *(types.int32,) * 3,
        *(integer,) * 3,
        *(real, types.int64, integer, types.int64, integer),
        *(real, types.int64, integer),
    )
    for real in (types.float32, types.float64)
    for integer in (types.int32, types.int64)
}
call_sgemm, call_sgemm_64 = _TWO_MATRICES[types.float32, types.int32], _TWO_MATRICES[types.float32, types.int64]
call_dgemm, call_dgemm_64 = _TWO_MATRICES[types.float64, types.int32], _TWO_MATRICES[types.float64, types.int64]


@intrinsic
def _as_pointer(typing_context: Any, address: Any, dtype: Any) -> Any:
    pointer = types.CPointer(dtype.dtype)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(pointer))

    return pointer(types.int64, dtype), generate


@njit(inline="always")
def array_at(address: Any, shape: Any, dtype: Any) -> Any:
    """Return the C-contiguous array of a shape and a dtype at an address."""
    return carray(_as_pointer(address, dtype), shape)


@intrinsic
def size_of(typing_context: Any, dtype: Any) -> Any:
    """Return the bytes of an element of a dtype."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(_INT64, dtype.dtype.bitwidth // 8)

    return types.int64(dtype), generate


# Elements of a local array. Compilers know that nothing else points to one, which lets them vectorise loops.
WIDTH = 256


@intrinsic
def _local_pointer(typing_context: Any, dtype: Any) -> Any:
    pointer = types.CPointer(dtype.dtype)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(dtype.dtype)
        memory = cgutils.alloca_once(builder, ir.ArrayType(kind, WIDTH))
        memory.align = 64
        return builder.bitcast(memory, kind.as_pointer())

    return pointer(dtype), generate


@njit(inline="always")
def local_array(dtype: Any) -> Any:
    """Return an array of ``WIDTH`` elements on the stack, undefined."""
    return carray(_local_pointer(dtype), (WIDTH,))


# Arrays of 4 KB one after the other have their elements at the same places of a page, where loads wait for stores.
_PADDING = 48


@intrinsic
def _row_pointer(typing_context: Any, dtype: Any, width: Any) -> Any:
    pointer = types.CPointer(dtype.dtype)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        size = builder.add(args[1], ir.Constant(_INT64, _PADDING))
        memory = builder.alloca(context.get_value_type(dtype.dtype), size=size)
        memory.align = 64
        return memory

    return pointer(dtype, types.int64), generate


@njit(inline="always")
def local_row(dtype: Any, width: Any) -> Any:
    """Return an array of ``width`` elements on the stack, undefined, as :func:`local_array`.

    The end of the function frees it, not that of a loop: take it before the loop, or in a function that is inlined by
    LLVM, as with ``INLINED``, which then frees it, and not by Numba.
    """
    return carray(_row_pointer(dtype, width), (width,))
