"""The proof of the seam bites: known bugs, planted one at a time in its modules, and the tests that must find each.

A bug is an exact replacement of text that must occur once. The same test must pass without the bug.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

import gpunet
from gpunet.backends.cuda import CudaBackend, launcher
from gpunet.backends.cuda import backend as cuda_backend
from gpunet.backends.devices import cublas, cublas_lt, lane, resources, staging
from gpunet.backends.devices import cupy as cupy_device
from gpunet.training import step
from tests.backends.cuda import test_device as device_tests
from tests.backends.devices import test_branches as branch_tests
from tests.backends.devices import test_cublas_lt as cublas_lt_tests
from tests.backends.devices import test_lane as lane_tests
from tests.backends.devices import test_order as order_tests
from tests.emulation import EmulatedDevice
from tests.helpers import fake_cupy


class World(NamedTuple):
    """What the tests are given."""

    cupy: Any
    backend: CudaBackend
    monkeypatch: pytest.MonkeyPatch


def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a new stand-in and a backend on it."""
    cupy = fake_cupy.FakeCupy(EmulatedDevice(multiprocessor_count=4, compute_capability=(8, 0)))
    fake_cupy.install(monkeypatch, cupy)
    return World(cupy, CudaBackend(cupy_device.CupyDevice(0)), monkeypatch)


def plant(monkeypatch: pytest.MonkeyPatch, module: ModuleType, old: str, new: str) -> None:
    """Replace the functions and methods of a module by those of its text with the bug."""
    text = inspect.getsource(module)
    assert text.count(old) == 1, f"{module.__name__} has {text.count(old)} times: {old}"
    changed = ModuleType(module.__name__)
    exec(compile(text.replace(old, new), str(module.__file__), "exec"), changed.__dict__)
    for name, value in list(vars(changed).items()):
        if getattr(value, "__module__", None) != module.__name__ or not hasattr(module, name):
            changed.__dict__[name] = vars(module).get(name, value)  # one lock, one recorder
        elif isinstance(value, FunctionType):
            monkeypatch.setattr(module, name, value)
        elif isinstance(value, type):
            for attribute, method in vars(value).items():
                function = getattr(method, "__func__", method)
                # One that calls super() belongs to its class.
                if isinstance(function, FunctionType) and "__class__" not in function.__code__.co_freevars:
                    monkeypatch.setattr(getattr(module, name), attribute, method)


def products(found: World) -> None:
    order_tests.test_products_of_every_layout(found.backend, False, True, False)
    order_tests.test_products_of_every_layout(found.backend, True, False, True)


def copies(found: World) -> None:
    for elements in (1, 60_000, 200_000):
        device_tests.test_host_memory_may_be_overwritten_after_a_copy(found.backend, elements)


def training(found: World) -> None:
    device_tests.test_network_trains_as_on_numpy(found.backend, False, True)


def shared_memory(found: World) -> None:
    device_tests.test_a_second_network_with_less_shared_memory_leaves_the_first_what_it_was_allowed(found.cupy)
    order_tests.test_each_kernel_is_allowed_its_shared_memory(*world(found.monkeypatch)[1::-1])


def recording(found: World) -> None:
    for operation in ("launch", "gemm", "copy"):
        order_tests.test_a_recording_keeps_what_it_reads(found.backend, operation)


def two_devices(found: World) -> None:
    order_tests.test_two_devices_of_one_thread(found.monkeypatch)


def end_of_a_thread(found: World) -> None:
    device_tests.test_what_a_thread_had_goes_with_it(found.cupy)


def locks(found: World) -> None:
    order_tests.test_every_operation_holds_the_streams_lock(found.backend, found.monkeypatch)


def lanes(found: World) -> None:
    lane_tests.test_batches_arrive_whole_and_in_order(found.backend, [np.float32] * 2)


def end_of_a_lane(found: World) -> None:
    lane_tests.test_memory_stays_until_the_last_copy_is_done(found.backend, found.cupy, True)


def ahead(found: World) -> None:
    lane_tests.test_what_is_under_way_does_not_keep_the_host(found.backend)


def branches(found: World) -> None:
    branch_tests.test_a_recorded_step_of_a_deep_network(found.cupy)


def statuses(found: World) -> None:
    for function in ("cublasCreate", "cublasSetStream", "cublasSetWorkspace", "cublasGemmEx"):
        device_tests.test_the_status_of_every_call_is_looked_at(function)


def epilogues(found: World) -> None:
    for dtype, out_dtype in (("float32", "float32"), ("float64", "float64"), ("float16", "float32")):
        cublas_lt_tests.test_products_of_every_layout(cublas_lt_tests.World(), dtype, out_dtype, dtype == "float32")
    cublas_lt_tests.test_each_bias_is_its_own(cublas_lt_tests.World())


