// What the losses share: J = sum_i w_i l_i / sum_i w_i over the rows of a batch, and the bias b of the last layer.
//
// `loss` is [2]: J, and the sum of the weights. Where every weight is zero, J and its gradient are zero. Where b is
// given, a loss adds it to its outputs first, and the last of its blocks adds the rows of the gradient to db. Where a
// training step is to be counted, that block does it too.
#ifndef GPUNET_WEIGHTED_MEAN_CUH
#define GPUNET_WEIGHTED_MEAN_CUH

#include "step_count.cuh"

// loss[1] = sum_i w_i, in one block: before a loss that has weights, which divides by it.
// Thread t adds rows t, t + threads, ...; reads 1 element per row, which is the minimum.
template <typename A>
__global__ void total_weight(const A* weights /* [rows] */, A* loss /* [2] */, int rows) {
    SHARED(A, scratch, [WARP_LANES]);
    A sum = 0;
    for (int row = threadIdx.x; row < rows; row += blockDim.x) sum += weights[row];
    sum = block_reduce<Sum>(sum, scratch);
    if (threadIdx.x == 0) loss[1] = sum;
}

// The sum of the weights; without weights each row counts 1.
template <typename A>
__device__ __forceinline__ A weight_total(const A* weights, const A* loss, int rows) {
    return weights == nullptr ? A(rows) : loss[1];
}

// The output at `offset`, which is in `column`, with its bias. It is written back as the last layer's output, and what
// follows computes with the number that was stored.
template <typename T>
__device__ __forceinline__ arithmetic<T> output_at(T* outputs, long long offset, const arithmetic<T>* bias,
                                                   int column) {
    const T output = outputs[offset];
    if (bias == nullptr) return to_arithmetic(output);
    const T biased = to_storage<T>(to_arithmetic(output) + bias[column]);
    outputs[offset] = biased;
    return to_arithmetic(biased);
}

// db_j = sum_i gradient_ij, in one block of at most 512 threads: thread t has columns t % lanes, t % lanes + lanes, ...
// of rows t / lanes, t / lanes + threads / lanes, ...; then one thread for each column adds what the others have.
template <typename T>
__device__ __forceinline__ void add_rows(const T* gradient /* [rows, columns] */, arithmetic<T>* dbias /* [columns] */,
                                         int rows, int columns) {
    typedef arithmetic<T> A;
    SHARED(A, sums, [512]);
    int lanes = 8;
    while (lanes < columns && lanes < blockDim.x) lanes *= 2;
    for (int first = 0; first < columns; first += lanes) {
        const int column = first + threadIdx.x % lanes;
        A sum = 0;
        if (column < columns) {
#pragma unroll 4
            for (int row = threadIdx.x / lanes; row < rows; row += blockDim.x / lanes)
                sum += to_arithmetic(__ldcg(gradient + element_offset(row, column, columns)));
        }
        sums[threadIdx.x] = sum;
        __syncthreads();
        if (threadIdx.x < lanes && column < columns) {
            for (int thread = threadIdx.x + lanes; thread < blockDim.x; thread += lanes) sum += sums[thread];
            dbias[column] = sum;
        }
        // No barrier: where another round follows, all threads are lanes, and none reads what another has.
    }
}

// Writes `loss` from every thread's part of sum_i w_i l_i, and db from the gradient that the blocks have written. All
// threads of a one-dimensional grid call, at their end.
template <typename T, typename A>
__device__ __forceinline__ void finish_weighted_mean(A part, A total, const T* gradient /* [rows, columns] */,
                                                     A* dbias /* [columns] or null */, A* loss /* [2] */,
                                                     A* partial /* [gridDim.x] */, unsigned int* ticket /* [1] */,
                                                     int rows, int columns, const StepCount<A>& step) {
    SHARED(A, scratch, [WARP_LANES]);
    const A block_sum = block_reduce<Sum>(part, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = block_sum;
    if (!is_last_block(ticket, gridDim.x)) return;
    A sum = 0;
    for (int block = threadIdx.x; block < gridDim.x; block += blockDim.x) sum += __ldcg(partial + block);
    sum = block_reduce<Sum>(sum, scratch);
    if (threadIdx.x == 0) {
        loss[0] = total == A(0) ? A(0) : sum / total;
        loss[1] = total;
        step.add(loss, rows);
    }
    if (dbias != nullptr) add_rows(gradient, dbias, rows, columns);
}

#endif
