// Dynamic loss scaling: gradients of `scale` times the loss become those of the loss, and the scale follows.
//
// gradient_i /= scale. Where one of them or the loss is not finite, guard[0] is NaN, which the optimiser's step takes
// for the loss and changes nothing, and scale becomes scale / 2; after `interval` finite steps in a row, 2 scale, at
// most 2^24. `interval` 0 leaves it as it is.
//
// Thread t handles N neighbouring elements, one access of 16 bytes where they are aligned; the elements left over at
// the end go one to each of the first threads. Each block counts its elements that are not finite, and the last block
// to end adds the counts: by then every block has read the scale.
//
// Bytes per parameter: 4 read, 4 written: the minimum.
#include "flat_vector.cuh"

__device__ __forceinline__ float not_a_number() { return __int_as_float(0x7fffffff); }

struct Unscale {
    float* gradients;
    float scale;
    float* wrong;

    template <int M>
    __device__ __forceinline__ void operator()(long long first, Width<M>) const {
        Pack<float, M> values = load_pack<M>(gradients + first);
#pragma unroll
        for (int i = 0; i < M; ++i) {
            values.values[i] /= scale;
            if (!is_finite(values.values[i])) *wrong += 1;
        }
        store_pack(gradients + first, values);
    }
};

template <int N>
__global__ void __launch_bounds__(256)
    unscale_gradients(float* gradients /* [count] */, long long count, const float* loss /* [2] */,
                      float* scale /* [4]: the scale, finite steps in a row, skipped steps, their batches lately */,
                      float* guard /* [2] */, int interval, int batches, float* partial /* [gridDim.x] */,
                      unsigned int* ticket /* [1] */) {
    constexpr float LARGEST = 0x1p24f;
    SHARED(float, scratch, [WARP_LANES]);
    const float before = scale[0];
    float wrong = 0;
    for_each_element<N>(count, Unscale{gradients, before, &wrong});
    wrong = block_reduce<Sum>(wrong, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = wrong;
    if (!is_last_block(ticket, gridDim.x)) return;
    wrong = 0;
    for (int block = threadIdx.x; block < gridDim.x; block += blockDim.x) wrong += __ldcg(partial + block);
    wrong = block_reduce<Sum>(wrong, scratch);
    if (threadIdx.x != 0) return;
    const bool is_good = wrong == 0.0f && is_finite(loss[0]);
    guard[0] = is_good ? loss[0] : not_a_number();
    guard[1] = loss[1];
    if (interval == 0) return;
    const float good = is_good ? scale[1] + 1.0f : 0.0f;
    const bool is_grown = good >= (float)interval;
    const float next = is_good ? (is_grown ? 2.0f * before : before) : 0.5f * before;
    scale[0] = next > LARGEST ? LARGEST : next;
    scale[1] = is_grown ? 0.0f : good;
    if (!is_good) {
        scale[2] += 1.0f;
        scale[3] += (float)batches;
    }
}
