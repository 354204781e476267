// The striped algorithm of batch normalisation, for columns too long to stay on chip; batch_norm.cu has the formulas,
// the threads and the bytes per element.
#ifndef GPUNET_BATCH_NORM_STRIPED_CUH
#define GPUNET_BATCH_NORM_STRIPED_CUH

#include "batch_norm.cuh"

// ------------------------------------------------------------------------------------------------- the striped kernels
// A block works on one tile of columns and one chunk of rows, in one of two sweeps. Grid: a group of
// stripe_tiles * chunks blocks for each sweep of each stripe; rows at least chunks. Launches that share counters run
// one after the other.
//
// Blocks of the second sweep wait for blocks of the first. That cannot hang: a block takes a ticket when it starts, the
// ticket says what it does, and it waits only for lower tickets, whose blocks have therefore started too.
//
// `counters`, zero before the launch and zero again after it: tickets taken, then for each tile
enum { ARRIVED, READY, PASSED, COUNTERS_PER_TILE };  // blocks after sweep 1, statistics complete, blocks in sweep 2

struct StripedWork {
    bool first_sweep;
    int tile, chunk;
};

// The groups, of sweep and stripe: 1.0, 1.1, 2.0, 1.2, 2.1, ..., 1.last, 2.last - 1, 2.last. While a stripe's
// statistics are completed, the next one is read.
__device__ __forceinline__ StripedWork take_work(unsigned int* counters, int stripe_tiles, int chunks) {
    SHARED(unsigned int, ticket, [1]);
    if (thread_in_block() == 0) ticket[0] = atomicInc(counters, gridDim.x - 1);
    __syncthreads();
    const int group_blocks = stripe_tiles * chunks, group = ticket[0] / group_blocks, index = ticket[0] % group_blocks;
    const int groups = gridDim.x / group_blocks;
    const bool first_sweep = group == 0 || (group % 2 == 1 && group < groups - 1);
    const int stripe = first_sweep ? (group + 1) / 2 : group < groups - 1 ? group / 2 - 1 : groups / 2 - 1;
    return {first_sweep, stripe * stripe_tiles + index % stripe_tiles, index / stripe_tiles};
}

__device__ __forceinline__ void announce_tile(unsigned int* tile_counters) {
    __threadfence();
    __syncthreads();
    if (thread_in_block() == 0) atomicExch(tile_counters + READY, 1u);
}

// What the announcing block wrote may then be read, past the L1 cache. The last block to come by clears the mark.
__device__ __forceinline__ void wait_for_tile(unsigned int* tile_counters, int chunks) {
    if (thread_in_block() == 0) {
        while (*reinterpret_cast<volatile unsigned int*>(tile_counters + READY) == 0) __nanosleep(100);
        __threadfence();
        if (atomicInc(tile_counters + PASSED, chunks - 1) == chunks - 1) atomicExch(tile_counters + READY, 0u);
    }
    __syncthreads();
}

// partial[q][chunk][column] = source[q][column of the tile], for both quantities q.
template <typename A>
__device__ __forceinline__ void write_partial(
    A* partial, const A* source, const StripedWork& work, int tile_columns, int chunks, int columns) {
    for (int index = thread_in_block(); index < 2 * tile_columns; index += threads_in_block()) {
        const int q = index / tile_columns, column = work.tile * tile_columns + index % tile_columns;
        if (column < columns) partial[element_offset(q * chunks + work.chunk, column, columns)] = source[index];
    }
}

