// The losses of the error e = o - t of every element by itself: l_i = sum_j l(e_ij).
//
// Thread t handles elements t, t + grid, ... of the flattened arrays and adds up its part of the loss; each block adds
// its threads' parts, the last block those of the blocks, and the rows of the gradient to that of the bias
// (weighted_mean.cuh). With weights, total_weight runs first.
//
// Bytes: 2 elements read, 1 written per element, 1 weight read per row: the minimum. With a bias 1 more is written, and
// for its gradient 1 more is read, from the L2 cache.
#ifndef GPUNET_ERROR_LOSS_CUH
#define GPUNET_ERROR_LOSS_CUH

#include "weighted_mean.cuh"

// Writes the gradient and returns the thread's part of sum_i w_i l_i. A loss says dl/de of an error in some column, and
// w l, or a multiple of that.
template <typename T, typename Loss>
__device__ __forceinline__ arithmetic<T> add_errors(Loss loss, T* outputs /* [rows, columns] */,
                                                    const arithmetic<T>* bias /* [columns] or null */,
                                                    const T* targets /* [rows, columns] */,
                                                    const arithmetic<T>* weights /* [rows] or null */,
                                                    T* doutputs /* [rows, columns] */, arithmetic<T> total, int rows,
                                                    int columns) {
    typedef arithmetic<T> A;
    const long long count = (long long)rows * columns, stride = (long long)gridDim.x * blockDim.x;
    A part = 0;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        const A error = output_at(outputs, i, bias, (int)(i % columns)) - to_arithmetic(targets[i]);
        const A weight = weights == nullptr ? A(1) : weights[i / columns];
        const A gradient = loss.gradient(error, (int)(i % columns));
        doutputs[i] = to_storage<T>(total == A(0) ? A(0) : gradient * weight / total);
        part += loss.weighted(weight, error, gradient);
    }
    return part;
}

#endif
