// The scheduler: blocks, threads, barriers and shared memory of the launch that is running.
//
// One launch runs at a time, so its state is in one variable, `scheduler`. A thread that waits marks itself so,
// and hands over to a random thread that can run; whoever completes a barrier makes all who wait there able to run.
#pragma once

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "cuda_intrinsics.hpp"
#include "fibers.hpp"
#include "interface.hpp"

namespace emulation {

// ------------------------------------------------------------------------------------------- scheduler state
struct Block;

struct Place {  // a call that waits: which one, and where in the kernel's source
    const char* operation;
    const char* file;
    int line;
    bool operator==(const Place& other) const {
        return line == other.line && operation == other.operation &&
               (file == other.file || strcmp(file, other.file) == 0);
    }
};

enum class State : uint8_t { ready, waiting, finished };

struct Thread {
    uint3 index;
    State state;
    Block* block;
    Fiber* fiber;  // null before the thread starts and after it ends
    Place place;   // where it waits
    uint32_t lanes;  // of the warp operation it waits in: who takes part, what it gives, from whom it takes
    int source_lane;
    uint64_t given, taken;
};

struct Barrier {
    Place place;
    uint32_t arrived, truths, result;
    bool mixed;  // threads wait at different places: never completes
};

struct SharedSite {  // one SHARED or DYNAMIC_SHARED declaration
    const char* name;
};
struct SharedArray {  // its memory in one block
    const SharedSite* site;
    char* allocation;
    char* data;
    size_t bytes;
};
constexpr int most_shared_arrays = 32;
constexpr uint64_t static_shared_bytes_limit = 48 * 1024;
inline constexpr SharedSite dynamic_shared_site{"dynamic shared memory"};

struct Block {
    uint3 index;
    uint32_t finished;
    bool started;
    Thread* threads;
    Barrier barrier;
    uint32_t waiting_lanes[32];  // per warp
    int shared_count;
    uint64_t static_shared_bytes;
    SharedArray shared[most_shared_arrays];
};

struct Scheduler {
    const Request* request;
    uint64_t random;
    Block* blocks;  // those that run interleaved: one, a cluster, or a cooperative grid
    uint32_t block_count;
    Thread* threads;
    uint32_t threads_per_block;
    Thread** ready;
    uint32_t ready_count;
    Barrier group_barrier;  // of the cluster or of the cooperative grid
    Thread* current;
    Fiber main, *fiber, *left;  // where launch() runs; the running fiber; the one that ran before it
    Fiber *idle, *created;
    bool failed;
};
inline Scheduler scheduler;
inline uint3 thread_index, block_index;
inline dim3 block_dimensions, grid_dimensions;

inline uint32_t random_below(uint32_t bound) {
    scheduler.random = scheduler.random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((scheduler.random >> 32) * bound >> 32);
}

// The sanitizer follows which stack is in use. It alone knows where that of launch() lies.
inline void arrive([[maybe_unused]] void* sanitizer_frames) {
#if defined(__SANITIZE_ADDRESS__)
    const void* bottom;
    size_t bytes;
    __sanitizer_finish_switch_fiber(sanitizer_frames, &bottom, &bytes);
    if (scheduler.left == &scheduler.main) {
        scheduler.main.stack = static_cast<char*>(const_cast<void*>(bottom));
        scheduler.main.bytes = bytes;
    }
#endif
}

inline void switch_to(Fiber& to) {
    Fiber& from = *scheduler.fiber;
    scheduler.left = &from;
    scheduler.fiber = &to;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&from.sanitizer_frames, to.stack, to.bytes);
#endif
    exchange_stacks(from, to);
    arrive(from.sanitizer_frames);
}

// ---------------------------------------------------------------------------------------------------- errors
[[gnu::format(printf, 3, 4)]] inline void append(char* text, size_t bytes, const char* format, ...) {
    const size_t used = strlen(text);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + used, bytes - used, format, arguments);
    va_end(arguments);
}

