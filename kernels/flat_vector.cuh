// What the kernels over flat vectors share: N neighbouring elements at a time.
#ifndef GPUNET_FLAT_VECTOR_CUH
#define GPUNET_FLAT_VECTOR_CUH

#include "common.cuh"

// Applies `step(first, width)` to the whole vector: N elements at a time, then the last count % N one by one.
// `width` is a compile-time constant in each use.
template <int N> struct Width {};

template <int N, typename Step>
__device__ __forceinline__ void for_each_element(long long count, Step step) {
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long stride = (long long)gridDim.x * blockDim.x, whole = count / N;
    for (long long i = thread; i < whole; i += stride) step(i * N, Width<N>());
    if (N > 1 && thread < count - whole * N) step(whole * N + thread, Width<1>());
}

#endif
