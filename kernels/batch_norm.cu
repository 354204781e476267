// Batch normalisation and activation in one pass over the data: forward, backward, inference.
//
//   Forward    mean_j = sum_i s_ij / n          variance_j = sum_i (s_ij - mean_j)^2 / n
//              inverse_std_j = 1 / sqrt(variance_j + epsilon)
//              y_ij = f(gamma_j inverse_std_j (s_ij - mean_j) + beta_j)
//              running averages: (1 - momentum) old + momentum new, of the mean and of n / (n - 1) variance
//   Backward   dz_ij = dy_ij f'(z_ij)           dbeta_j = sum_i dz_ij
//              dgamma_j = sum_i dz_ij (s_ij - mean_j) inverse_std_j
//              ds_ij = gamma_j inverse_std_j (dz_ij - dbeta_j / n - (s_ij - mean_j) inverse_std_j dgamma_j / n)
//   Inference  y_ij = f(gamma_j (s_ij - running_mean_j) / sqrt(running_variance_j + epsilon) + beta_j)
//
// Two algorithms, one launch each; gpunet/backends/cuda/batch_norm.py chooses:
//
//   resident   A block, or a cluster of blocks that share the rows, keeps a tile of columns on chip: every element is
//              read once and written once.
//   striped    For columns too long for that. A first sweep sums over chunks of rows, the last block of a tile merges
//              its chunks, and a second sweep reads the same elements again and writes. Stripes of columns take turns,
//              so that the second sweep finds its stripe in the L2 cache.
//
// Elements moved to and from device memory, per element of the matrix (the minimum is that of `resident`):
//              forward                          backward
//   resident   read s, write y: 2               read dy, s, write ds: 3
//   striped    2, and 1 read from L2            3, and 2 read from L2
//   inference  read s, write y: 2
//
// Threads. The block is (packs, row lanes): thread (x, y) owns the N neighbouring columns of pack x of the block's tile
// and, of the block's rows, y, y + row lanes, y + 2 row lanes ... So a warp reads whole segments of
// packs * N * sizeof(T) bytes, 128 in the usual case; a column is reduced first by its thread, then across the lanes
// of a warp (shuffles), the warps of a block (shared memory), the blocks (a cluster's shared memory, or scratch).
//
// The tile on chip. Shared memory holds it as [slot][thread]: a thread copies its own rows in and reads only those
// again, so it serves as a large register file: no barrier, no bank conflict, and all copies in flight at once.
//
// The backward pass does not read y. It evaluates z, and y where the derivative needs it, again by the device function
// of the forward pass, from the stored mean and inverse_std, in operations that the compiler must round one by one: the
// same bits, y's rounding to the storage type included, so that y > 0 decides as it did forward. That saves one of four
// sweeps.
//
// Statistics never come from plain sums of squares: a block takes its mean, then deviations from it, which correct the
// mean, and their squares; blocks merge by the formula of Chan, Golub, LeVeque (1979).
//
// gamma, beta, dgamma, dbeta and all statistics are of the arithmetic type.
#include "batch_norm.cuh"
#include "batch_norm_striped.cuh"

// ------------------------------------------------------------------------------------------------ the resident kernels
// Grid: CLUSTER blocks for each tile of columns, side by side; rows at least CLUSTER.

template <int CLUSTER>
__device__ __forceinline__ void sync_tile() {
    if constexpr (CLUSTER > 1) cluster_sync();
    else __syncthreads();
}
// What the block of another rank holds where `value` is.
template <int CLUSTER, typename A>
__device__ __forceinline__ A value_of(int rank, A& value) {
    if constexpr (CLUSTER > 1) return *map_shared_rank(&value, rank);
    else return value;
}