// The first failure ends the launch. On a fiber it does not return: the fibers are left as they are and reset.
[[gnu::format(printf, 1, 2)]] inline void fail(const char* format, ...) {
    const Request& request = *scheduler.request;
    if (!scheduler.failed) {
        scheduler.failed = true;
        append(request.message, request.message_bytes, "%s, ", request.kernel->name);
        if (scheduler.fiber != &scheduler.main)
            append(request.message, request.message_bytes, "block (%u, %u, %u), thread (%u, %u, %u): ",  //
                   block_index.x, block_index.y, block_index.z, thread_index.x, thread_index.y, thread_index.z);
        const size_t used = strlen(request.message);
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(request.message + used, request.message_bytes - used, format, arguments);
        va_end(arguments);
    }
    if (scheduler.fiber != &scheduler.main) switch_to(scheduler.main);
}

// --------------------------------------------------------------------------------------------- shared memory
// Every array is its own allocation, filled with 0xFF (NaN) because a GPU does not clear shared memory, between
// guard zones, which the address sanitizer replaces by its own.
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t shared_guard_bytes = 0;
#else
constexpr size_t shared_guard_bytes = 128;
#endif
constexpr size_t shared_alignment = 128;

inline SharedArray& shared_array(Block& block, const SharedSite* site, size_t bytes) {
    for (int i = 0; i < block.shared_count; ++i)
        if (block.shared[i].site == site) return block.shared[i];
    if (block.shared_count == most_shared_arrays) fail("more than %d shared arrays", most_shared_arrays);
    if (site != &dynamic_shared_site) block.static_shared_bytes += bytes;
    if (block.static_shared_bytes > static_shared_bytes_limit)
        fail("static shared memory of %llu bytes exceeds 48 KiB", (unsigned long long)block.static_shared_bytes);
    if (block.static_shared_bytes + scheduler.request->dynamic_shared_bytes > scheduler.request->shared_bytes_limit)
        fail("static and dynamic shared memory together exceed %llu bytes",
             (unsigned long long)scheduler.request->shared_bytes_limit);
    SharedArray& array = block.shared[block.shared_count++];
    array.site = site;
    array.bytes = bytes;
    void* allocation = nullptr;
    if (posix_memalign(&allocation, shared_alignment, bytes + 2 * shared_guard_bytes + (bytes == 0)) != 0)
        fail("out of host memory");
    array.allocation = static_cast<char*>(allocation);
    array.data = array.allocation + shared_guard_bytes;
    memset(array.allocation, 0xFF, bytes + 2 * shared_guard_bytes);
    return array;
}

inline char* own_shared_memory(const SharedSite* site, size_t bytes) {
    return shared_array(*scheduler.current->block, site, bytes).data;
}

// A block that has ended must not be read by its cluster any more: its memory turns to NaN, or is an error.
inline void retire_shared_arrays(Block& block) {
    for (int i = 0; i < block.shared_count; ++i) {
        SharedArray& array = block.shared[i];
        for (size_t k = 0; k < shared_guard_bytes; ++k)
            if (array.allocation[k] != (char)0xFF || array.data[array.bytes + k] != (char)0xFF)
                return fail("a thread wrote outside shared array '%s' of %zu bytes", array.site->name, array.bytes);
        memset(array.data, 0xFF, array.bytes);
#if defined(__SANITIZE_ADDRESS__)
        __asan_poison_memory_region(array.data, array.bytes);
#endif
    }
}

inline void free_shared_arrays(Block& block) {
    for (int i = 0; i < block.shared_count; ++i) {
#if defined(__SANITIZE_ADDRESS__)
        __asan_unpoison_memory_region(block.shared[i].data, block.shared[i].bytes);
#endif
        free(block.shared[i].allocation);
    }
    block.shared_count = 0;
}

// --------------------------------------------------------------------------------------------- running threads
inline void make_ready(Thread& thread) {
    thread.state = State::ready;
    scheduler.ready[scheduler.ready_count++] = &thread;
}

