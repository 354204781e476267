// The scheduler: blocks, threads, barriers and shared memory of the launch that is running.
//
// One launch runs at a time, so its state is in one variable, `scheduler`. A thread that waits marks itself so, and
// hands over to the next that can run in the launch's order; whoever completes a barrier makes all who wait there able
// to run. All blocks that fit on the device together run interleaved; one that ends makes room for the next.
#pragma once

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

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
    uint32_t bag;  // where it waits for its turn
    uint32_t barriers;  // that it has passed
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

struct Group {  // blocks that start together and have a barrier: a cluster, a cooperative grid, or one block
    Block* blocks;
    Thread* threads;
    Barrier barrier;
    uint32_t finished;
};

struct Block {
    uint3 index;
    uint32_t finished;
    bool started;
    Group* group;
    Thread* threads;
    Barrier barrier;
    uint32_t waiting_lanes[32];  // per warp
    int shared_count;
    uint64_t static_shared_bytes;
    SharedArray shared[most_shared_arrays];
};

struct Bag {
    Thread** threads;
    uint32_t count;
};

struct Scheduler {
    const Request* request;
    uint64_t random;
    dim3 group_extent;
    uint32_t group_blocks, threads_per_block, warps_per_block;
    uint32_t* sequence;  // of the groups
    uint32_t group_count, started_groups;
    Group* resident;
    uint32_t resident_count;
    Bag* bags;
    Bag sleeping;
    uint32_t ready_count, first_bag, lane_apart, barriers_apart, naps;
    Thread* current;
    Fiber main, *fiber, *left;  // where launch() runs; the running fiber; the one that ran before it
    Fiber* idle;
    uint32_t used_stacks;
    bool failed;
};
inline Scheduler scheduler;
inline uint3 thread_index, block_index;
inline dim3 block_dimensions, grid_dimensions;

inline uint32_t random_bits() {
    scheduler.random = scheduler.random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(scheduler.random >> 32);
}
inline uint32_t random_below(uint32_t bound) { return (uint32_t)((uint64_t)random_bits() * bound >> 32); }

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
constexpr size_t shared_guard_bytes = 0, shared_overrun_bytes = 0;
#else
constexpr size_t shared_guard_bytes = 128;
constexpr size_t shared_overrun_bytes = 16 * 1024;  // a long overrun ends the launch at its guard zone, not the process
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
    const size_t room = bytes + 2 * shared_guard_bytes + shared_overrun_bytes;
    if (posix_memalign(&allocation, shared_alignment, max(room, (size_t)1)) != 0) fail("out of host memory");
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
// Threads that can run wait in bags; the next is any of the first bag that is not empty. Every order finds what others
// hide: a thread that runs into what a missing barrier would have kept it from must be ahead of those it overtakes.
inline uint32_t bag_count() {
    switch (scheduler.request->order) {
        case Order::shuffled: return 1;
        case Order::block_ahead: return scheduler.resident_count;
        case Order::reversed: return scheduler.warps_per_block;
        default: return 2;
    }
}
inline uint32_t bag_of(uint32_t thread, uint32_t warp_apart, uint32_t group) {
    const uint32_t warp = thread / 32;
    switch (scheduler.request->order) {
        case Order::warp_ahead: return warp != warp_apart;
        case Order::warp_behind: return warp == warp_apart;
        case Order::lane_behind: return group == 0 && thread % 32 == scheduler.lane_apart;
        case Order::block_ahead: return group;  // every block or cluster ahead of the next
        case Order::reversed: return scheduler.warps_per_block - 1 - warp;
        default: return 0;
    }
}

inline void make_ready(Thread& thread) {
    thread.state = State::ready;
    uint32_t place = thread.bag;
    switch (scheduler.request->order) {
        case Order::round_robin: place = 1 - scheduler.first_bag; break;  // nobody comes again before all others have
        case Order::lane_behind: place &= thread.barriers >= scheduler.barriers_apart; break;
        default: break;
    }
    Bag& bag = scheduler.bags[place];
    bag.threads[bag.count++] = &thread;
    ++scheduler.ready_count;
    if (scheduler.request->order != Order::round_robin) scheduler.first_bag = min(scheduler.first_bag, place);
}

inline Thread* take_from(Bag& bag) {
    const uint32_t chosen = random_below(bag.count);
    Thread* thread = bag.threads[chosen];
    bag.threads[chosen] = bag.threads[--bag.count];
    return thread;
}

