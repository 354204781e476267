// What the losses share: J = sum_i w_i l_i / sum_i w_i over the rows of a batch.
//
// `loss` is [2]: J, and the sum of the weights. Where every weight is zero, J and its gradient are zero.
#ifndef GPUNET_WEIGHTED_MEAN_CUH
#define GPUNET_WEIGHTED_MEAN_CUH

#include "common.cuh"

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

// Writes `loss` from every thread's part of sum_i w_i l_i. All threads of a one-dimensional grid call, at their end.
template <typename A>
__device__ __forceinline__ void finish_weighted_mean(A part, A total, A* loss /* [2] */, A* partial /* [gridDim.x] */,
                                                     unsigned int* ticket /* [1] */) {
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
    }
}

#endif