def algorithms(found: World) -> None:
    cublas_lt_tests.test_an_algorithm_is_asked_for_once_for_whatever_may_decide_it(cublas_lt_tests.World())
    with pytest.MonkeyPatch.context() as patched:
        cublas_lt_tests.test_no_more_is_kept_than_a_few_networks_need(cublas_lt_tests.World(), patched)
    for where in ("nothing is returned", "cublasLtMatmulAlgoGetHeuristic", "cublasLtMatmul"):
        cublas_lt_tests.test_a_product_that_cublaslt_does_not_have_is_not_done(cublas_lt_tests.World(), where)


def alignment(found: World) -> None:
    for misaligned in ("a", "b", "bias", "out"):
        cublas_lt_tests.test_an_algorithm_fits_the_alignment(cublas_lt_tests.World(), misaligned)
    cublas_lt_tests.test_a_bias_that_cublaslt_would_misread_is_not_given_to_it(cublas_lt_tests.World())


def epilogues_of_a_device(found: World) -> None:
    cublas_lt_tests.test_a_recording_has_the_product_and_allocates_nothing(found.backend)
    cublas_lt_tests.test_a_recording_keeps_what_the_product_reads(found.backend)
    cublas_lt_tests.test_a_network_without_batch_norm_has_one_operation_for_each_layer(found.backend)


def statuses_of_cublas_lt(found: World) -> None:
    for function in cublas_lt.SIGNATURES:
        cublas_lt_tests.test_the_status_of_every_call_is_looked_at(function)