inline Thread* take_ready() {
    if (scheduler.ready_count == 0) return nullptr;
    const uint32_t chosen = random_below(scheduler.ready_count);
    Thread* thread = scheduler.ready[chosen];
    scheduler.ready[chosen] = scheduler.ready[--scheduler.ready_count];
    return thread;
}

inline void set_current(Thread& thread) {
    scheduler.current = &thread;
    thread_index = thread.index;
    block_index = thread.block->index;
}

inline void create_fibers() {
    char* mapping = static_cast<char*>(mmap(nullptr, stack_bytes * stacks_per_mapping, PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (mapping == MAP_FAILED) return fail("out of memory for the stacks of the emulated threads");
    for (size_t i = 0; i < stacks_per_mapping; ++i) {
        Fiber* fiber = new Fiber;
        fiber->stack = mapping + i * stack_bytes;
        fiber->bytes = stack_bytes;
        set_entry(*fiber);
        fiber->next_created = scheduler.created;
        scheduler.created = fiber;
        fiber->next_idle = scheduler.idle;
        scheduler.idle = fiber;
    }
}

// After a failed launch the fibers stand in the middle of a kernel: start them all afresh.
inline void reset_fibers() {
    scheduler.idle = nullptr;
    for (Fiber* fiber = scheduler.created; fiber != nullptr; fiber = fiber->next_created) {
#if defined(__SANITIZE_ADDRESS__)
        __asan_unpoison_memory_region(fiber->stack, fiber->bytes);
        fiber->sanitizer_frames = nullptr;
#endif
        set_entry(*fiber);
        fiber->next_idle = scheduler.idle;
        scheduler.idle = fiber;
    }
}

// Hands the processor to `next`, or back to launch() when no thread can run.
inline void run_next(Thread* next) {
    if (next == nullptr) return switch_to(scheduler.main);
    if (next->fiber == nullptr) {
        if (scheduler.idle == nullptr) create_fibers();
        if (scheduler.idle == nullptr) return;
        next->fiber = scheduler.idle;
        scheduler.idle = scheduler.idle->next_idle;
    }
    set_current(*next);
    if (next->fiber != scheduler.fiber) switch_to(*next->fiber);
}

inline void suspend() { run_next(take_ready()); }

// The life of a fiber: run a whole thread, then start another one on the same stack, or wait to be needed again.
inline void fiber_main() {
    arrive(nullptr);
    for (;;) {
        Thread& thread = *scheduler.current;
        Fiber* own = thread.fiber;
        thread.block->started = true;
        scheduler.request->kernel->run(scheduler.request->arguments);
        thread.state = State::finished;
        thread.fiber = nullptr;
        if (++thread.block->finished == scheduler.threads_per_block) retire_shared_arrays(*thread.block);
        Thread* next = take_ready();
        if (next != nullptr && next->fiber == nullptr) {
            next->fiber = own;
            set_current(*next);
        } else {
            own->next_idle = scheduler.idle;
            scheduler.idle = own;
            run_next(next);
        }
    }
}

// ------------------------------------------------------------------------------------------------- waiting
inline uint32_t wait_at(Barrier& barrier, Thread* members, uint32_t count, Place place, bool truth) {
    Thread& self = *scheduler.current;
    if (barrier.arrived == 0) {
        barrier.place = place;
        barrier.truths = 0;
    } else if (!(barrier.place == place)) {
        barrier.mixed = true;
    }
    self.place = place;
    self.lanes = 0;
    self.state = State::waiting;
    barrier.truths += truth;
    if (++barrier.arrived == count && !barrier.mixed) {
        barrier.arrived = 0;
        barrier.result = barrier.truths;
        for (uint32_t i = 0; i < count; ++i) make_ready(members[i]);
    }
    suspend();
    return barrier.result;
}

inline uint32_t wait_for_block(Place place, bool truth) {
    Block& block = *scheduler.current->block;
    return wait_at(block.barrier, block.threads, scheduler.threads_per_block, place, truth);
}

inline void wait_for_group(Place place) {
    const uint32_t count = scheduler.block_count * scheduler.threads_per_block;
    wait_at(scheduler.group_barrier, scheduler.threads, count, place, false);
}

inline uint32_t linear_thread() { return (uint32_t)(scheduler.current - scheduler.current->block->threads); }

// Waits until all the named lanes of the warp are in the same call. Each gives a value; each takes the value of
// its source lane, or with source_lane = vote one bit per lane: whether that lane gave a non-zero value.
constexpr int vote = -1;
inline uint64_t warp_exchange(Place place, uint32_t mask, uint64_t given, int source_lane) {
    Thread& self = *scheduler.current;
    Block& block = *self.block;
    const uint32_t lane = linear_thread() % 32, warp = linear_thread() / 32;
    const uint32_t warp_threads = scheduler.threads_per_block - warp * 32;
    const uint32_t existing = warp_threads >= 32 ? ~0u : (1u << warp_threads) - 1;
    Thread* lanes = block.threads + warp * 32;
    if (!(mask >> lane & 1))
        fail("%s (%s:%d): mask 0x%08x leaves out the calling lane", place.operation, place.file, place.line, mask);
    mask &= existing;
    self.place = place;
    self.state = State::waiting;
    self.lanes = mask;
    self.given = given;
    self.source_lane = source_lane;
    block.waiting_lanes[warp] |= 1u << lane;
    bool complete = (block.waiting_lanes[warp] & mask) == mask;
    for (uint32_t rest = mask; complete && rest != 0; rest &= rest - 1) {
        const Thread& other = lanes[__builtin_ctz(rest)];
        complete = other.lanes == mask && other.place == place;
    }
    if (complete) {
        uint64_t votes = 0;
        for (uint32_t rest = mask; rest != 0; rest &= rest - 1)
            if (lanes[__builtin_ctz(rest)].given != 0) votes |= rest & -rest;
        for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
            Thread& taker = lanes[__builtin_ctz(rest)];
            if (taker.source_lane == vote) taker.taken = votes;
            else if (mask >> taker.source_lane & 1) taker.taken = lanes[taker.source_lane].given;
            else taker.taken = ~0ull;  // CUDA leaves the value of a lane outside the mask undefined
            make_ready(taker);
        }
        block.waiting_lanes[warp] &= ~mask;
    }
    suspend();
    return self.taken;
}

enum class Shuffle { indexed, up, down, exclusive_or };
template <Shuffle kind, typename T>
inline T shuffle(Place place, uint32_t mask, T value, int argument, int width) {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
    if (width < 1 || width > 32 || (width & (width - 1)) != 0)
        fail("%s: width %d is not a power of two up to 32", place.operation, width);
    const int lane = (int)(linear_thread() % 32), first = lane & ~(width - 1), last = first + width - 1;
    int source = kind == Shuffle::indexed ? first + (argument & (width - 1))
                 : kind == Shuffle::up    ? lane - argument
                 : kind == Shuffle::down  ? lane + argument
                                          : (lane ^ argument) & 31;
    if ((kind == Shuffle::up && source < first) || source > last) source = lane;
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(T));
    bits = warp_exchange(place, mask, bits, source);
    memcpy(&value, &bits, sizeof(T));
    return value;
}

