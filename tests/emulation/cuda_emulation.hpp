// CUDA's execution model on the CPU: compile a .cu file with g++ -std=c++20 -include cuda_emulation.hpp.
//
// Each CUDA thread is a fiber: a stack of its own that runs until it waits (a barrier, a shuffle) or ends. One
// fiber runs at a time. Whenever one waits, the next is chosen by the launch's order from those that can run, in all
// the blocks that fit on the device together, so that code which is only right in one order (a missing barrier)
// gives a wrong answer in others.
//
// Warps are NOT lockstep: a thread runs ahead of its warp until the next barrier, shuffle or vote.
//
// A kernel is ordinary CUDA except for these names, which kernels/common.cuh defines for the GPU:
//   SHARED(type, name, [dims])    static shared memory       DYNAMIC_SHARED(type, name)   dynamic shared memory
//   cluster_size(), cluster_rank(), cluster_sync(), map_shared_rank(pointer, rank)        thread block clusters
//   grid_sync(barrier)                                                                    cooperative launches
#pragma once

#include "checks.hpp"
#include "cuda_intrinsics.hpp"
#include "scheduler.hpp"

#define GPUNET_EMULATION 1

// ------------------------------------------------------------------------------------------- CUDA's own names
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __align__(bytes) alignas(bytes)
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __grid_constant__

inline const uint3& threadIdx = emulation::thread_index;
inline const uint3& blockIdx = emulation::block_index;
inline const dim3& blockDim = emulation::block_dimensions;
inline const dim3& gridDim = emulation::grid_dimensions;
constexpr int warpSize = 32;

