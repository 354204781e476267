// Batch normalisation of a chunk of rows by a block, and what the last block of a tile of columns makes of all chunks:
// for columns that do not stay on chip, and for the rows of a shard. batch_norm.cu has the formulas.
#ifndef GPUNET_BATCH_NORM_CHUNKS_CUH
#define GPUNET_BATCH_NORM_CHUNKS_CUH

#include "batch_norm.cuh"

// partial[q][chunk][column] = source[q][column of the tile], for both quantities q.
template <typename A>
__device__ __forceinline__ void write_partial(
    A* partial, const A* source, int tile, int chunk, int chunks, int tile_columns, int columns) {
    for (int index = thread_in_block(); index < 2 * tile_columns; index += threads_in_block()) {
        const int q = index / tile_columns, column = tile * tile_columns + index % tile_columns;
        if (column < columns) partial[element_offset(q * chunks + chunk, column, columns)] = source[index];
    }
}

// Of all rows: the mean of the thread's columns, and the squared deviations from it in totals. `partial` has the same
// of each chunk. The threads take the chunks as they took the rows, twice: for the mean, and for the deviations from it.
template <typename T, int N>
__device__ __forceinline__ void merge_statistics(
    const arithmetic<T>* partial, const SharedLayout<T, N>& shared, const Region& region, int rows, int chunks,
    int columns, arithmetic<T> (&mean)[N]) {
    typedef arithmetic<T> A;
    const A* const partial_squares = partial + element_offset(chunks, 0, columns);
    const int chunks_end = region.is_inside() ? chunks : 0;
    A pivot[N] = {}, shift[1][N] = {}, squares[1][N] = {};
    if (region.is_inside())
#pragma unroll
        for (int i = 0; i < N; ++i) pivot[i] = __ldcg(partial + region.column + i);
    for (int chunk = threadIdx.y; chunk < chunks_end; chunk += blockDim.y) {
        const A count = A(rows_before(rows, chunk + 1, chunks) - rows_before(rows, chunk, chunks));
        const long long offset = element_offset(chunk, region.column, columns);
#pragma unroll
        for (int i = 0; i < N; ++i) shift[0][i] += count * (__ldcg(partial + offset + i) - pivot[i]);
    }
    sum_over_block(shift, shared);
#pragma unroll
    for (int i = 0; i < N; ++i) shift[0][i] = shared.totals[threadIdx.x * N + i] / A(rows);
    for (int chunk = threadIdx.y; chunk < chunks_end; chunk += blockDim.y) {
        const A count = A(rows_before(rows, chunk + 1, chunks) - rows_before(rows, chunk, chunks));
        const long long offset = element_offset(chunk, region.column, columns);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const A distance = __ldcg(partial + offset + i) - pivot[i] - shift[0][i];
            squares[0][i] += __ldcg(partial_squares + offset + i) + count * distance * distance;
        }
    }
    sum_over_block(squares, shared);
#pragma unroll
    for (int i = 0; i < N; ++i) mean[i] = pivot[i] + shift[0][i];
}

// Into totals: the sums of dz, and of dz (s - mean), over the block's rows.
template <typename F, typename T, int N>
__device__ __forceinline__ void sum_gradients(
    const T* dy, const T* s, const Columns<T, N>& own, const SharedLayout<T, N>& shared, const Region& region,
    int columns, arithmetic<T> parameter) {
    typedef arithmetic<T> A;
    const int stride = blockDim.y;
    A sums[2][N] = {};
    for (int row = region.row; row < region.end; row += PAIR_BATCH * stride) {
        Pack<T, N> gradients[PAIR_BATCH], inputs[PAIR_BATCH];
#pragma unroll
        for (int k = 0; k < PAIR_BATCH; ++k) {
            if (row + k * stride >= region.end) break;
            const long long position = element_offset(row + k * stride, region.column, columns);
            gradients[k] = load_pack<N>(dy + position);
            inputs[k] = load_pack<N>(s + position);
        }
#pragma unroll
        for (int k = 0; k < PAIR_BATCH; ++k) {
            if (row + k * stride >= region.end) break;
#pragma unroll
            for (int i = 0; i < N; ++i) {
                const A input = inputs[k].get(i);
                const A dz = own.template gradient<F>(gradients[k].get(i), input, i, parameter);
                sums[0][i] += dz;
                sums[1][i] += dz * own.centred(input, i);
            }
        }
    }
    sum_over_block(sums, shared);
}

