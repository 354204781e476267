// Fibers: functions with a stack of their own, which can stop in the middle and continue later.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__) || defined(GPUNET_EMULATION_UCONTEXT)
#define EMULATION_USES_UCONTEXT 1
#include <ucontext.h>
#endif

namespace emulation {

// compiler.py refuses kernels whose local variables come near these sizes.
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t stack_bytes = 256 * 1024;  // red zones make frames several times larger
#else
constexpr size_t stack_bytes = 64 * 1024 + 448;  // not a power of two: the tops would compete for one cache set
#endif
constexpr size_t stacks_per_mapping = 1024, most_mappings = 64;

struct Stacks {  // of the process: its modules run one after the other
    char* mappings[most_mappings];
};

struct Fiber {
    char* stack = nullptr;  // lowest address
    size_t bytes = 0;
    Fiber* next_idle = nullptr;
#if defined(EMULATION_USES_UCONTEXT)
    ucontext_t context;
#else
    void* stack_pointer = nullptr;
#endif
    void* sanitizer_frames = nullptr;
};

inline void fiber_main();

#if defined(EMULATION_USES_UCONTEXT)
inline void set_entry(Fiber& fiber) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = fiber.bytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
}
inline void exchange_stacks(Fiber& from, Fiber& to) { swapcontext(&from.context, &to.context); }
#else
// swapcontext makes a system call to save the signal mask; this saves what the calling convention asks for only.
// It lives outside any C++ function so that the compiler must assume that it reads and writes all memory.
extern "C" void gpunet_exchange_stacks(void** save, void* load);
asm(R"(
    .pushsection .text
    .type gpunet_exchange_stacks, @function
gpunet_exchange_stacks:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size gpunet_exchange_stacks, .-gpunet_exchange_stacks
    .popsection
)");
inline void set_entry(Fiber& fiber) {
    // What gpunet_exchange_stacks pops: six registers, then the address to return to. The zero above it stands
    // where a caller's return address would: it ends stack traces and gives fiber_main the alignment of a call.
    void** top = reinterpret_cast<void**>(fiber.stack + fiber.bytes) - 8;
    memset(top, 0, 8 * sizeof(void*));
    top[6] = reinterpret_cast<void*>(&fiber_main);
    fiber.stack_pointer = top;
}
inline void exchange_stacks(Fiber& from, Fiber& to) {
    gpunet_exchange_stacks(&from.stack_pointer, to.stack_pointer);
}
#endif

// Returns a fiber that begins on stack number `index`, or null where there is no memory for it.
inline Fiber* make_fiber(Stacks& stacks, uint32_t index) {
    if (index >= stacks_per_mapping * most_mappings) return nullptr;
    char*& mapping = stacks.mappings[index / stacks_per_mapping];
    if (mapping == nullptr) {
        void* found = mmap(nullptr, stack_bytes * stacks_per_mapping, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (found == MAP_FAILED) return nullptr;
        mapping = static_cast<char*>(found);
    }
    char* stack = mapping + index % stacks_per_mapping * stack_bytes;
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(stack, stack_bytes);
#endif
    // Above the stack, on a page that it touches anyway.
    constexpr size_t room = (sizeof(Fiber) + 63) / 64 * 64;
    Fiber* fiber = reinterpret_cast<Fiber*>(stack + stack_bytes - room);
    *fiber = {};
    fiber->stack = stack;
    fiber->bytes = stack_bytes - room;
    set_entry(*fiber);
    return fiber;
}

}  // namespace emulation
