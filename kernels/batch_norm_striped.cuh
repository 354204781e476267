// The striped algorithm of batch normalisation, for columns too long to stay on chip; batch_norm.cu has the formulas,
// the threads and the bytes per element.
#ifndef GPUNET_BATCH_NORM_STRIPED_CUH
#define GPUNET_BATCH_NORM_STRIPED_CUH

#include "batch_norm_chunks.cuh"

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
    write_partial(partial, shared.results, work.tile, work.chunk, chunks, tile_columns, columns);
    if (!is_last_block(tile_counters + ARRIVED, chunks)) return;

    A merged_mean[N];
    merge_statistics(partial, shared, region, rows, chunks, columns, merged_mean);
    const Statistics<A> statistics = {mean, inverse_std, running_mean, running_variance, momentum, epsilon};
    if (threadIdx.y == 0 && region.is_inside())
#pragma unroll
        for (int i = 0; i < N; ++i)
            statistics.write(region.column + i, merged_mean[i], shared.totals[threadIdx.x * N + i], rows);
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
    DYNAMIC_SHARED(unsigned char, memory);
    const StripedWork work = take_work(counters, stripe_tiles, chunks);
    const int tile_columns = blockDim.x * N;
    if (work.tile * tile_columns >= columns) return;
    unsigned int* const tile_counters = counters + 1 + COUNTERS_PER_TILE * work.tile;
    const Region region(N, work.tile, work.chunk, chunks, rows, columns);

    Columns<T, N> own;
    if (region.is_inside()) own.load(gamma, beta, mean, inverse_std, region.column);

    if (!work.first_sweep) {
        wait_for_tile(tile_counters, chunks);
        if (!region.is_inside()) return;
        write_input_gradients<F, true>(dy, s, ds, own, inverse_std, dgamma, dbeta, region, rows, columns, parameter);
        return;
    }

    const SharedLayout<T, N> shared(memory, 0, rows, chunks);
    sum_gradients<F>(dy, s, own, shared, region, columns, parameter);
    write_partial(partial, shared.totals, work.tile, work.chunk, chunks, tile_columns, columns);
    if (!is_last_block(tile_counters + ARRIVED, chunks)) return;

    merge_sums(partial, shared, region, chunks, columns);
    write_parameter_gradients(shared, region, inverse_std, dgamma, dbeta);
    announce_tile(tile_counters);
}

#endif
