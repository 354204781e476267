// What Python and a compiled module know of each other: kernels with their parameters, and requests to launch.
//
// Python fills and reads these structures through ctypes: compiler.py mirrors them.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <type_traits>
#include <utility>

namespace emulation {

enum class Kind : int32_t { other, integer, floating, pointer };
struct Parameter {
    Kind kind;
    int32_t bytes;
    Kind pointee_kind;  // of a pointer: what it points to, `other` for structures and void
    int32_t pointee_bytes;
    int32_t pointee_constant;
};
struct Kernel {
    const char* name;
    void (*run)(void** arguments);  // the body for one thread
    const Parameter* parameters;
    int64_t parameter_count;
};
// Which of the threads that can run goes on: any; each in its turn; first, or last, those of one warp of each block;
// last those of one lane of one block, once they have passed some barriers; first those of one block; first the last
// warps.
enum class Order : uint32_t { shuffled, round_robin, warp_ahead, warp_behind, lane_behind, block_ahead, reversed };
struct Stacks;
struct Request {
    const Kernel* kernel;
    void** arguments;
    uint32_t grid[3], block[3], cluster[3];
    uint32_t cooperative, resident_blocks;
    Order order;
    uint64_t dynamic_shared_bytes, shared_bytes_limit;
    uint64_t seed;
    Stacks* stacks;
    char* message;  // what went wrong, when gpunet_launch returns non-zero
    uint64_t message_bytes;
};

// Each kernel is reached through a function that takes its arguments as cuLaunchKernel does: as an array of
// pointers to their values. Its parameter types tell how many bytes each has.
template <typename T>
constexpr Kind kind_of() {
    if constexpr (std::is_pointer_v<T>) return Kind::pointer;
    else if constexpr (std::is_integral_v<T> || std::is_enum_v<T>) return Kind::integer;
    else if constexpr (std::is_floating_point_v<T>) return Kind::floating;
    else return Kind::other;
}
template <typename T>
constexpr Parameter describe_parameter() {
    using Pointee = std::remove_pointer_t<T>;
    constexpr bool constant = std::is_const_v<Pointee>;
    if constexpr (!std::is_pointer_v<T>) return {kind_of<T>(), sizeof(T), Kind::other, 0, 0};
    else if constexpr (std::is_void_v<Pointee>) return {Kind::pointer, sizeof(T), Kind::other, 0, constant};
    else return {Kind::pointer, sizeof(T), kind_of<std::remove_cv_t<Pointee>>(), sizeof(Pointee), constant};
}

template <auto function>
struct Trampoline;
template <typename... Types, void (*function)(Types...)>
struct Trampoline<function> {
    static constexpr Parameter parameters[sizeof...(Types) + 1] = {describe_parameter<Types>()...};
    static void run(void** arguments) { run(arguments, std::index_sequence_for<Types...>{}); }
    template <size_t... position>
    static void run([[maybe_unused]] void** arguments, std::index_sequence<position...>) {
        function(*static_cast<std::remove_const_t<Types>*>(arguments[position])...);
    }
    static constexpr Kernel describe(const char* name) { return {name, run, parameters, sizeof...(Types)}; }
};

}  // namespace emulation
