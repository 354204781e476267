// Activation functions f and their derivatives: what gpunet/activations.py does, in the order of its ACTIVATIONS.
//
// A kernel takes the code as a template argument, so that its inner loop has no switch, and the function's one number
// (slope of leaky ReLU, alpha of ELU) as a run-time argument. The derivative is a function of the output y, so the
// backward pass sees exactly the branch that the forward pass took: y > 0.
//
// exp, tanh and expm1 are the accurate ones. Kernels are compiled without --use_fast_math.
#ifndef GPUNET_ACTIVATION_CUH
#define GPUNET_ACTIVATION_CUH

#include "common.cuh"

enum ActivationCode { IDENTITY = 0, SIGMOID = 1, TANH = 2, RELU = 3, LEAKY_RELU = 4, ELU = 5 };

__device__ __forceinline__ float exponential(float value) { return expf(value); }
__device__ __forceinline__ double exponential(double value) { return exp(value); }
__device__ __forceinline__ float exponential_minus_one(float value) { return expm1f(value); }
__device__ __forceinline__ double exponential_minus_one(double value) { return expm1(value); }
__device__ __forceinline__ float hyperbolic_tangent(float value) { return tanhf(value); }
__device__ __forceinline__ double hyperbolic_tangent(double value) { return tanh(value); }

// f(s). NaN stays NaN, as in NumPy: a maximum would hide it.
template <int ACTIVATION, typename A>
__device__ __forceinline__ A activate(A s, A parameter) {
    if constexpr (ACTIVATION == SIGMOID) return A(1) / (A(1) + exponential(-s));
    if constexpr (ACTIVATION == TANH) return hyperbolic_tangent(s);
    if constexpr (ACTIVATION == RELU) return s < A(0) ? A(0) : s;
    if constexpr (ACTIVATION == LEAKY_RELU) return s > A(0) ? s : multiply_rounded(parameter, s);
    if constexpr (ACTIVATION == ELU)
        return s > A(0) ? s : multiply_rounded(parameter, exponential_minus_one(s));
    return s;
}

// f'(s) in terms of y = f(s).
template <int ACTIVATION, typename A>
__device__ __forceinline__ A activation_derivative(A y, A parameter) {
    if constexpr (ACTIVATION == SIGMOID) return y * (A(1) - y);
    if constexpr (ACTIVATION == TANH) return (A(1) - y) * (A(1) + y);
    if constexpr (ACTIVATION == RELU) return y > A(0) ? A(1) : A(0);
    if constexpr (ACTIVATION == LEAKY_RELU) return y > A(0) ? A(1) : parameter;
    if constexpr (ACTIVATION == ELU) return y > A(0) ? A(1) : y + parameter;
    return A(1);
}

#endif
