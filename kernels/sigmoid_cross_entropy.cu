// J = sum_i w_i l_i / sum_i w_i with l_i = sum_j [max(o_ij, 0) - o_ij t_ij + log(1 + exp(-|o_ij|))], which is the
// cross-entropy of p_ij = sigmoid(o_ij) with the targets t_ij, and its gradient w_i / sum w (p_ij - t_ij).
//
// Without a difference of nearly equal numbers: with e = exp(-|o|),
// where o >= 0: l = (1 - t) o + log(1 + e) and p - t = ((1 - t) - t e) / (1 + e);
// where o < 0:  l = -t o + log(1 + e)      and p - t = ((1 - t) e - t) / (1 + e).
//
// Thread t handles elements t, t + grid, ... of the flattened arrays and adds up its part of the loss; each block adds
// its threads' parts, the last block those of the blocks, and the rows of the gradient to that of the bias
// (weighted_mean.cuh). With weights, total_weight runs first.
//
// Bytes: 2 elements read, 1 written per element, 1 weight read per row: the minimum. With a bias 1 more is written, and
// for its gradient 1 more is read, from the L2 cache.
#include "activation.cuh"
#include "weighted_mean.cuh"

__device__ __forceinline__ float absolute(float value) { return fabsf(value); }
__device__ __forceinline__ double absolute(double value) { return fabs(value); }

template <typename T>
__global__ void __launch_bounds__(256)
    sigmoid_cross_entropy(T* outputs /* [rows, columns] */, const arithmetic<T>* bias /* [columns] or null */,
                          const T* targets /* [rows, columns] */,
                          const arithmetic<T>* weights /* [rows] or null */, T* doutputs /* [rows, columns] */,
                          arithmetic<T>* dbias /* [columns] or null */,
                          arithmetic<T>* loss /* [2] */, arithmetic<T>* partial /* [gridDim.x] */,
                          unsigned int* ticket /* [1] */, int rows, int columns,
                          double* losses, const arithmetic<T>* table, arithmetic<T>* scalars, long long* place,
                          long long* steps, const float* skipped, int scalar_count) {
    typedef arithmetic<T> A;
    const A total = weight_total(weights, loss, rows);
    const long long count = (long long)rows * columns, stride = (long long)gridDim.x * blockDim.x;
    A part = 0;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        const A output = output_at(outputs, i, bias, (int)(i % columns));
        const A target = to_arithmetic(targets[i]), complement = A(1) - target;
        const A weight = weights == nullptr ? A(1) : weights[i / columns];
        const A e = exponential(-absolute(output));
        const bool negative = output < A(0);
        const A linear = negative ? -target * output : complement * output;
        const A error = (negative ? complement * e - target : complement - target * e) / (A(1) + e);
        doutputs[i] = to_storage<T>(total == A(0) ? A(0) : error * weight / total);
        part += weight * (linear + logarithm_of_one_plus(e));
    }
    finish_weighted_mean(part, total, doutputs, dbias, loss, partial, ticket, rows, columns,
                         {losses, table, scalars, place, steps, skipped, scalar_count});
}
