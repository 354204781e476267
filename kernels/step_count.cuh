// The count of a training step: losses[number] = loss, scalars = table[number - skipped], place += (1, rows),
// steps += 1, with number = place[0]. After a loss of the epoch that is not finite every other becomes NaN: no update
// follows.
//
// One thread does it, which has the loss: it moves a few numbers. They are the last parameters of kernels that count.
#ifndef GPUNET_STEP_COUNT_CUH
#define GPUNET_STEP_COUNT_CUH

#include "common.cuh"

template <typename A>
struct StepCount {
    double* losses;        // [steps of the epoch, 2], or null: nothing is counted
    const A* table;        // [steps of the epoch, scalar_count]
    A* scalars;            // [scalar_count]
    long long* place;      // [3]
    long long* steps;      // [1]
    const float* skipped;  // [1] or null: steps of the epoch without update
    int scalar_count;

    __device__ __forceinline__ void add(A* loss /* [2] */, int rows) const {
        if (losses == nullptr) return;
        const long long number = place[0];
        const double before = number == 0 ? 0 : losses[2 * (number - 1)];
        if (!is_finite(before)) loss[0] = A(before - before);
        losses[2 * number] = loss[0];
        losses[2 * number + 1] = loss[1];
        const long long updates = skipped == nullptr ? number : number - (long long)*skipped;
#pragma unroll 1  // otherwise softmax_cross_entropy_block<double> spills on sm_100
        for (int i = 0; i < scalar_count; ++i) scalars[i] = table[updates * scalar_count + i];
        place[0] = number + 1;
        place[1] += rows;
        steps[0] += 1;
    }
};

#endif