// -------------------------------------------------------------------------------------------------- launching
inline void report_divergence() {
    constexpr int most_places = 4;
    for (uint32_t b = 0; b < scheduler.block_count; ++b) {
        const Block& block = scheduler.blocks[b];
        Place places[most_places];
        uint32_t counts[most_places] = {}, lanes[most_places] = {}, waiting = 0;
        int place_count = 0;
        for (uint32_t t = 0; t < scheduler.threads_per_block; ++t) {
            const Thread& thread = block.threads[t];
            if (thread.state != State::waiting) continue;
            ++waiting;
            int p = 0;
            while (p < place_count && !(places[p] == thread.place)) ++p;
            if (p == most_places) continue;
            if (p == place_count) places[place_count++] = thread.place, lanes[p] = thread.lanes;
            ++counts[p];
        }
        if (waiting == 0) continue;
        char text[1024] = "";
        for (int p = 0; p < place_count; ++p) {
            const Place& place = places[p];
            append(text, sizeof(text), "%u threads wait at %s (%s:%d",  //
                   counts[p], place.operation, place.file, place.line);
            if (lanes[p] != 0) append(text, sizeof(text), ", mask 0x%08x", lanes[p]);
            append(text, sizeof(text), "), ");
        }
        return fail("block (%u, %u, %u): threads have diverged: %s%u have finished",  //
                    block.index.x, block.index.y, block.index.z, text, block.finished);
    }
}