inline Thread* take_ready() {
    // Those in a waiting loop look again from time to time, and always when nobody else can run.
    constexpr uint32_t looks_again = 4;
    if (scheduler.sleeping.count != 0 && (scheduler.ready_count == 0 || random_below(looks_again) == 0))
        return take_from(scheduler.sleeping);
    if (scheduler.ready_count == 0) return nullptr;
    --scheduler.ready_count;
    uint32_t& first = scheduler.first_bag;
    while (scheduler.bags[first].count == 0) first = (first + 1) % bag_count();
    return take_from(scheduler.bags[first]);
}

inline void set_current(Thread& thread) {
    scheduler.current = &thread;
    thread_index = thread.index;
    block_index = thread.block->index;
}

// A fiber that is not in use, or the next stack of the process: those of a failed launch are begun afresh.
inline Fiber* take_fiber() {
    if (Fiber* fiber = scheduler.idle) {
        scheduler.idle = fiber->next_idle;
        return fiber;
    }
    Fiber* fiber = make_fiber(*scheduler.request->stacks, scheduler.used_stacks++);
    if (fiber == nullptr) fail("out of memory for the stacks of the emulated threads");
    return fiber;
}

// Hands the processor to `next`, or back to launch() when no thread can run.
inline void run_next(Thread* next) {
    if (next == nullptr) return switch_to(scheduler.main);
    if (next->fiber == nullptr && (next->fiber = take_fiber()) == nullptr) return;
    set_current(*next);
    if (next->fiber != scheduler.fiber) switch_to(*next->fiber);
}

inline void suspend() { run_next(take_ready()); }

inline void start_group(Group& group);

inline void finish_current_thread() {
    Thread& thread = *scheduler.current;
    Block& block = *thread.block;
    thread.state = State::finished;
    thread.fiber = nullptr;
    scheduler.naps = 0;
    if (++block.finished < scheduler.threads_per_block) return;
    retire_shared_arrays(block);
    if (++block.group->finished < scheduler.group_blocks) return;
    for (uint32_t b = 0; b < scheduler.group_blocks; ++b) free_shared_arrays(block.group->blocks[b]);
    if (scheduler.started_groups < scheduler.group_count) start_group(*block.group);
}

