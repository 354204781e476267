// J = sum_i w_i E_i / sum_i w_i with E_i = 1/2 sum_j (t_ij - o_ij)^2, and its gradient w_i / sum w (o_ij - t_ij).
//
// Threads and bytes: error_loss.cuh.
#include "error_loss.cuh"

template <typename A>
struct SquaredError {
    __device__ __forceinline__ A gradient(A error, int column) const { return error; }
    __device__ __forceinline__ A weighted(A weight, A error, A gradient) const { return weight * error * error; }
};

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
    const A part = add_errors(SquaredError<A>(), outputs, bias, targets, weights, doutputs, total, rows, columns);
    finish_weighted_mean(part / A(2), total, doutputs, dbias, loss, partial, ticket, rows, columns,
                         {losses, table, scalars, place, steps, skipped, scalar_count});
}
