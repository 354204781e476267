// CUDA's types and arithmetic functions for a kernel compiled by a C++ compiler for the CPU.
//
// Everything here is a plain function of its arguments: no threads, no state (those are in cuda_emulation.hpp).
// Names and roundings are CUDA's. The approximate functions (__expf, rsqrtf, ...) give the accurate result: an
// emulated kernel shows whether the algorithm is right, not the last bits of the hardware's special-function unit.
#pragma once

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <type_traits>

// ---------------------------------------------------------------------------------------------- vector types
struct uint3 { unsigned int x, y, z; };
struct dim3 {
    unsigned int x, y, z;
    constexpr dim3(unsigned int x_ = 1, unsigned int y_ = 1, unsigned int z_ = 1) : x(x_), y(y_), z(z_) {}
};

// The alignment is part of the type in CUDA (one load instruction for the whole vector), so it is here: a
// misaligned access is then reported.
#define EMULATED_VECTOR_TYPES(scalar, name2, name4, alignment2, alignment4)                                    \
    struct alignas(alignment2) name2 { scalar x, y; };                                                         \
    struct alignas(alignment4) name4 { scalar x, y, z, w; };                                                   \
    inline name2 make_##name2(scalar x, scalar y) { return {x, y}; }                                           \
    inline name4 make_##name4(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }
EMULATED_VECTOR_TYPES(float, float2, float4, 8, 16)
EMULATED_VECTOR_TYPES(double, double2, double4, 16, 16)
EMULATED_VECTOR_TYPES(int, int2, int4, 8, 16)
EMULATED_VECTOR_TYPES(unsigned int, uint2, uint4, 8, 16)
EMULATED_VECTOR_TYPES(unsigned short, ushort2, ushort4, 4, 8)
#undef EMULATED_VECTOR_TYPES

// -------------------------------------------------------------------------------------------------- bit casts
namespace emulation {
template <typename To, typename From>
inline To bit_cast(From value) {
    static_assert(sizeof(To) == sizeof(From));
    To result;
    memcpy(&result, &value, sizeof(To));
    return result;
}
}  // namespace emulation

inline unsigned int __float_as_uint(float value) { return emulation::bit_cast<unsigned int>(value); }
inline int __float_as_int(float value) { return emulation::bit_cast<int>(value); }
inline float __uint_as_float(unsigned int bits) { return emulation::bit_cast<float>(bits); }
inline float __int_as_float(int bits) { return emulation::bit_cast<float>(bits); }
inline long long __double_as_longlong(double value) { return emulation::bit_cast<long long>(value); }
inline double __longlong_as_double(long long bits) { return emulation::bit_cast<double>(bits); }

// ------------------------------------------------------------------------------------------ integer functions
inline unsigned int __umulhi(unsigned int a, unsigned int b) { return (unsigned int)((uint64_t)a * b >> 32); }
inline int __mulhi(int a, int b) { return (int)((int64_t)a * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline int __clz(int value) { return value == 0 ? 32 : __builtin_clz((unsigned int)value); }
inline int __clzll(long long value) { return value == 0 ? 64 : __builtin_clzll((unsigned long long)value); }
inline int __popc(unsigned int value) { return __builtin_popcount(value); }
inline int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __ffsll(long long value) { return __builtin_ffsll(value); }

// CUDA's min and max accept mixed types, and return the other operand when one is NaN.
template <typename A, typename B>
constexpr std::common_type_t<A, B> max(A a, B b) {
    using Common = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<Common>)
        if (__builtin_isnan((Common)a)) return b;
    return (Common)a < (Common)b ? b : a;
}
template <typename A, typename B>
constexpr std::common_type_t<A, B> min(A a, B b) {
    using Common = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<Common>)
        if (__builtin_isnan((Common)a)) return b;
    return (Common)b < (Common)a ? b : a;
}

// ------------------------------------------------------------------------------------ floating-point functions
// The compiler runs with -ffp-contract=off, so these operators round once each, as the _rn functions promise.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fsqrt_rn(float value) { return sqrtf(value); }
inline float __frcp_rn(float value) { return 1.0f / value; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float value) { return value > 0.0f ? (value < 1.0f ? value : 1.0f) : 0.0f; }
inline float rsqrtf(float value) { return (float)(1.0 / sqrt((double)value)); }
inline double rsqrt(double value) { return 1.0 / sqrt(value); }
inline float rsqrt(float value) { return rsqrtf(value); }
inline float __frsqrt_rn(float value) { return rsqrtf(value); }
inline float __expf(float value) { return expf(value); }
inline float __logf(float value) { return logf(value); }
inline float __log2f(float value) { return log2f(value); }
inline float __powf(float base, float exponent) { return powf(base, exponent); }
inline float __sinf(float value) { return sinf(value); }
inline float __cosf(float value) { return cosf(value); }
inline int __float2int_rn(float value) { return (int)lrintf(value); }
inline float __int2float_rn(int value) { return (float)value; }
inline float __uint2float_rn(unsigned int value) { return (float)value; }
inline float __double2float_rn(double value) { return (float)value; }