// The life of a fiber: run a whole thread, then start another one on the same stack, or wait to be needed again.
inline void fiber_main() {
    arrive(nullptr);
    for (;;) {
        Fiber* own = scheduler.current->fiber;
        scheduler.current->block->started = true;
        scheduler.request->kernel->run(scheduler.request->arguments);
        finish_current_thread();
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
    scheduler.naps = 0;
    barrier.truths += truth;
    if (++barrier.arrived == count && !barrier.mixed) {
        barrier.arrived = 0;
        barrier.result = barrier.truths;
        for (uint32_t i = 0; i < count; ++i) {
            ++members[i].barriers;
            make_ready(members[i]);
        }
    }
    suspend();
    return barrier.result;
}

inline uint32_t wait_for_block(Place place, bool truth) {
    Block& block = *scheduler.current->block;
    return wait_at(block.barrier, block.threads, scheduler.threads_per_block, place, truth);
}

inline void wait_for_group(Place place) {
    Group& group = *scheduler.current->block->group;
    wait_at(group.barrier, group.threads, scheduler.group_blocks * scheduler.threads_per_block, place, false);
}

// In a waiting loop: lets the others run, and looks again later.
inline void nap() {
    constexpr uint32_t most_naps = 100000;
    if (++scheduler.naps > most_naps)
        fail("%u threads wait in loops for what no other thread brings; %u of %u blocks or clusters have not started",
             scheduler.sleeping.count + 1, scheduler.group_count - scheduler.started_groups, scheduler.group_count);
    scheduler.sleeping.threads[scheduler.sleeping.count++] = scheduler.current;
    suspend();
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
    scheduler.naps = 0;
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
    for (uint32_t b = 0; b < scheduler.resident_count * scheduler.group_blocks; ++b) {
        const Block& block = scheduler.resident->blocks[b];
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

// What __launch_bounds__ promised the compiler: compiler.py puts it at the head of a kernel.
inline void check_launch_bounds(uint32_t most_threads, uint32_t = 0, uint32_t = 0) {
    if (scheduler.threads_per_block > most_threads)
        fail("%u threads in a block, where __launch_bounds__ allows %u", scheduler.threads_per_block, most_threads);
}

// Puts the next group of the grid where one has ended, or none was yet.
inline void start_group(Group& group) {
    const dim3 extent = scheduler.group_extent;
    const uint32_t groups_x = grid_dimensions.x / extent.x, groups_y = grid_dimensions.y / extent.y;
    const uint32_t chosen = scheduler.sequence[scheduler.started_groups++];
    const dim3 first = {chosen % groups_x * extent.x, chosen / groups_x % groups_y * extent.y,
                        chosen / groups_x / groups_y * extent.z};
    group.barrier = {};
    group.finished = 0;
    Thread* thread = group.threads;
    for (uint32_t b = 0; b < scheduler.group_blocks; ++b) {
        Block& block = group.blocks[b];
        block = {};
        block.index = {first.x + b % extent.x, first.y + b / extent.x % extent.y, first.z + b / extent.x / extent.y};
        block.group = &group;
        block.threads = thread;
        const uint32_t warp_apart = random_below(scheduler.warps_per_block);
        const uint32_t group_number = (uint32_t)(&group - scheduler.resident);
        for (uint32_t z = 0; z < block_dimensions.z; ++z)
            for (uint32_t y = 0; y < block_dimensions.y; ++y)
                for (uint32_t x = 0; x < block_dimensions.x; ++x, ++thread) {
                    *thread = {};
                    thread->index = {x, y, z};
                    thread->block = &block;
                    thread->bag = bag_of((uint32_t)(thread - block.threads), warp_apart, group_number);
                    make_ready(*thread);
                }
    }
}

inline void launch(const Request& request) {
    grid_dimensions = {request.grid[0], request.grid[1], request.grid[2]};
    block_dimensions = {request.block[0], request.block[1], request.block[2]};
    scheduler = {};
    scheduler.request = &request;
    scheduler.random = request.seed;
    scheduler.fiber = &scheduler.main;
    scheduler.group_extent = request.cooperative ? grid_dimensions
                                                 : dim3{request.cluster[0], request.cluster[1], request.cluster[2]};
    const dim3 extent = scheduler.group_extent;
    scheduler.group_blocks = extent.x * extent.y * extent.z;
    scheduler.threads_per_block = block_dimensions.x * block_dimensions.y * block_dimensions.z;
    scheduler.warps_per_block = (scheduler.threads_per_block + 31) / 32;
    scheduler.group_count =
        grid_dimensions.x / extent.x * (grid_dimensions.y / extent.y) * (grid_dimensions.z / extent.z);
    scheduler.resident_count = min(max(request.resident_blocks / scheduler.group_blocks, 1u), scheduler.group_count);
    // Another kernel may have the rest of the device.
    if (random_below(2) == 0) scheduler.resident_count = 1 + random_below(scheduler.resident_count);
    const size_t blocks = (size_t)scheduler.resident_count * scheduler.group_blocks;
    const size_t threads = blocks * scheduler.threads_per_block;
    scheduler.resident = new Group[scheduler.resident_count];
    scheduler.resident->blocks = new Block[blocks];
    scheduler.resident->threads = new Thread[threads];
    scheduler.lane_apart = random_below(32);
    scheduler.barriers_apart = random_below(4);
    scheduler.sleeping.threads = new Thread*[threads];
    scheduler.bags = new Bag[bag_count()];
    const size_t bag_size = bag_count() <= 2 ? threads : threads / bag_count() + 32 * blocks;
    for (uint32_t i = 0; i < bag_count(); ++i) scheduler.bags[i] = {new Thread*[bag_size], 0};
    scheduler.sequence = new uint32_t[scheduler.group_count];
    for (uint32_t i = 0; i < scheduler.group_count; ++i) {
        const uint32_t earlier = random_below(i + 1);
        scheduler.sequence[i] = scheduler.sequence[earlier];
        scheduler.sequence[earlier] = i;
    }
    for (uint32_t i = 0; i < scheduler.resident_count; ++i) {
        scheduler.resident[i].blocks = scheduler.resident->blocks + i * scheduler.group_blocks;
        scheduler.resident[i].threads =
            scheduler.resident->threads + (size_t)i * scheduler.group_blocks * scheduler.threads_per_block;
        start_group(scheduler.resident[i]);
    }
    suspend();
    if (!scheduler.failed) report_divergence();
    for (size_t b = 0; b < blocks; ++b) free_shared_arrays(scheduler.resident->blocks[b]);
    delete[] scheduler.sequence;
    for (uint32_t i = 0; i < bag_count(); ++i) delete[] scheduler.bags[i].threads;
    delete[] scheduler.bags;
    delete[] scheduler.sleeping.threads;
    delete[] scheduler.resident->threads;
    delete[] scheduler.resident->blocks;
    delete[] scheduler.resident;
}

}  // namespace emulation

extern "C" [[gnu::visibility("default")]] int gpunet_launch(const emulation::Request* request) {
    emulation::launch(*request);
    return emulation::scheduler.failed;
}
