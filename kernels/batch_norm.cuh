// What the kernels of batch normalisation share: the elements that a thread owns, the tile on chip, sums over a block,
// one element forward and backward, the statistics of a block's rows. batch_norm.cu has formulas and overview.
#ifndef GPUNET_BATCH_NORM_CUH
#define GPUNET_BATCH_NORM_CUH

#include "activation.cuh"
#include "common.cuh"

constexpr int MOST_THREADS = 512;
// Rows that a thread of the element-wise sweeps has in flight: four packs of one matrix, or two of each of two.
constexpr int BATCH = 4, PAIR_BATCH = 2;

// ---------------------------------------------------------------------------------------------------- which elements

// The part of the matrix that a block works on, and what the calling thread owns of it.
struct Region {
    int column;    // first of the thread's N columns
    int rows;      // rows of the block
    int row, end;  // the thread's rows: row, row + blockDim.y, ... before end; none if its columns lie outside

    __device__ __forceinline__ Region(int width, int tile, int part, int parts, int matrix_rows, int columns) {
        const int first = rows_before(matrix_rows, part, parts), last = rows_before(matrix_rows, part + 1, parts);
        column = (tile * blockDim.x + threadIdx.x) * width;
        rows = last - first;
        row = first + threadIdx.y;
        end = column < columns ? last : first;
    }
    __device__ __forceinline__ bool is_inside() const { return end > row - (int)threadIdx.y; }
};

// Shared memory of one block: `arrays` tiles, then the sums of the warps, then results by column.
template <typename T, int N>
struct SharedLayout {
    typedef arithmetic<T> A;
    Pack<T, N>* tile;  // [arrays][slot][thread]
    int tile_packs;    // packs of one array
    A* warp_sums;      // [2][warps][tile columns]
    A* totals;         // [2][tile columns]
    A* results;        // [2][tile columns]

    // Every block of a cluster computes the same layout, from the largest of the parts.
    __device__ __forceinline__ SharedLayout(unsigned char* memory, int arrays, int matrix_rows, int parts) {
        const int part_rows = (matrix_rows + parts - 1) / parts, columns = blockDim.x * N;
        const int slots = (part_rows + blockDim.y - 1) / blockDim.y;
        tile = reinterpret_cast<Pack<T, N>*>(memory);
        tile_packs = slots * threads_in_block();
        warp_sums = reinterpret_cast<A*>(tile + arrays * tile_packs);
        totals = warp_sums + 2 * (threads_in_block() / WARP_LANES) * columns;
        results = totals + 2 * columns;
    }
};

// Where there are no asynchronous copies, a batch of loads is in flight at a time.
template <typename T, int N>
__device__ __forceinline__ void copy_region(Pack<T, N>* tile, const T* matrix, const Region& region, int columns) {
    const int stride = blockDim.y, threads = threads_in_block();
    Pack<T, N>* slot = tile + thread_in_block();
    for (int row = region.row; row < region.end; row += BATCH * stride, slot += BATCH * threads) {
        Pack<T, N> packs[BATCH];
#pragma unroll
        for (int k = 0; k < BATCH; ++k) {
            if (row + k * stride >= region.end) break;
            const T* const address = matrix + element_offset(row + k * stride, region.column, columns);
            if constexpr (HAS_ASYNC_COPY<T, N>) copy_pack_async<N>(slot + k * threads, address);
            else packs[k] = load_pack<N>(address);
        }
        if constexpr (!HAS_ASYNC_COPY<T, N>)
#pragma unroll
            for (int k = 0; k < BATCH; ++k)
                if (row + k * stride < region.end) slot[k * threads] = packs[k];
    }
}

// totals[q][column] = sum over the block's rows, for Q quantities of which each thread brings its own rows' part.
// Has a barrier before it writes totals, and ends with one: what it uses is free for the next call.
template <int Q, typename T, int N, typename A>
__device__ __forceinline__ void sum_over_block(const A (&values)[Q][N], const SharedLayout<T, N>& shared) {
    const int packs = blockDim.x, columns = packs * N, warps = threads_in_block() / WARP_LANES;
    const int warp = thread_in_block() / WARP_LANES, lane = thread_in_block() % WARP_LANES;
#pragma unroll
    for (int q = 0; q < Q; ++q)
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const A sum = warp_reduce<Sum>(values[q][i], packs);
            if (lane < packs) shared.warp_sums[(q * warps + warp) * columns + lane * N + i] = sum;
        }
    __syncthreads();
    for (int index = thread_in_block(); index < Q * columns; index += threads_in_block()) {
        const int q = index / columns;
        const A* first = shared.warp_sums + q * warps * columns + index % columns;
        A total = 0;
        for (int other = 0; other < warps; ++other) total += first[other * columns];
        shared.totals[index] = total;
    }
    __syncthreads();
}

// --------------------------------------------------------------------------------------------------------- one element

// What the forward and the backward pass know of a thread's columns.
template <typename T, int N>
struct Columns {
    typedef arithmetic<T> A;
    A mean[N], scale[N], shift[N];

