// J = sum_i w_i l_i / sum_i w_i with l_i = sum_j h(o_ij - t_ij), h(e) = e^2 / 2 where |e| <= delta and
// delta (|e| - delta / 2) elsewhere, and its gradient w_i / sum w g, g = e limited to -delta .. delta.
//
// Both branches of h are g (e - g / 2), which overflows only where h does.
//
// Threads and bytes: error_loss.cuh.
#include "error_loss.cuh"

template <typename A>
struct Huber {
    A delta;

    __device__ __forceinline__ A gradient(A error, int column) const {
        return error > delta ? delta : error < -delta ? -delta : error;  // NaN is neither
    }
    __device__ __forceinline__ A weighted(A weight, A error, A gradient) const {
        return weight * (gradient * (error - gradient / A(2)));
    }
};

template <typename T>
__global__ void __launch_bounds__(256)
    huber(T* outputs /* [rows, columns] */, const arithmetic<T>* bias /* [columns] or null */,
          const T* targets /* [rows, columns] */,
          const arithmetic<T>* weights /* [rows] or null */, T* doutputs /* [rows, columns] */,
          arithmetic<T>* dbias /* [columns] or null */,
          arithmetic<T>* loss /* [2] */, arithmetic<T>* partial /* [gridDim.x] */,
          unsigned int* ticket /* [1] */, int rows, int columns,
          double* losses, const arithmetic<T>* table, arithmetic<T>* scalars, long long* place,
          long long* steps, const float* skipped, int scalar_count, arithmetic<T> delta) {
    typedef arithmetic<T> A;
    const A total = weight_total(weights, loss, rows);
    const A part = add_errors(Huber<A>{delta}, outputs, bias, targets, weights, doutputs, total, rows, columns);
    finish_weighted_mean(part, total, doutputs, dbias, loss, partial, ticket, rows, columns,
                         {losses, table, scalars, place, steps, skipped, scalar_count});
}
