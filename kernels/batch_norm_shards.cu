// Batch normalisation and activation in parts, for a batch whose rows are in shards: what is done with the rows of each
// shard, and what merges the statistics of all. batch_norm.cu has the formulas, the threads and the arithmetic types.
//
//   Forward    statistics of each shard: its mean, and its squared deviations from it
//              merge: mean and inverse_std of the batch, running averages
//              apply: y of each shard
//   Backward   sums of each shard: dbeta and dgamma
//              input gradient: ds of each shard, from those sums over all shards
//
// A block works on one tile of columns and one chunk of rows, as in the striped algorithm, whose device functions these
// kernels share; nothing waits for another block. The last block of a tile merges its chunks. In what order numbers are
// added depends on shape, plan and type alone, and so not on where in a buffer the rows of a shard begin, as long as
// alignment allows the same width: every shard begins at a multiple of 8 rows, and 8 elements are 16 bytes or more.
//
// Elements moved to and from device memory, per element of the matrix, and the minimum of each part by itself:
//              statistics reads s: 1; apply reads s, writes y: 2; sums reads dy, s: 2; input gradient reads both,
//              writes ds: 3. The merge reads two numbers of a column and shard, in order, by a thread for each column.
#include "batch_norm_chunks.cuh"

// The grid has the tiles of columns, chunk after chunk.
__device__ __forceinline__ int tile_of_block(int chunks) { return blockIdx.x % (gridDim.x / chunks); }
__device__ __forceinline__ int chunk_of_block(int chunks) { return blockIdx.x / (gridDim.x / chunks); }

template <typename T, int N>
__global__ void __launch_bounds__(MOST_THREADS, 1) batch_norm_statistics(
    const T* __restrict__ s,                         // (rows, columns)
    arithmetic<T>* __restrict__ statistics,          // (2, columns), written
    arithmetic<T>* partial,                          // (2, chunks, columns), scratch
    unsigned int* counters,                          // (tiles,), zeros
    int rows, int columns, int chunks) {
    typedef arithmetic<T> A;
    DYNAMIC_SHARED(unsigned char, memory);
    const int tile = tile_of_block(chunks), chunk = chunk_of_block(chunks);
    const Region region(N, tile, chunk, chunks, rows, columns);
    const SharedLayout<T, N> shared(memory, 1, rows, chunks);
    copy_region(shared.tile, s, region, columns);
    wait_for_copies();
    find_block_statistics(shared, region);
    __syncthreads();
    write_partial(chunks == 1 ? statistics : partial, shared.results, tile, chunk, chunks, blockDim.x * N, columns);
    if (chunks == 1 || !is_last_block(counters + tile, chunks)) return;
    A mean[N];
    merge_statistics(partial, shared, region, rows, chunks, columns, mean);
    if (threadIdx.y == 0 && region.is_inside())
#pragma unroll
        for (int i = 0; i < N; ++i) {
            statistics[region.column + i] = mean[i];
            statistics[columns + region.column + i] = shared.totals[threadIdx.x * N + i];
        }
}

template <typename A>
__global__ void __launch_bounds__(256) batch_norm_merge(
    const A* __restrict__ statistics,                // (shards, 2, columns)
    const int* __restrict__ counts,                  // (shards,), the first above 0
    A* __restrict__ mean,                            // (columns,), written
    A* __restrict__ inverse_std,                     // (columns,), written
    A* __restrict__ running_mean,                    // (columns,), updated
    A* __restrict__ running_variance,                // (columns,), updated
    int shards, int columns, A momentum, A epsilon) {
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= columns) return;
    const A pivot = statistics[column];
    A shift = 0, squares = 0;
    int rows = 0;
    for (int shard = 0; shard < shards; ++shard) {
        const int count = counts[shard];
        if (count == 0) continue;
        rows += count;
        shift += A(count) * (statistics[element_offset(2 * shard, column, columns)] - pivot);
    }
    shift /= A(rows);
    for (int shard = 0; shard < shards; ++shard) {
        const int count = counts[shard];
        if (count == 0) continue;
        const A distance = statistics[element_offset(2 * shard, column, columns)] - pivot - shift;
        squares += statistics[element_offset(2 * shard + 1, column, columns)] + A(count) * distance * distance;
    }
    Statistics<A>{mean, inverse_std, running_mean, running_variance, momentum, epsilon}.write(
        column, pivot + shift, squares, rows);
}