template <typename T, int N, typename F, int CLUSTER>
__global__ void CLUSTER_DIMENSIONS(CLUSTER) __launch_bounds__(MOST_THREADS, 1) batch_norm_forward_resident(
    const T* __restrict__ s,                         // (rows, columns)
    const arithmetic<T>* __restrict__ gamma,         // (columns,) or null
    const arithmetic<T>* __restrict__ beta,          // (columns,) or null
    T* __restrict__ y,                               // (rows, columns), written
    arithmetic<T>* __restrict__ mean,                // (columns,), written
    arithmetic<T>* __restrict__ inverse_std,         // (columns,), written
    arithmetic<T>* __restrict__ running_mean,        // (columns,), updated
    arithmetic<T>* __restrict__ running_variance,    // (columns,), updated
    int rows, int columns, arithmetic<T> momentum, arithmetic<T> epsilon, arithmetic<T> parameter) {
    typedef arithmetic<T> A;
    DYNAMIC_SHARED(unsigned char, memory);
    const int rank = CLUSTER > 1 ? cluster_rank() : 0, tile_columns = blockDim.x * N, threads = threads_in_block();
    const Region region(N, blockIdx.x / CLUSTER, rank, CLUSTER, rows, columns);
    const SharedLayout<T, N> shared(memory, 1, rows, CLUSTER);
    const Statistics<A> statistics = {mean, inverse_std, running_mean, running_variance, momentum, epsilon};

    copy_region(shared.tile, s, region, columns);
    Columns<T, N> own;
    if (region.is_inside()) own.load_scale_and_shift(gamma, beta, region.column);
    wait_for_copies();
    find_block_statistics(shared, region);
    sync_tile<CLUSTER>();

    // One thread per column merges the blocks, in the order of their ranks: all blocks get the same bits.
    for (int index = thread_in_block(); index < tile_columns; index += threads) {
        const A pivot = value_of<CLUSTER>(0, shared.results[index]);
        A shift = 0, squares = 0;
        for (int other = 0; other < CLUSTER; ++other) {
            const int count = rows_before(rows, other + 1, CLUSTER) - rows_before(rows, other, CLUSTER);
            shift += A(count) * (value_of<CLUSTER>(other, shared.results[index]) - pivot);
        }
        shift /= A(rows);
        for (int other = 0; other < CLUSTER; ++other) {
            const int count = rows_before(rows, other + 1, CLUSTER) - rows_before(rows, other, CLUSTER);
            const A distance = value_of<CLUSTER>(other, shared.results[index]) - pivot - shift;
            squares += value_of<CLUSTER>(other, shared.results[tile_columns + index]) + A(count) * distance * distance;
        }
        shared.totals[index] = pivot + shift;
        shared.totals[tile_columns + index] = statistics.inverse_std_of(squares, rows);
        const int column = blockIdx.x / CLUSTER * tile_columns + index;
        if (rank == 0 && column < columns) statistics.write(column, pivot + shift, squares, rows);
    }
    sync_tile<CLUSTER>();  // totals is complete, and no block ends while another reads its results

#pragma unroll
    for (int i = 0; i < N; ++i) {
        const int index = threadIdx.x * N + i;
        own.set_statistics(i, shared.totals[index], shared.totals[tile_columns + index]);
    }
    for (int row = region.row, slot = thread_in_block(); row < region.end; row += blockDim.y, slot += threads) {
        const Pack<T, N> output = own.template outputs<F>(shared.tile[slot], parameter);
        store_pack<N>(y + element_offset(row, region.column, columns), output);
    }
}