// Runs the blocks of one group, interleaved: those of the box `extent` that starts at block `first` of the grid.
inline void run_group(dim3 first, dim3 extent) {
    scheduler.group_barrier = {};
    scheduler.ready_count = 0;
    Thread* thread = scheduler.threads;
    for (uint32_t b = 0; b < scheduler.block_count; ++b) {
        Block& block = scheduler.blocks[b];
        block = {};
        block.index = {first.x + b % extent.x, first.y + b / extent.x % extent.y, first.z + b / extent.x / extent.y};
        block.threads = thread;
        for (uint32_t z = 0; z < block_dimensions.z; ++z)
            for (uint32_t y = 0; y < block_dimensions.y; ++y)
                for (uint32_t x = 0; x < block_dimensions.x; ++x, ++thread) {
                    *thread = {};
                    thread->index = {x, y, z};
                    thread->block = &block;
                    make_ready(*thread);
                }
    }
    suspend();
    if (!scheduler.failed) report_divergence();
    for (uint32_t b = 0; b < scheduler.block_count; ++b) free_shared_arrays(scheduler.blocks[b]);
}

inline void launch(const Request& request) {
    grid_dimensions = {request.grid[0], request.grid[1], request.grid[2]};
    block_dimensions = {request.block[0], request.block[1], request.block[2]};
    const dim3 cluster = {request.cluster[0], request.cluster[1], request.cluster[2]};
    const dim3 extent = request.cooperative ? grid_dimensions : cluster;
    scheduler.request = &request;
    scheduler.random = request.seed;
    scheduler.failed = false;
    scheduler.fiber = &scheduler.main;
    scheduler.block_count = extent.x * extent.y * extent.z;
    scheduler.threads_per_block = block_dimensions.x * block_dimensions.y * block_dimensions.z;
    const size_t thread_count = (size_t)scheduler.block_count * scheduler.threads_per_block;
    const uint32_t groups_x = grid_dimensions.x / extent.x, groups_y = grid_dimensions.y / extent.y;
    const uint32_t group_count = groups_x * groups_y * (grid_dimensions.z / extent.z);
    scheduler.blocks = new Block[scheduler.block_count];
    scheduler.threads = new Thread[thread_count];
    scheduler.ready = new Thread*[thread_count];
    uint32_t* order = new uint32_t[group_count];
    for (uint32_t i = 0; i < group_count; ++i) {
        const uint32_t earlier = random_below(i + 1);
        order[i] = order[earlier];
        order[earlier] = i;
    }
    for (uint32_t i = 0; i < group_count && !scheduler.failed; ++i) {
        const uint32_t x = order[i] % groups_x, y = order[i] / groups_x % groups_y;
        const uint32_t z = order[i] / groups_x / groups_y;
        run_group({x * extent.x, y * extent.y, z * extent.z}, extent);
    }
    if (scheduler.failed) reset_fibers();
    delete[] order;
    delete[] scheduler.ready;
    delete[] scheduler.threads;
    delete[] scheduler.blocks;
}

}  // namespace emulation

extern "C" [[gnu::visibility("default")]] int gpunet_launch(const emulation::Request* request) {
    emulation::launch(*request);
    return emulation::scheduler.failed;
}
