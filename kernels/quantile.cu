// J = sum_i w_i l_i / sum_i w_i with l_i = sum_j [q_j max(t_ij - o_ij, 0) + (1 - q_j) max(o_ij - t_ij, 0)], and its
// gradient w_i / sum w g: g = 1 - q_j where the output is above the target, -q_j where it is below, 0 where they are
// equal. A term of the loss is g (o - t).
//
// `levels` has the q_j, or one number for all columns; they stay in the cache. Threads and bytes: error_loss.cuh.
#include "error_loss.cuh"

template <typename A>
struct Quantile {
    const A* levels;
    int level_stride;

    __device__ __forceinline__ A gradient(A error, int column) const {
        const A level = levels[column * level_stride];
        return error > A(0) ? A(1) - level : error < A(0) ? -level : error;  // NaN is neither
    }
    __device__ __forceinline__ A weighted(A weight, A error, A gradient) const { return weight * (gradient * error); }
};

template <typename T>
__global__ void __launch_bounds__(256, 2)
    quantile(T* outputs /* [rows, columns] */, const arithmetic<T>* bias /* [columns] or null */,
             const T* targets /* [rows, columns] */,
             const arithmetic<T>* weights /* [rows] or null */, T* doutputs /* [rows, columns] */,
             arithmetic<T>* dbias /* [columns] or null */,
             arithmetic<T>* loss /* [2] */, arithmetic<T>* partial /* [gridDim.x] */,
             unsigned int* ticket /* [1] */, int rows, int columns,
             double* losses, const arithmetic<T>* table, arithmetic<T>* scalars, long long* place,
             long long* steps, const float* skipped, int scalar_count,
             const arithmetic<T>* levels /* [columns], or [1] */, int level_stride /* 1, or 0 for one level */) {
    typedef arithmetic<T> A;
    const A total = weight_total(weights, loss, rows);
    const Quantile<A> function{levels, level_stride};
    const A part = add_errors(function, outputs, bias, targets, weights, doutputs, total, rows, columns);
    finish_weighted_mean(part, total, doutputs, dbias, loss, partial, ticket, rows, columns,
                         {losses, table, scalars, place, steps, skipped, scalar_count});
}
