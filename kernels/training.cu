// What training keeps track of on the device: the place in the epoch, its losses, good weights, the look at its end.
//
// count_step:   the count of a step (step_count.cuh), where the loss has not done that.
// keep_weights: kept[window mod 2] = source, with window = place[2] + number / every, while the losses are finite.
// summarize:    out = (sum of the squares of the first weight_count elements, number of elements that are not finite).
// accumulate_gradients: out = accumulated + share (gradients - accumulated), share = loss[1] / (mean[1] + loss[1]), and
//               the same of mean[0] and loss[0]; mean[1] += loss[1]. Of a first batch mean[1] counts as 0, and where it
//               is 0, out = gradients.
// average_weights: averaged += share (weights - averaged), or = weights after the first update, where there was an update.
// Whatever changes from step to step is read from device memory, so that recorded launches can be repeated.
//
// count_step is one thread. In the others thread t handles N neighbouring elements, one access of 16 bytes in each
// vector where all are aligned. The single numbers that all blocks of a mean read are written by the last block to end.
// Each thread of summarize adds up its elements, each block adds its threads' sums, the
// last block those of the blocks, all in double precision.
//
// Bytes per float element: keep_weights reads 4 and writes 4, summarize reads 4, the means read 8 and write 4. The
// minimum.
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

// Elements of a mean: one more value counts `share` of it; of a first one all.
template <typename T>
struct Mean {
    const T* values;
    const T* before;
    T* out;
    T share;
    bool is_first;

    template <int M>
    __device__ __forceinline__ void operator()(long long first, Width<M>) const {
        Pack<T, M> mean = load_pack<M>(values + first);
        if (!is_first) {
            const Pack<T, M> old = load_pack<M>(before + first);
#pragma unroll
            for (int i = 0; i < M; ++i) mean.values[i] = old.values[i] + share * (mean.values[i] - old.values[i]);
        }
        store_pack(out + first, mean);
    }
};

template <typename T, int N>
__global__ void __launch_bounds__(256)
    accumulate_gradients(T* gradients /* [count] */, T* accumulated /* [count] */, long long count,
                         const T* loss /* [2] */, T* mean /* [2] */, int is_first, int is_last,
                         unsigned int* ticket /* [1] */) {
    const T before = is_first ? T(0) : mean[1], weight = loss[1];
    const bool replaces = before == T(0);
    const T share = replaces ? T(1) : weight / (before + weight);
    for_each_element<N>(count, Mean<T>{gradients, accumulated, is_last ? gradients : accumulated, share, replaces});
    if (!is_last_block(ticket, gridDim.x) || threadIdx.x != 0) return;
    mean[0] = replaces ? loss[0] : mean[0] + share * (loss[0] - mean[0]);
    mean[1] = before + weight;
}

template <typename T, int N>
__global__ void __launch_bounds__(256)
    average_weights(const T* parameters /* [count] */, T* averaged_parameters /* [count] */, long long count,
                    const T* state /* [state_count] or null */, T* averaged_state /* [state_count] or null */,
                    long long state_count, long long* updates /* [1] */, const T* loss /* [2] */, T share,
                    unsigned int* ticket /* [1] */) {
    if (!is_finite(loss[0])) return;
    const long long before = updates[0];
    for_each_element<N>(count,
                        Mean<T>{parameters, averaged_parameters, averaged_parameters, share, before == 0});
    for_each_element<N>(state_count, Mean<T>{state, averaged_state, averaged_state, share, before == 0});
    if (is_last_block(ticket, gridDim.x) && threadIdx.x == 0) updates[0] = before + 1;
}