// Grid: (tiles of columns, parts of the rows).
template <typename T, int N, typename F>
__global__ void __launch_bounds__(MOST_THREADS, 1) batch_norm_apply(
    const T* s,                                      // (rows, columns)
    const arithmetic<T>* __restrict__ gamma,         // (columns,) or null
    const arithmetic<T>* __restrict__ beta,          // (columns,) or null
    const arithmetic<T>* __restrict__ mean,          // (columns,)
    const arithmetic<T>* __restrict__ inverse_std,   // (columns,)
    T* y,                                            // (rows, columns), written
    int rows, int columns, arithmetic<T> parameter) {
    const Region region(N, blockIdx.x, blockIdx.y, gridDim.y, rows, columns);
    if (!region.is_inside()) return;
    Columns<T, N> own;
    own.load(gamma, beta, mean, inverse_std, region.column);
    write_outputs<F, false>(s, y, own, region, columns, parameter);
}

template <typename T, int N, typename F>
__global__ void __launch_bounds__(MOST_THREADS, 1) batch_norm_sums(
    const T* __restrict__ dy,                        // (rows, columns)
    const T* __restrict__ s,                         // (rows, columns)
    const arithmetic<T>* __restrict__ gamma,         // (columns,) or null
    const arithmetic<T>* __restrict__ beta,          // (columns,) or null
    const arithmetic<T>* __restrict__ mean,          // (columns,)
    const arithmetic<T>* __restrict__ inverse_std,   // (columns,)
    arithmetic<T>* __restrict__ dgamma,              // (columns,), written
    arithmetic<T>* __restrict__ dbeta,               // (columns,), written
    arithmetic<T>* partial,                          // (2, chunks, columns), scratch
    unsigned int* counters,                          // (tiles,), zeros
    int rows, int columns, int chunks, arithmetic<T> parameter) {
    DYNAMIC_SHARED(unsigned char, memory);
    const int tile = tile_of_block(chunks), chunk = chunk_of_block(chunks);
    const Region region(N, tile, chunk, chunks, rows, columns);
    const SharedLayout<T, N> shared(memory, 0, rows, chunks);
    Columns<T, N> own;
    if (region.is_inside()) own.load(gamma, beta, mean, inverse_std, region.column);
    sum_gradients<F>(dy, s, own, shared, region, columns, parameter);
    if (chunks > 1) {
        write_partial(partial, shared.totals, tile, chunk, chunks, blockDim.x * N, columns);
        if (!is_last_block(counters + tile, chunks)) return;
        merge_sums(partial, shared, region, chunks, columns);
    }
    write_parameter_gradients(shared, region, inverse_std, dgamma, dbeta);
}

// Grid: (tiles of columns, parts of the rows).
template <typename T, int N, typename F>
__global__ void __launch_bounds__(MOST_THREADS, 1) batch_norm_input_gradient(
    const T* dy,                                     // (rows, columns)
    const T* __restrict__ s,                         // (rows, columns)
    const arithmetic<T>* __restrict__ gamma,         // (columns,) or null
    const arithmetic<T>* __restrict__ beta,          // (columns,) or null
    const arithmetic<T>* __restrict__ mean,          // (columns,)
    const arithmetic<T>* __restrict__ inverse_std,   // (columns,)
    const arithmetic<T>* __restrict__ dgamma,        // (columns,), of the whole batch
    const arithmetic<T>* __restrict__ dbeta,         // (columns,), of the whole batch
    T* ds,                                           // (rows, columns), written; may be dy
    int rows, int columns, int batch_rows, arithmetic<T> parameter) {
    const Region region(N, blockIdx.x, blockIdx.y, gridDim.y, rows, columns);
    if (!region.is_inside()) return;
    Columns<T, N> own;
    own.load(gamma, beta, mean, inverse_std, region.column);
    write_input_gradients<F, false>(dy, s, ds, own, inverse_std, dgamma, dbeta, region, batch_rows, columns, parameter);
}