    // gamma and beta are null where the layer has none.
    __device__ __forceinline__ void load_scale_and_shift(const A* gamma, const A* beta, int column) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
            scale[i] = gamma != nullptr ? gamma[column + i] : A(1);
            shift[i] = beta != nullptr ? beta[column + i] : A(0);
        }
    }
    __device__ __forceinline__ void set_statistics(int index, A column_mean, A inverse_std) {
        mean[index] = column_mean;
        scale[index] = multiply_rounded(scale[index], inverse_std);
    }
    __device__ __forceinline__ void load(
        const A* gamma, const A* beta, const A* column_mean, const A* inverse_std, int column) {
        load_scale_and_shift(gamma, beta, column);
#pragma unroll
        for (int i = 0; i < N; ++i) set_statistics(i, column_mean[column + i], inverse_std[column + i]);
    }
    __device__ __forceinline__ A centred(A s, int index) const { return subtract_rounded(s, mean[index]); }

    // z, and y as it is stored: the one expression of the forward and of the backward pass.
    __device__ __forceinline__ A normalised(A s, int index) const {
        return fused_multiply_add(centred(s, index), scale[index], shift[index]);
    }
    template <typename F>
    __device__ __forceinline__ T output(A s, int index, A parameter) const {
        return to_storage<T>(F::forward(normalised(s, index), parameter));
    }
    template <typename F>
    __device__ __forceinline__ A gradient(A dy, A s, int index, A parameter) const {
        if constexpr (F::DERIVATIVE_OF_INPUT) return dy * F::derivative(normalised(s, index), parameter);
        return dy * F::derivative(to_arithmetic(output<F>(s, index, parameter)), parameter);
    }
    template <typename F>
    __device__ __forceinline__ Pack<T, N> outputs(const Pack<T, N>& s, A parameter) const {
        Pack<T, N> y;
#pragma unroll
        for (int i = 0; i < N; ++i) y.values[i] = output<F>(s.get(i), i, parameter);
        return y;
    }
};

// ---------------------------------------------------------------------------------------------------------- statistics

template <typename A>
struct Statistics {  // (columns,) each
    A *mean, *inverse_std, *running_mean, *running_variance;
    A momentum, epsilon;

    __device__ __forceinline__ A inverse_std_of(A squares, int rows) const {
        return A(1) / square_root(squares / A(rows) + epsilon);
    }
    // `squares` is the sum of squared deviations from the mean.
    __device__ __forceinline__ void write(int column, A column_mean, A squares, int rows) const {
        mean[column] = column_mean;
        inverse_std[column] = inverse_std_of(squares, rows);
        running_mean[column] = (A(1) - momentum) * running_mean[column] + momentum * column_mean;
        running_variance[column] = (A(1) - momentum) * running_variance[column] + momentum * (squares / A(rows - 1));
    }
};

// Mean and sum of squared deviations of each of the tile's columns over the block's rows, into results[0] and
// results[1]; follow with a barrier. The first mean is as rough as a sum of large numbers is, and need not be better:
// the deviations from it are exact or nearly so, and say by how much it is off.
template <typename T, int N>
__device__ __forceinline__ void find_block_statistics(const SharedLayout<T, N>& shared, const Region& region) {
    typedef arithmetic<T> A;
    const int threads = threads_in_block(), columns = blockDim.x * N;
    A sum[1][N] = {};
    for (int row = region.row, slot = thread_in_block(); row < region.end; row += blockDim.y, slot += threads) {
        const Pack<T, N> s = shared.tile[slot];
#pragma unroll
        for (int i = 0; i < N; ++i) sum[0][i] += s.get(i);
    }
    sum_over_block(sum, shared);

    A mean[N], deviations[2][N] = {};  // sums of deviations from the mean, and of their squares
#pragma unroll
    for (int i = 0; i < N; ++i) mean[i] = shared.totals[threadIdx.x * N + i] / A(region.rows);
    for (int row = region.row, slot = thread_in_block(); row < region.end; row += blockDim.y, slot += threads) {
        const Pack<T, N> s = shared.tile[slot];
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const A deviation = s.get(i) - mean[i];
            deviations[0][i] += deviation;
            deviations[1][i] += deviation * deviation;
        }
    }
    sum_over_block(deviations, shared);
    if (threadIdx.y == 0) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int index = threadIdx.x * N + i;
            const A residual = shared.totals[index] / A(region.rows);
            shared.results[index] = mean[i] + residual;
            // In one rounding, as the compiler does for a GPU anyway: infinity minus a product beyond it is no NaN.
            const A squares = fused_multiply_add(-residual, shared.totals[index], shared.totals[columns + index]);
            shared.results[columns + index] = squares < A(0) ? A(0) : squares;
        }
    }
}

// ------------------------------------------------------------------------------------------------ element-wise sweep

// y of a region. All of a batch's loads are issued before its first store, which may alias them. STREAMING: nobody
// reads s again, and y must not push out of the L2 cache what is still to be read.
template <typename F, bool STREAMING, typename T, int N>
__device__ __forceinline__ void write_outputs(
    const T* s, T* y, const Columns<T, N>& own, const Region& region, int columns, arithmetic<T> parameter) {
    const int stride = blockDim.y;
    for (int row = region.row; row < region.end; row += BATCH * stride) {
        Pack<T, N> inputs[BATCH];
#pragma unroll
        for (int k = 0; k < BATCH; ++k) {
            if (row + k * stride >= region.end) break;
            const T* const address = s + element_offset(row + k * stride, region.column, columns);
            if constexpr (STREAMING) inputs[k] = load_pack_streaming<N>(address);
            else inputs[k] = load_pack<N>(address);
        }
#pragma unroll
        for (int k = 0; k < BATCH; ++k) {
            if (row + k * stride >= region.end) break;
            T* const address = y + element_offset(row + k * stride, region.column, columns);
            const Pack<T, N> output = own.template outputs<F>(inputs[k], parameter);
            if constexpr (STREAMING) store_pack_streaming<N>(address, output);
            else store_pack<N>(address, output);
        }
    }
}

#endif