template <typename T, int N, typename F>
__global__ void __launch_bounds__(MOST_THREADS, 1) batch_norm_forward_striped(
    const T* __restrict__ s,                         // (rows, columns)
    const arithmetic<T>* __restrict__ gamma,         // (columns,) or null
    const arithmetic<T>* __restrict__ beta,          // (columns,) or null
    T* __restrict__ y,                               // (rows, columns), written
    arithmetic<T>* mean,                             // (columns,), written
    arithmetic<T>* inverse_std,                      // (columns,), written
    arithmetic<T>* running_mean,                     // (columns,), updated
    arithmetic<T>* running_variance,                 // (columns,), updated
    arithmetic<T>* partial,                          // (2, chunks, columns), scratch
    unsigned int* counters,                          // (1 + COUNTERS_PER_TILE * tiles,), zeros
    int rows, int columns, int stripe_tiles, int chunks,
    arithmetic<T> momentum, arithmetic<T> epsilon, arithmetic<T> parameter) {
    typedef arithmetic<T> A;
    DYNAMIC_SHARED(unsigned char, memory);
    const StripedWork work = take_work(counters, stripe_tiles, chunks);
    const int tile_columns = blockDim.x * N;
    if (work.tile * tile_columns >= columns) return;  // the last stripe is the narrowest
    unsigned int* const tile_counters = counters + 1 + COUNTERS_PER_TILE * work.tile;
    const Region region(N, work.tile, work.chunk, chunks, rows, columns);

    if (!work.first_sweep) {
        wait_for_tile(tile_counters, chunks);
        if (!region.is_inside()) return;
        Columns<T, N> own;
        own.load_scale_and_shift(gamma, beta, region.column);
#pragma unroll
        for (int i = 0; i < N; ++i)
            own.set_statistics(i, __ldcg(mean + region.column + i), __ldcg(inverse_std + region.column + i));
        write_outputs<F, true>(s, y, own, region, columns, parameter);
        return;
    }

    const SharedLayout<T, N> shared(memory, 1, rows, chunks);
    copy_region(shared.tile, s, region, columns);
    wait_for_copies();
    find_block_statistics(shared, region);
    __syncthreads();
    write_partial(partial, shared.results, work, tile_columns, chunks, columns);
    if (!is_last_block(tile_counters + ARRIVED, chunks)) return;

    // The threads take the chunks as they took the rows, twice: for the mean, and for the deviations from it.
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
    const Statistics<A> statistics = {mean, inverse_std, running_mean, running_variance, momentum, epsilon};
    if (threadIdx.y == 0 && region.is_inside())
#pragma unroll
        for (int i = 0; i < N; ++i)
            statistics.write(region.column + i, pivot[i] + shift[0][i], shared.totals[threadIdx.x * N + i], rows);
    announce_tile(tile_counters);
}

template <typename T, int N, typename F>
__global__ void __launch_bounds__(MOST_THREADS, 1) batch_norm_backward_striped(
    const T* dy,                                     // (rows, columns)
    const T* __restrict__ s,                         // (rows, columns)
    const arithmetic<T>* __restrict__ gamma,         // (columns,) or null
    const arithmetic<T>* __restrict__ beta,          // (columns,) or null
    const arithmetic<T>* __restrict__ mean,          // (columns,)
    const arithmetic<T>* __restrict__ inverse_std,   // (columns,)
    T* ds,                                           // (rows, columns), written; may be dy
    arithmetic<T>* dgamma,                           // (columns,), written
    arithmetic<T>* dbeta,                            // (columns,), written
    arithmetic<T>* partial,                          // (2, chunks, columns), scratch
    unsigned int* counters,                          // (1 + COUNTERS_PER_TILE * tiles,), zeros
    int rows, int columns, int stripe_tiles, int chunks, arithmetic<T> parameter) {
    typedef arithmetic<T> A;
    DYNAMIC_SHARED(unsigned char, memory);
    const StripedWork work = take_work(counters, stripe_tiles, chunks);
    const int tile_columns = blockDim.x * N, stride = blockDim.y;
    if (work.tile * tile_columns >= columns) return;
    unsigned int* const tile_counters = counters + 1 + COUNTERS_PER_TILE * work.tile;
    const Region region(N, work.tile, work.chunk, chunks, rows, columns);

    Columns<T, N> own;
    if (region.is_inside()) {
        own.load_scale_and_shift(gamma, beta, region.column);
#pragma unroll
        for (int i = 0; i < N; ++i) own.set_statistics(i, mean[region.column + i], inverse_std[region.column + i]);
    }

    if (!work.first_sweep) {
        wait_for_tile(tile_counters, chunks);
        if (!region.is_inside()) return;
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
                store_pack_streaming<N>(ds + element_offset(row + k * stride, region.column, columns), result);
            }
        }
        return;
    }

    const SharedLayout<T, N> shared(memory, 0, rows, chunks);
    A sums[2][N] = {};  // of dz, and of dz (s - mean)
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
    write_partial(partial, shared.totals, work, tile_columns, chunks, columns);
    if (!is_last_block(tile_counters + ARRIVED, chunks)) return;

    const A* const partial_shat = partial + element_offset(chunks, 0, columns);
    A merged[2][N] = {};
    for (int chunk = threadIdx.y; chunk < (region.is_inside() ? chunks : 0); chunk += stride) {
        const long long offset = element_offset(chunk, region.column, columns);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            merged[0][i] += __ldcg(partial + offset + i);
            merged[1][i] += __ldcg(partial_shat + offset + i);
        }
    }
    sum_over_block(merged, shared);
    if (threadIdx.y == 0 && region.is_inside())
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int column = region.column + i, index = threadIdx.x * N + i;
            dbeta[column] = shared.totals[index];
            dgamma[column] = shared.totals[tile_columns + index] * inverse_std[column];
        }
    announce_tile(tile_counters);
}

#endif
