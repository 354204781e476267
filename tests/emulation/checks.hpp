// Errors in a kernel that end its launch with a message, in place of a crash.
//
// The compiler inserts calls to these where a pointer is null or misaligned, an index is outside its array, or
// an integer is divided by zero (-fsanitize=null,alignment,bounds,integer-divide-by-zero). The sanitizer's own
// handlers would end the process; these end the launch. Every first argument starts with a source position.
#pragma once

#include "scheduler.hpp"

#if !defined(GPUNET_EMULATION_SANITIZED)
namespace emulation {
struct SourcePosition { const char* file; uint32_t line, column; };
void report_bad_pointer(SourcePosition*, uintptr_t) asm("__ubsan_handle_type_mismatch_v1_abort");
void report_bad_index(SourcePosition*, uintptr_t) asm("__ubsan_handle_out_of_bounds_abort");
void report_division(SourcePosition*, uintptr_t, uintptr_t) asm("__ubsan_handle_divrem_overflow_abort");
void report_bad_pointer(SourcePosition* at, uintptr_t pointer) {
    const char* problem = pointer == 0 ? "null" : "misaligned";
    fail("%s:%u: %s address 0x%llx", at->file, at->line, problem, (unsigned long long)pointer);
}
void report_bad_index(SourcePosition* at, uintptr_t index) {
    fail("%s:%u: index %lld is outside the array", at->file, at->line, (long long)index);
}
void report_division(SourcePosition* at, uintptr_t, uintptr_t) {
    fail("%s:%u: integer division by zero", at->file, at->line);
}
}  // namespace emulation
#endif