// Where the kernel's author wrote the call: default arguments are evaluated there.
#define EMULATED_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(EMULATED_PLACE) { emulation::wait_for_block({"__syncthreads", file, line}, false); }
inline int __syncthreads_count(int predicate, EMULATED_PLACE) {
    return (int)emulation::wait_for_block({"__syncthreads_count", file, line}, predicate != 0);
}
inline int __syncthreads_or(int predicate, EMULATED_PLACE) {
    return emulation::wait_for_block({"__syncthreads_or", file, line}, predicate != 0) != 0;
}
inline int __syncthreads_and(int predicate, EMULATED_PLACE) {
    const uint32_t count = emulation::wait_for_block({"__syncthreads_and", file, line}, predicate != 0);
    return count == emulation::scheduler.threads_per_block;
}
inline void __syncwarp(unsigned int mask = ~0u, EMULATED_PLACE) {
    emulation::warp_exchange({"__syncwarp", file, line}, mask, 0, emulation::vote);
}
inline unsigned int __ballot_sync(unsigned int mask, int predicate, EMULATED_PLACE) {
    return (unsigned int)emulation::warp_exchange({"__ballot_sync", file, line}, mask, predicate != 0, emulation::vote);
}
inline int __any_sync(unsigned int mask, int predicate, EMULATED_PLACE) {
    return emulation::warp_exchange({"__any_sync", file, line}, mask, predicate != 0, emulation::vote) != 0;
}
inline int __all_sync(unsigned int mask, int predicate, EMULATED_PLACE) {
    return emulation::warp_exchange({"__all_sync", file, line}, mask, predicate == 0, emulation::vote) == 0;
}
#define EMULATED_SHUFFLE(name, kind, argument_type)                                                            \
    template <typename T>                                                                                      \
    inline T name(unsigned int mask, T value, argument_type argument, int width = 32, EMULATED_PLACE) {        \
        const emulation::Place place{#name, file, line};                                                       \
        return emulation::shuffle<emulation::Shuffle::kind>(place, mask, value, (int)argument, width);         \
    }
EMULATED_SHUFFLE(__shfl_sync, indexed, int)
EMULATED_SHUFFLE(__shfl_up_sync, up, unsigned int)
EMULATED_SHUFFLE(__shfl_down_sync, down, unsigned int)
EMULATED_SHUFFLE(__shfl_xor_sync, exclusive_or, int)
#undef EMULATED_SHUFFLE

// Which lanes happen to be converged is the hardware's choice, so no result would be a faithful one.
inline unsigned int __activemask() {
    emulation::fail("__activemask() has no defined answer: pass the mask down from where it is known");
    return 0;
}
[[noreturn]] inline void __trap() {
    emulation::fail("__trap()");
    __builtin_unreachable();
}
// A thread that waits for another one in a loop must call this in it: here nobody else runs otherwise.
inline void __nanosleep(unsigned int) { emulation::nap(); }
// One thread runs at a time, so memory is always consistent; the compiler still must not move accesses across.
inline void __threadfence() { asm volatile("" ::: "memory"); }
inline void __threadfence_block() { __threadfence(); }
inline void __threadfence_system() { __threadfence(); }

// ---------------------------------------------------------------- the names that kernels/common.cuh also defines
#define SHARED(type, name, ...)                                                                                \
    typedef type name##_shared_type __VA_ARGS__;                                                               \
    static constexpr emulation::SharedSite name##_shared_site{#name};                                          \
    name##_shared_type& name = *reinterpret_cast<name##_shared_type*>(                                         \
        emulation::own_shared_memory(&name##_shared_site, sizeof(name##_shared_type)))

#define DYNAMIC_SHARED(type, name)                                                                             \
    type* const name = reinterpret_cast<type*>(emulation::own_shared_memory(                                   \
        &emulation::dynamic_shared_site, emulation::scheduler.request->dynamic_shared_bytes))

// Plain static shared memory has one instance here, and blocks run interleaved.
namespace emulation {
inline void refuse_several_blocks() {
    if (scheduler.group_count * scheduler.group_blocks > 1)
        fail("__shared__ in a grid of several blocks: declare it with SHARED(type, name, [dims])");
}
}  // namespace emulation
#define __shared__ emulation::refuse_several_blocks(); static

inline unsigned int cluster_size() {
    return emulation::scheduler.request->cooperative ? 1 : emulation::scheduler.group_blocks;
}
inline unsigned int cluster_rank() {
    using emulation::scheduler;
    const emulation::Block* block = scheduler.current->block;
    return scheduler.request->cooperative ? 0 : (unsigned int)(block - block->group->blocks);
}
inline void cluster_sync(EMULATED_PLACE) {
    const emulation::Place place{"cluster_sync", file, line};
    if (cluster_size() == 1) emulation::wait_for_block(place, false);
    else emulation::wait_for_group(place);
}
template <typename T>
inline T* map_shared_rank(T* pointer, unsigned int rank) {
    using namespace emulation;
    Block& own = *scheduler.current->block;
    const char* address = (const char*)pointer;
    if (rank >= cluster_size()) fail("map_shared_rank: no block %u in a cluster of %u", rank, cluster_size());
    if (rank == cluster_rank()) return pointer;
    Block& other = own.group->blocks[rank];
    if (!other.started) fail("map_shared_rank: block %u of the cluster has not started: cluster_sync() first", rank);
    if (other.finished == scheduler.threads_per_block)
        fail("map_shared_rank: block %u of the cluster has ended: cluster_sync() last", rank);
    for (int i = 0; i < own.shared_count; ++i) {
        const SharedArray& array = own.shared[i];
        if (array.data <= address && address <= array.data + array.bytes)
            return (T*)(shared_array(other, array.site, array.bytes).data + (address - array.data));
    }
    fail("map_shared_rank: the pointer is not into shared memory");
    return nullptr;
}

// `barrier` is one word of global memory, zero before the first launch that uses it. The GPU counts arrivals in
// its low 31 bits and flips the top one; the emulator does the same in one step.
inline void grid_sync(unsigned int* barrier, EMULATED_PLACE) {
    using namespace emulation;
    if (!scheduler.request->cooperative) fail("grid_sync() needs a cooperative launch");
    if (*barrier & 0x7fffffffu) fail("grid_sync: the barrier word was not zero before the launch");
    wait_for_group({"grid_sync", file, line});
    if (scheduler.current == scheduler.resident->threads) *barrier ^= 0x80000000u;
}