// Into totals: the same over all rows, of which `partial` has those of each chunk.
template <typename T, int N>
__device__ __forceinline__ void merge_sums(
    const arithmetic<T>* partial, const SharedLayout<T, N>& shared, const Region& region, int chunks, int columns) {
    typedef arithmetic<T> A;
    const A* const partial_shat = partial + element_offset(chunks, 0, columns);
    A merged[2][N] = {};
    for (int chunk = threadIdx.y; chunk < (region.is_inside() ? chunks : 0); chunk += blockDim.y) {
        const long long offset = element_offset(chunk, region.column, columns);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            merged[0][i] += __ldcg(partial + offset + i);
            merged[1][i] += __ldcg(partial_shat + offset + i);
        }
    }
    sum_over_block(merged, shared);
}

// dgamma and dbeta of these sums.
template <typename T, int N, typename A>
__device__ __forceinline__ void write_parameter_gradients(
    const SharedLayout<T, N>& shared, const Region& region, const A* inverse_std, A* dgamma, A* dbeta) {
    if (threadIdx.y == 0 && region.is_inside())
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int column = region.column + i, index = threadIdx.x * N + i;
            dbeta[column] = shared.totals[index];
            dgamma[column] = shared.totals[blockDim.x * N + index] * inverse_std[column];
        }
}

// ds of a region inside the matrix, from the sums over the `rows` of a batch. All of a batch's loads are issued before
// its first store, which may alias them. STREAMING as in write_outputs.
template <typename F, bool STREAMING, typename T, int N>
__device__ __forceinline__ void write_input_gradients(
    const T* dy, const T* s, T* ds, const Columns<T, N>& own, const arithmetic<T>* inverse_std,
    const arithmetic<T>* dgamma, const arithmetic<T>* dbeta, const Region& region, int rows, int columns,
    arithmetic<T> parameter) {
    typedef arithmetic<T> A;
    const int stride = blockDim.y;
    A offset[N], slope[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const int column = region.column + i;
        offset[i] = __ldcg(dbeta + column) / A(rows);
        slope[i] = __ldcg(dgamma + column) * inverse_std[column] / A(rows);
    }
    for (int row = region.row; row < region.end; row += PAIR_BATCH * stride) {
        Pack<T, N> gradients[PAIR_BATCH], inputs[PAIR_BATCH];
#pragma unroll
        for (int k = 0; k < PAIR_BATCH; ++k) {
            if (row + k * stride >= region.end) break;
            const long long position = element_offset(row + k * stride, region.column, columns);
            gradients[k] = load_pack_streaming<N>(dy + position);
            inputs[k] = load_pack_streaming<N>(s + position);
        }
#pragma unroll
        for (int k = 0; k < PAIR_BATCH; ++k) {
            if (row + k * stride >= region.end) break;
            Pack<T, N> result;
#pragma unroll
            for (int i = 0; i < N; ++i) {
                const A input = inputs[k].get(i);
                const A dz = own.template gradient<F>(gradients[k].get(i), input, i, parameter);
                result.set(i, own.scale[i] * (dz - offset[i] - own.centred(input, i) * slope[i]));
            }
            T* const address = ds + element_offset(row + k * stride, region.column, columns);
            if constexpr (STREAMING) store_pack_streaming<N>(address, result);
            else store_pack<N>(address, result);
        }
    }
}

#endif
