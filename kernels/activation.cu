// Y = f(S + b), and backwards dS = dY f'(S + b), with f' in terms of Y or of S + b; db_j = sum_i dS_ij.
//
// A block of 256 threads (x, y) covers a tile of columns: thread x holds N neighbouring columns, moved by one access
// of up to 16 bytes, and keeps their bias (or their sums) in registers while it goes down rows y, y + blockDim.y, ...
// of the block's part of the rows, four rows in flight. grid.x counts tiles of columns, grid.y parts of the rows.
//
// The bias gradient is summed in the same pass: by each thread over its rows, by the block over its threads, and by the
// last block of each tile over the parts of the rows. A sum over 65536 rows so has chains of about a hundred additions.
//
// Bytes: forward 1 element read, 1 written; backward 2 read, 1 written: the minimum. The partial sums add
// grid.y / rows of that.
#include "activation.cuh"

constexpr int THREADS = 256;
constexpr int ROWS_IN_FLIGHT = 4;

template <typename T, typename F, int N>
__global__ void __launch_bounds__(THREADS, 2)
    bias_activation_forward(const T* s /* [rows, columns] */, const arithmetic<T>* bias /* [columns] or null */,
                            T* out /* [rows, columns], may be s */, int rows, int columns, arithmetic<T> parameter) {
    typedef arithmetic<T> A;
    const int column = (blockIdx.x * blockDim.x + threadIdx.x) * N;
    if (column >= columns) return;
    A shift[N];
#pragma unroll
    for (int i = 0; i < N; ++i) shift[i] = bias == nullptr ? A(0) : bias[column + i];

    const int step = blockDim.y, end = rows_before(rows, blockIdx.y + 1, gridDim.y);
    for (int row = rows_before(rows, blockIdx.y, gridDim.y) + threadIdx.y; row < end; row += ROWS_IN_FLIGHT * step) {
        Pack<T, N> values[ROWS_IN_FLIGHT];
#pragma unroll
        for (int r = 0; r < ROWS_IN_FLIGHT; ++r)
            if (row + r * step < end) values[r] = load_pack<N>(s + element_offset(row + r * step, column, columns));
#pragma unroll
        for (int r = 0; r < ROWS_IN_FLIGHT; ++r) {
            if (row + r * step >= end) break;
#pragma unroll
            for (int i = 0; i < N; ++i)
                values[r].set(i, F::forward(values[r].get(i) + shift[i], parameter));
            store_pack(out + element_offset(row + r * step, column, columns), values[r]);
        }
    }
}

// Writes the sums of `values` over the threads (x, 0), (x, 1), ... of a block to `sums` [x * N], in that order.
template <int N, typename A>
__device__ __forceinline__ void add_down_the_block(const A (&values)[N], A (&sums)[N], A* scratch /* [THREADS * N] */) {
#pragma unroll
    for (int i = 0; i < N; ++i) scratch[i * THREADS + threadIdx.y * blockDim.x + threadIdx.x] = values[i];
    __syncthreads();
    if (threadIdx.y == 0) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
            sums[i] = 0;
            for (int y = 0; y < blockDim.y; ++y) sums[i] += scratch[i * THREADS + y * blockDim.x + threadIdx.x];
        }
    }
    __syncthreads();
}

template <typename T, typename F, int N>
__global__ void __launch_bounds__(THREADS, 2)
    bias_activation_backward(const T* dy /* [rows, columns] */, const T* kept /* [rows, columns]: y, or s */,
                             const arithmetic<T>* bias /* [columns] or null; read where s is kept */,
                             T* ds /* [rows, columns], may be dy */, arithmetic<T>* dbias /* [columns] or null */,
                             arithmetic<T>* partial /* [gridDim.y, columns] or null */,
                             unsigned int* tickets /* [gridDim.x] or null */, int rows, int columns,
                             arithmetic<T> parameter) {
    typedef arithmetic<T> A;
    SHARED(A, scratch, [THREADS * N]);
    const int column = (blockIdx.x * blockDim.x + threadIdx.x) * N;
    A sums[N] = {};
    if (column < columns) {
        A shift[N] = {};
        if (F::DERIVATIVE_OF_INPUT && bias != nullptr)
#pragma unroll
            for (int i = 0; i < N; ++i) shift[i] = bias[column + i];
        const int step = blockDim.y, end = rows_before(rows, blockIdx.y + 1, gridDim.y);
        for (int row = rows_before(rows, blockIdx.y, gridDim.y) + threadIdx.y; row < end;
             row += ROWS_IN_FLIGHT * step) {
            Pack<T, N> gradients[ROWS_IN_FLIGHT], arguments[ROWS_IN_FLIGHT];
#pragma unroll
            for (int r = 0; r < ROWS_IN_FLIGHT; ++r) {
                if (row + r * step >= end) break;
                const long long offset = element_offset(row + r * step, column, columns);
                gradients[r] = load_pack<N>(dy + offset);
                // The identity's derivative is 1 whatever the output: dead to the compiler then, like this load.
                arguments[r] = load_pack<N>(kept + offset);
            }
#pragma unroll
            for (int r = 0; r < ROWS_IN_FLIGHT; ++r) {
                if (row + r * step >= end) break;
#pragma unroll
                for (int i = 0; i < N; ++i) {
                    A argument = arguments[r].get(i);
                    if constexpr (F::DERIVATIVE_OF_INPUT) argument = argument + shift[i];
                    gradients[r].set(i, gradients[r].get(i) * F::derivative(argument, parameter));
                    sums[i] += gradients[r].get(i);
                }
                store_pack(ds + element_offset(row + r * step, column, columns), gradients[r]);
            }
        }
    }
    if (dbias == nullptr) return;

    const bool is_writer = threadIdx.y == 0 && column < columns;
    add_down_the_block(sums, sums, scratch);
    if (gridDim.y > 1) {
#pragma unroll
        for (int i = 0; i < N; ++i)
            if (is_writer) partial[element_offset(blockIdx.y, column + i, columns)] = sums[i];
        if (!is_last_block(tickets + blockIdx.x, gridDim.y)) return;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            sums[i] = 0;
            if (column >= columns) continue;
            for (int part = threadIdx.y; part < gridDim.y; part += blockDim.y)
                sums[i] += __ldcg(partial + element_offset(part, column + i, columns));
        }
        add_down_the_block(sums, sums, scratch);
    }
#pragma unroll
    for (int i = 0; i < N; ++i)
        if (is_writer) dbias[column + i] = sums[i];
}
