// What training keeps track of on the device: the place in the epoch, its losses, good weights, the look at its end.
//
// count_step:   the count of a step (step_count.cuh), where the loss has not done that.
// keep_weights: kept[window mod 2] = source, with window = place[2] + number / every, while the losses are finite.
// summarize:    out = (sum of the squares of the first weight_count elements, number of elements that are not finite).
// Whatever changes from step to step is read from device memory, so that recorded launches can be repeated.
//
// count_step is one thread. In the others thread t handles N neighbouring elements, one access of 16 bytes in each
// vector where all are aligned. Each thread of summarize adds up its elements, each block adds its threads' sums, the
// last block those of the blocks, all in double precision.
//
// Bytes per float element: keep_weights reads 4 and writes 4, summarize reads 4. The minimum.
#include "flat_vector.cuh"
#include "step_count.cuh"

template <typename T>
__global__ void __launch_bounds__(32)
    count_step(T* loss /* [2] */, int rows, double* losses, const T* table, T* scalars, long long* place,
               long long* steps, const float* skipped, int scalar_count) {
    StepCount<T>{losses, table, scalars, place, steps, skipped, scalar_count}.add(loss, rows);
}

template <typename T>
struct Copy {
    const T* from;
    T* to;

    template <int M>
    __device__ __forceinline__ void operator()(long long first, Width<M>) const {
        store_pack(to + first, load_pack<M>(from + first));
    }
};

template <typename T, int N>
__global__ void __launch_bounds__(256)
    keep_weights(const T* source /* [count] */, T* kept /* [2, count] */, const double* losses /* [any, 2] */,
                 const long long* place /* [3] */, long long count, int every) {
    const long long number = place[0];
    if (number > 0 && !is_finite(losses[2 * (number - 1)])) return;
    for_each_element<N>(count, Copy<T>{source, kept + (place[2] + number / every) % 2 * count});
}

template <typename T>
struct Summary {
    const T* vector;
    long long weight_count;
    double* squares;
    double* wrong;

    template <int M>
    __device__ __forceinline__ void operator()(long long first, Width<M>) const {
        const Pack<T, M> values = load_pack<M>(vector + first);
#pragma unroll
        for (int i = 0; i < M; ++i) {
            const double value = values.values[i];
            if (first + i < weight_count) *squares += value * value;
            if (!is_finite(value)) *wrong += 1;
        }
    }
};

template <typename T, int N>
__global__ void __launch_bounds__(256)
    summarize(const T* vector /* [count] */, long long count, long long weight_count, double* out /* [2] */,
              double* partial /* [2, gridDim.x] */, unsigned int* ticket /* [1] */) {
    SHARED(double, scratch, [WARP_LANES]);
    double squares = 0, wrong = 0;
    for_each_element<N>(count, Summary<T>{vector, weight_count, &squares, &wrong});
    squares = block_reduce<Sum>(squares, scratch);
    wrong = block_reduce<Sum>(wrong, scratch);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = squares;
        partial[gridDim.x + blockIdx.x] = wrong;
    }
    if (!is_last_block(ticket, gridDim.x)) return;
    squares = wrong = 0;
    for (int block = threadIdx.x; block < gridDim.x; block += blockDim.x) {
        squares += __ldcg(partial + block);
        wrong += __ldcg(partial + gridDim.x + block);
    }
    squares = block_reduce<Sum>(squares, scratch);
    wrong = block_reduce<Sum>(wrong, scratch);
    if (threadIdx.x == 0) {
        out[0] = squares;
        out[1] = wrong;
    }
}