// ------------------------------------------------------------------------------- half precision and bfloat16
// Storage types only: kernels load them, convert to float, compute, and convert back.
struct __half { unsigned short bits; };
struct __nv_bfloat16 { unsigned short bits; };
struct alignas(4) __half2 { __half x, y; };
struct alignas(4) __nv_bfloat162 { __nv_bfloat16 x, y; };

inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
inline unsigned short __half_as_ushort(__half value) { return value.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return {bits}; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) { return value.bits; }

inline __half __float2half_rn(float value) {
    const unsigned int sign = __float_as_uint(value) >> 16 & 0x8000u;
    const unsigned int magnitude = __float_as_uint(value) & 0x7fffffffu;
    unsigned int half;
    if (magnitude > 0x7f800000u) return {0x7fff};  // the hardware's NaN
    if (magnitude >= 0x477ff000u) {
        half = 0x7c00u;  // 65520 and above round to infinity
    } else if (magnitude < 0x38800000u) {
        // Below 2^-14 a half is a multiple of 2^-24, which is the spacing of floats at 0.5: the addition rounds.
        half = __float_as_uint(__uint_as_float(magnitude) + 0.5f) - 0x3f000000u;
    } else {
        const unsigned int round_to_even = 0xfffu + (magnitude >> 13 & 1u);
        half = (magnitude + round_to_even - ((127u - 15u) << 23)) >> 13;
    }
    return {(unsigned short)(sign | half)};
}
inline float __half2float(__half value) {
    const unsigned int sign = (value.bits & 0x8000u) << 16;
    const unsigned int exponent = value.bits >> 10 & 31u;
    const unsigned int mantissa = value.bits & 1023u;
    if (exponent == 0) return __uint_as_float(sign | __float_as_uint((float)mantissa * 0x1p-24f));
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | mantissa << 13);
    return __uint_as_float(sign | (exponent + 127u - 15u) << 23 | mantissa << 13);
}
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
    const unsigned int bits = __float_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
    const unsigned int round_to_even = 0x7fffu + (bits >> 16 & 1u);
    return {(unsigned short)((bits + round_to_even) >> 16)};
}
inline float __bfloat162float(__nv_bfloat16 value) { return __uint_as_float((unsigned int)value.bits << 16); }

inline __half __float2half(float value) { return __float2half_rn(value); }
inline __nv_bfloat16 __float2bfloat16(float value) { return __float2bfloat16_rn(value); }
inline __half2 __floats2half2_rn(float a, float b) { return {__float2half_rn(a), __float2half_rn(b)}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b) {
    return {__float2bfloat16_rn(a), __float2bfloat16_rn(b)};
}
inline float2 __half22float2(__half2 pair) { return {__half2float(pair.x), __half2float(pair.y)}; }
inline float2 __bfloat1622float2(__nv_bfloat162 pair) {
    return {__bfloat162float(pair.x), __bfloat162float(pair.y)};
}

// -------------------------------------------------------------------------------------------- cached accesses
template <typename T> inline T __ldg(const T* address) { return *address; }
template <typename T> inline T __ldcs(const T* address) { return *address; }
template <typename T> inline T __ldcg(const T* address) { return *address; }
template <typename T> inline void __stcs(T* address, std::type_identity_t<T> value) { *address = value; }
template <typename T> inline void __stcg(T* address, std::type_identity_t<T> value) { *address = value; }

// --------------------------------------------------------------------------------------------------- atomics
// One emulated thread runs at a time and is only exchanged at a barrier or shuffle, so a plain read and write is
// atomic. Integers only: a sum of floats in the order threads happen to arrive differs from run to run.
namespace emulation {
template <typename T>
inline T wrapping_sum(T a, T b) {
    T sum;
    __builtin_add_overflow(a, b, &sum);
    return sum;
}
}  // namespace emulation
#define EMULATED_ATOMIC(name, expression)                                                                      \
    template <typename T>                                                                                      \
    inline T name(T* address, std::type_identity_t<T> value) {                                                 \
        static_assert(std::is_integral_v<T>, #name ": gpunet uses atomics on integers only");                  \
        const T old = *address;                                                                                \
        *address = (expression);                                                                               \
        return old;                                                                                            \
    }
EMULATED_ATOMIC(atomicAdd, emulation::wrapping_sum(old, value))
EMULATED_ATOMIC(atomicSub, emulation::wrapping_sum(old, emulation::wrapping_sum<T>(~value, 1)))
EMULATED_ATOMIC(atomicMax, old < value ? value : old)
EMULATED_ATOMIC(atomicMin, value < old ? value : old)
EMULATED_ATOMIC(atomicAnd, old & value)
EMULATED_ATOMIC(atomicOr, old | value)
EMULATED_ATOMIC(atomicXor, old ^ value)
EMULATED_ATOMIC(atomicExch, value)
EMULATED_ATOMIC(atomicInc, old >= value ? 0 : old + 1)
EMULATED_ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1)
#undef EMULATED_ATOMIC
template <typename T>
inline T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> desired) {
    const T old = *address;
    if (old == expected) *address = desired;
    return old;
}
