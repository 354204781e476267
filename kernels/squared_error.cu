// J = sum_i w_i E_i / sum_i w_i with E_i = 1/2 sum_j (t_ij - o_ij)^2, and its gradient w_i / sum w (o_ij - t_ij).
//
// Thread t handles elements t, t + grid, ... of the flattened arrays and adds up its part of the loss; each block adds
// its threads' parts, the last block those of the blocks, and the rows of the gradient to that of the bias
// (weighted_mean.cuh). With weights, total_weight runs first.
//
// Bytes: 2 elements read, 1 written per element, 1 weight read per row: the minimum. With a bias 1 more is written, and
// for its gradient 1 more is read, from the L2 cache.
#include "weighted_mean.cuh"

template <typename T>
__global__ void __launch_bounds__(256)
    squared_error(T* outputs /* [rows, columns] */, const arithmetic<T>* bias /* [columns] or null */,
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
        const A error = output_at(outputs, i, bias, (int)(i % columns)) - to_arithmetic(targets[i]);
        const A weight = weights == nullptr ? A(1) : weights[i / columns];
        doutputs[i] = to_storage<T>(total == A(0) ? A(0) : error * weight / total);
        part += weight * error * error;
    }
    finish_weighted_mean(part / A(2), total, doutputs, dbias, loss, partial, ticket, rows, columns,
                         {losses, table, scalars, place, steps, skipped, scalar_count});
}
