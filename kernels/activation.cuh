// What the texts of activations call. The functions themselves, f and its derivative, are in gpunet/activations, each in
// a structure
//
//     struct relu_activation {
//         static constexpr bool DERIVATIVE_OF_INPUT = false;
//         template <typename A> static A forward(A s, A parameter);
//         template <typename A> static A derivative(A y, A parameter);    // of s, where DERIVATIVE_OF_INPUT
//     };
//
// which is put behind a kernel's source and is a template argument of it, so that an inner loop has no switch. The
// function's one number (slope of leaky ReLU, alpha of ELU) is a run-time argument. A derivative of the output sees
// exactly the branch that the forward pass took: y > 0; a derivative of the input sees the same input, to the bit.
//
// exp, tanh and expm1 are the accurate ones. Kernels are compiled without --use_fast_math.
#ifndef GPUNET_ACTIVATION_CUH
#define GPUNET_ACTIVATION_CUH

#include "common.cuh"

__device__ __forceinline__ float exponential(float value) { return expf(value); }
__device__ __forceinline__ double exponential(double value) { return exp(value); }
__device__ __forceinline__ float exponential_minus_one(float value) { return expm1f(value); }
__device__ __forceinline__ double exponential_minus_one(double value) { return expm1(value); }
__device__ __forceinline__ float hyperbolic_tangent(float value) { return tanhf(value); }
__device__ __forceinline__ double hyperbolic_tangent(double value) { return tanh(value); }
__device__ __forceinline__ float logarithm_of_one_plus(float value) { return log1pf(value); }
__device__ __forceinline__ double logarithm_of_one_plus(double value) { return log1p(value); }

// NaN stays NaN, as in NumPy: a minimum or maximum would hide it.
template <typename A>
__device__ __forceinline__ A clamped(A value, A lowest, A highest) {
    return value < lowest ? lowest : (value > highest ? highest : value);
}

#endif