template <typename T, int N, typename F, int CLUSTER>
__global__ void CLUSTER_DIMENSIONS(CLUSTER) __launch_bounds__(MOST_THREADS, 1) batch_norm_backward_resident(
    const T* dy,                                     // (rows, columns)
    const T* __restrict__ s,                         // (rows, columns)
    const arithmetic<T>* __restrict__ gamma,         // (columns,) or null
    const arithmetic<T>* __restrict__ beta,          // (columns,) or null
    const arithmetic<T>* __restrict__ mean,          // (columns,)
    const arithmetic<T>* __restrict__ inverse_std,   // (columns,)
    T* ds,                                           // (rows, columns), written; may be dy
    arithmetic<T>* __restrict__ dgamma,              // (columns,), written
    arithmetic<T>* __restrict__ dbeta,               // (columns,), written
    int rows, int columns, arithmetic<T> parameter) {
    typedef arithmetic<T> A;
    // dz takes the place of dy on chip where that loses nothing; elsewhere it is evaluated twice.
    constexpr bool KEEPS_DZ = sizeof(T) == sizeof(A);
    DYNAMIC_SHARED(unsigned char, memory);
    const int rank = CLUSTER > 1 ? cluster_rank() : 0, tile_columns = blockDim.x * N, threads = threads_in_block();
    const Region region(N, blockIdx.x / CLUSTER, rank, CLUSTER, rows, columns);
    const SharedLayout<T, N> shared(memory, 2, rows, CLUSTER);
    Pack<T, N>* const tile_dy = shared.tile;
    Pack<T, N>* const tile_s = shared.tile + shared.tile_packs;

    copy_region(tile_dy, dy, region, columns);
    copy_region(tile_s, s, region, columns);
    Columns<T, N> own;
    A own_inverse_std[N] = {};
    if (region.is_inside()) {
        own.load_scale_and_shift(gamma, beta, region.column);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            own_inverse_std[i] = inverse_std[region.column + i];
            own.set_statistics(i, mean[region.column + i], own_inverse_std[i]);
        }
    }
    wait_for_copies();

    A sums[2][N] = {};  // of dz, and of dz (s - mean)
    for (int row = region.row, slot = thread_in_block(); row < region.end; row += blockDim.y, slot += threads) {
        Pack<T, N> gradient = tile_dy[slot];
        const Pack<T, N> input = tile_s[slot];
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const A dz = own.template gradient<F>(gradient.get(i), input.get(i), i, parameter);
            sums[0][i] += dz;
            sums[1][i] += dz * own.centred(input.get(i), i);
            if constexpr (KEEPS_DZ) gradient.set(i, dz);
        }
        if constexpr (KEEPS_DZ) tile_dy[slot] = gradient;
    }
    sum_over_block(sums, shared);
    sync_tile<CLUSTER>();

    for (int index = thread_in_block(); index < 2 * tile_columns; index += threads) {
        A total = 0;
        for (int other = 0; other < CLUSTER; ++other) total += value_of<CLUSTER>(other, shared.totals[index]);
        shared.results[index] = total;
    }
    sync_tile<CLUSTER>();  // results is complete, and no block ends while another reads its totals

    A offset[N], slope[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const A sum_dz = shared.results[threadIdx.x * N + i];
        const A sum_dz_shat = shared.results[tile_columns + threadIdx.x * N + i] * own_inverse_std[i];
        offset[i] = sum_dz / A(rows);
        slope[i] = sum_dz_shat * own_inverse_std[i] / A(rows);
        if (rank == 0 && threadIdx.y == 0 && region.is_inside()) {
            dbeta[region.column + i] = sum_dz;
            dgamma[region.column + i] = sum_dz_shat;
        }
    }
    for (int row = region.row, slot = thread_in_block(); row < region.end; row += blockDim.y, slot += threads) {
        const Pack<T, N> gradient = tile_dy[slot], input = tile_s[slot];
        Pack<T, N> result;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            A dz = gradient.get(i);
            if constexpr (!KEEPS_DZ) dz = own.template gradient<F>(dz, input.get(i), i, parameter);
            result.set(i, own.scale[i] * (dz - offset[i] - own.centred(input.get(i), i) * slope[i]));
        }
        store_pack<N>(ds + element_offset(row, region.column, columns), result);
    }
}

// --------------------------------------------------------------------------------------------------------- inference

// Grid: (tiles of columns, parts of the rows).
template <typename T, int N, typename F>
__global__ void __launch_bounds__(MOST_THREADS, 1) batch_norm_inference(
    const T* s,                                            // (rows, columns)
    const arithmetic<T>* __restrict__ gamma,               // (columns,) or null
    const arithmetic<T>* __restrict__ beta,                // (columns,) or null
    const arithmetic<T>* __restrict__ running_mean,        // (columns,)
    const arithmetic<T>* __restrict__ running_variance,    // (columns,)
    T* y,                                                  // (rows, columns), written; may be s
    int rows, int columns, arithmetic<T> epsilon, arithmetic<T> parameter) {
    typedef arithmetic<T> A;
    const Region region(N, blockIdx.x, blockIdx.y, gridDim.y, rows, columns);
    if (!region.is_inside()) return;
    Columns<T, N> own;
    own.load_scale_and_shift(gamma, beta, region.column);
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const A inverse_std = A(1) / square_root(running_variance[region.column + i] + epsilon);
        own.set_statistics(i, running_mean[region.column + i], inverse_std);
    }
    write_outputs<F, false>(s, y, own, region, columns, parameter);
}
