// Fibers: functions with a stack of their own, which can stop in the middle and continue later.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

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
constexpr size_t stacks_per_mapping = 64;

struct Fiber {
    char* stack = nullptr;  // lowest address
    size_t bytes = 0;
    Fiber* next_idle = nullptr;
    Fiber* next_created = nullptr;
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

}  // namespace emulation