Check = Callable[[World], None]
BUGS: dict[str, tuple[ModuleType, str, str, Check]] = {
    "flags of the other factor": (
        cublas,
        "            int(transpose_b),\n            int(transpose_a),",
        "            int(transpose_a),\n            int(transpose_b),",
        products,
    ),
    "one factor twice": (cublas, "            b.data.ptr,", "            a.data.ptr,", products),
    "rows as long as those of the other factor": (
        cublas,
        "            leading_dimension(b),",
        "            leading_dimension(a),",
        products,
    ),
    "flags change places": (
        cupy_device,
        "a, b, out, transpose_a, transpose_b, acc",
        "a, b, out, transpose_b, transpose_a, acc",
        products,
    ),
    "nothing is accumulated": (cublas, "scalars[1.0 if accumulate else 0.0]", "scalars[0.0]", products),
    "a status that nobody looks at": (cublas, '        check_status("cublasGemmEx", status)\n', "", statuses),
    "addresses as 32-bit integers": (cublas, "        declare(library, SIGNATURES)\n", "", products),
    "products on the user's stream": (cublas, "(self.handle, stream.ptr)", "(self.handle, 0)", products),
    "a workspace that goes back": (
        cublas,
        "self.workspace_bytes = stream, workspace,",
        "self.workspace_bytes = stream, None,",
        products,
    ),
    "columns as far apart as they are many": (
        cublas_lt,
        'return self._new("MatrixLayout", kind, rows, columns, rows)',
        'return self._new("MatrixLayout", kind, rows, columns, columns)',
        epilogues,
    ),
    "flags of the other factor, with a bias": (
        cublas_lt,
        "ctypes.c_int32(transpose_b))\n        self._set(DESC_TRANSB, ctypes.c_int32(transpose_a))",
        "ctypes.c_int32(transpose_a))\n        self._set(DESC_TRANSB, ctypes.c_int32(transpose_b))",
        epilogues,
    ),
    "layouts as after the transposition": (
        cublas_lt,
        "(inner, rows) if transpose_b else (rows, inner)",
        "(rows, inner) if transpose_b else (inner, rows)",
        epilogues,
    ),
    "scale of another type": (
        cublas_lt,
        '"float64" if product.scalar is ctypes.c_double else "float32"',
        '"float32"',
        epilogues,
    ),
    "ReLU where there is none": (
        cublas_lt,
        "EPILOGUE_RELU_BIAS if relu else EPILOGUE_BIAS",
        "EPILOGUE_BIAS if relu else EPILOGUE_RELU_BIAS",
        epilogues,
    ),
    "no address of the bias when an algorithm is asked for": (
        cublas_lt,
        "        plan.set_bias(bias)  # first: how it is aligned counts\n",
        "",
        epilogues,
    ),
    "the bias of the first time": (cublas_lt, "        plan.set_bias(bias.data.ptr)\n", "", epilogues),
    "what was there is added": (
        cublas_lt,
        "product.scalar(1), product.scalar(0)",
        "product.scalar(1), product.scalar(1)",
        epilogues,
    ),
    "functions that nobody has looked for": (
        cublas_lt,
        "        declare(library, SIGNATURES)\n",
        "",
        lambda found: cublas_lt_tests.test_a_library_that_lacks_a_function(),
    ),
    "no workspace": (
        cublas_lt,
        "            blas.workspace_bytes,\n            blas.stream.ptr,",
        "            0,\n            blas.stream.ptr,",
        epilogues,
    ),
    "products with a bias on the user's stream": (
        cublas_lt,
        "            blas.stream.ptr,",
        "            0,",
        epilogues_of_a_device,
    ),
    "an algorithm for aligned arrays alone": (
        cublas_lt,
        "PREF_MIN_ALIGNMENT_A_BYTES: ctypes.c_uint32(a)",
        "PREF_MIN_ALIGNMENT_A_BYTES: ctypes.c_uint32(256)",
        alignment,
    ),
    "alignments of the other factor": (
        cublas_lt,
        "for array in (b, a, out, bias))",
        "for array in (bias, bias, bias, bias))",
        alignment,
    ),
    "whatever the alignment": (
        cublas_lt,
        "return min(address & -address, LARGEST_ALIGNMENT)",
        "return LARGEST_ALIGNMENT",
        alignment,
    ),
    "a bias that is not aligned": (cublas_lt, " or bias.data.ptr % BIAS_ALIGNMENT", "", alignment),
    "a bias of another type": (cublas_lt, "bias.dtype != out.dtype or ", "", alignment),
    "one algorithm for both epilogues": (
        cublas_lt,
        "key = (product, transpose_a, transpose_b, relu, alignments)",
        "key = (product, transpose_a, transpose_b, False, alignments)",
        algorithms,
    ),
    "descriptors that stay": (cublas_lt, "for kind, handle in self._handles:", "for kind, handle in []:", algorithms),
    "a product that is not done is taken for one that is": (
        cublas_lt,
        "        plan.close()\n        self._plans[key] = None\n        return False",
        "        return True",
        algorithms,
    ),
    "no algorithm is taken for one": (cublas_lt, "(status == 0 and count.value == 0)", "False", algorithms),
    "a status of cublasLt that nobody looks at": (
        cublas_lt,
        '        check_status("cublasLtMatmul", status)\n',
        "",
        statuses_of_cublas_lt,
    ),
    "what a product with a bias reads is not held": (
        cuda_backend,
        "        self.launcher.hold(x, weight, bias, out)\n",
        "",
        epilogues_of_a_device,
    ),
    "a product with a bias is done again in two": (
        cupy_device,
        "        return done\n",
        "        return False\n",
        epilogues_of_a_device,
    ),
    "the staged copy is overwritten": (
        staging,
        "            self._events[self._segment].synchronize()\n",
        "",
        copies,
    ),
    "the event of another stream": (
        resources,
        "self._event.record(self._stream)",
        "self._event.record(type(self._stream)(non_blocking=True))",
        copies,
    ),
    "large copies are not waited for": (
        cupy_device,
        "host.nbytes)\n            self.synchronize()",
        "host.nbytes)",
        copies,
    ),
    "copies on the user's stream": (cupy_device, "memcpyDefault, self._stream.ptr)", "memcpyDefault, 0)", copies),
    "a read that does not wait": (
        cupy_device,
        "get(stream=self._stream)",
        "get(stream=self._stream, blocking=False)",
        copies,
    ),
    "a read on another stream": (
        cupy_device,
        "get(stream=self._stream)",
        "get(stream=self._cupy.cuda.Stream(non_blocking=True))",
        copies,
    ),
    "launches on the user's stream": (
        cupy_device,
        "stream=self._stream,\n                    enable_cooperative_groups",
        "stream=self._cupy.cuda.get_current_stream(),\n                    enable_cooperative_groups",
        training,
    ),
    "memory of the user's pool": (
        cupy_device,
        'with self._current("allocation"), self._memory_errors(size):',
        "with self._device, self._memory_errors(size):",
        lambda found: order_tests.test_memory_of_pending_operations_goes_back_in_their_order(found.backend),
    ),
    "shared memory is asked for once": (
        cupy_device,
        "if size > self._shared_memory_allowed.get(key, 0):",
        "if key not in self._shared_memory_allowed:",
        shared_memory,
    ),
    "the driver is always asked for less": (
        cupy_device,
        "if size > self._shared_memory_allowed.get(key, 0):",
        "if True:",
        shared_memory,
    ),
    "one limit for all kernels": (
        cupy_device,
        "key = (self.index, kernel.ptr)",
        "key = (self.index, 0)",
        shared_memory,
    ),
    "factors are not held": (cuda_backend, "        self.launcher.hold(a, b, out)\n", "", recording),
    "copies are not held": (cuda_backend, "        self.launcher.hold(source, destination)\n", "", recording),
    "arguments are not held": (
        launcher,
        "        return _Recording(replay, held)",
        "        return _Recording(replay, [])",
        recording,
    ),
    "kernels of another device": (cupy_device, "key = (self.index, source, ", "key = (0, source, ", two_devices),
    "the stream of another device": (cupy_device, "of_thread(cupy, index,", "of_thread(cupy, 0,", two_devices),
    "launches on the current device": (
        cupy_device,
        "with self._resources.lock, self._device:\n            try:\n                if shared",
        "with self._resources.lock:\n            try:\n                if shared",
        two_devices,
    ),
    "the thread's memory goes before its operations": (
        resources,
        "            self.side_blas.close,\n            lambda: pool.free_all_blocks(stream=stream),",
        "            lambda: pool.free_all_blocks(stream=stream),\n            self.side_blas.close,",
        end_of_a_thread,
    ),
    "a handle that stays": (resources, "            self.blas.close,\n", "", end_of_a_thread),
    "the side's handle stays": (resources, "            self.side_blas.close,\n", "", end_of_a_thread),
    "two products at a time in one workspace": (
        cupy_device,
        "resources.side_stream, resources.side_blas\n",
        "resources.side_stream, resources.blas\n",
        branches,
    ),
    "one workspace for two handles": (
        resources,
        """            self.side_blas = Cublas(library, self.side_stream, cupy.cuda.alloc(size), size)""",
        """            self.side_blas = Cublas(library, self.side_stream, self.blas.workspace, size)""",
        branches,
    ),
    "no branch at all": (
        cupy_device,
        "        if not self._capturing:\n            yield",
        "        if True:\n            yield",
        branches,
    ),
    "a branch that begins too early": (
        cupy_device,
        "            self._resources.stream.wait_event(self._resources.event)\n",
        "",
        branches,
    ),
    "a branch that nobody waits for": (step, "        backend.join()", "        pass", branches),
    "a branch that is not left": (
        cupy_device,
        "            self._stream, self._blas = resources.stream, resources.blas\n",
        "            pass\n",
        branches,
    ),
    "another branch does not join the one before": (
        cupy_device,
        "            return\n        self.join()\n",
        "            return\n",
        branches,
    ),
    "a launch without the lock": (
        cupy_device,
        "with self._resources.lock, self._device:\n            try:\n                if shared",
        "with self._device:\n            try:\n                if shared",
        locks,
    ),
    "a page-locked buffer is overwritten while it is copied": (
        lane,
        "            self._copied[self._turn].synchronize()\n",
        "            pass\n",
        lanes,
    ),
    "the copy's event is not recorded": (
        lane,
        "            self._copied[self._turn].record(self._copying)\n",
        "",
        lanes,
    ),
    "the copy's event of the device's stream": (
        lane,
        "self._copied[self._turn].record(self._copying)",
        "self._copied[self._turn].record(self._compute)",
        lanes,
    ),
    "a batch is overwritten before it is taken": (
        lane,
        "            self._copying.wait_event(self._taken)\n",
        "",
        lanes,
    ),
    "a batch that is taken is not told": (lane, "            self._taken.record(self._compute)\n", "", lanes),
    "a batch is told taken on the copying stream": (
        lane,
        "self._taken.record(self._compute)",
        "self._taken.record(self._copying)",
        lanes,
    ),
    "the first batch goes where others still write": (
        lane,
        "        self._taken.record(stream)  #",
        "        #",
        lanes,
    ),
    "a batch is taken before it is copied": (
        lane,
        "            self._compute.wait_event(self._copied[self._turn])\n",
        "",
        lanes,
    ),
    "a batch is taken when the one before is copied": (
        lane,
        "self._compute.wait_event(self._copied[self._turn])",
        "self._compute.wait_event(self._copied[1 - self._turn])",
        lanes,
    ),
    "one page-locked buffer for two": (lane, "self._turn = 1 - self._turn", "self._turn = self._turn", ahead),
    "batches on the user's stream": (
        lane,
        "self._runtime.memcpyDefault, stream.ptr",
        "self._runtime.memcpyDefault, 0",
        lanes,
    ),
    "a lane goes before its copies": (lane, "        self._stream.synchronize()\n", "        pass\n", end_of_a_lane),
    "a lane's memory goes before its copies": (
        lane,
        "        self._memory = memory\n",
        "        self._memory = ()\n",
        end_of_a_lane,
    ),
    "a batch without the lock": (
        lane,
        'with self._using("a copy of a batch"):',
        "if True:",
        locks,
    ),
}


@pytest.mark.parametrize("bug", BUGS)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of a finalizer with a bug
def test_a_planted_bug_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, old, new, check = BUGS[bug]
    check(world(monkeypatch))
    with pytest.MonkeyPatch.context() as planted:
        plant(planted, module, old, new)
        with pytest.raises((AssertionError, gpunet.DeviceError, pytest.fail.Exception)):
            check(world(planted))
