// One step of SGD or Adam over the flat vector of all parameters, and the factor that clips its gradient.
//
// g_i = clip (gradient_i + 2 l2 parameter_i for i < weight_count), where clip is 1 or *clip.
// SGD:   v = momentum v + g; parameter -= rate (nesterov ? g + momentum v : v), with v = g where there is no velocity.
// Adam:  m = beta_1 m + (1 - beta_1) g; v = beta_2 v + (1 - beta_2) g^2;
//        parameter = (1 - rate decay for i < weight_count) parameter
//                    - rate correction_1 m / (sqrt(correction_2 v) + epsilon).
// Clip:  *out = min(1, maximum_norm / ||g||), 0 where ||g|| is not finite.
// SGD and Adam do nothing where the batch's loss is not finite: the weights that led there stay, to be looked at.
// Whatever changes from step to step (rate, corrections, clip factor) is read from device memory, so that a recorded
// launch can be repeated.
//
// Thread t handles N neighbouring elements, one access of 16 bytes in each vector where all are aligned; the elements
// left over at the end go one to each of the first threads.
//
// Bytes per float parameter: SGD reads 8 and writes 4, with velocity reads 12 and writes 8; Adam reads 16 and writes
// 12; clip reads 8. The minimum.
#include "flat_vector.cuh"

// WITHOUT_TERM: decay may be 0 while weight_count is not; then there is no term, also of an infinite parameter.
template <typename T, bool WITHOUT_TERM = false>
struct CostGradient {
    const T* parameters;
    const T* gradients;
    long long weight_count;
    T decay;  // 2 l2
    T clip;

    template <int N>
    __device__ __forceinline__ void load(long long first, Pack<T, N>& values, Pack<T, N>& gradient) const {
        values = load_pack<N>(parameters + first);
        gradient = load_pack<N>(gradients + first);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const bool has_term = first + i < weight_count && !(WITHOUT_TERM && decay == T(0));
            const T term = has_term ? decay * values.values[i] : T(0);
            gradient.values[i] = clip * (gradient.values[i] + term);
        }
    }
};

template <typename T, bool VELOCITY>
struct SgdStep {
    CostGradient<T> cost;
    T* parameters;
    T* velocity;
    T rate, momentum;
    bool nesterov;

    template <int M>
    __device__ __forceinline__ void operator()(long long first, Width<M>) const {
        Pack<T, M> values, gradient, speed;
        cost.load(first, values, gradient);
        if constexpr (VELOCITY) speed = load_pack<M>(velocity + first);
#pragma unroll
        for (int i = 0; i < M; ++i) {
            T direction = gradient.values[i];
            if constexpr (VELOCITY) {
                speed.values[i] = momentum * speed.values[i] + direction;
                direction = nesterov ? direction + momentum * speed.values[i] : speed.values[i];
            }
            values.values[i] -= rate * direction;
        }
        store_pack(parameters + first, values);
        if constexpr (VELOCITY) store_pack(velocity + first, speed);
    }
};

template <typename T, int N, bool VELOCITY>
__global__ void __launch_bounds__(256)
    sgd_step(T* parameters /* [count] */, const T* gradients /* [count] */, T* velocity /* [count] or null */,
             long long count, long long weight_count, const T* scalars /* [1]: rate */,
             const T* clip /* [1] or null */, const T* loss /* [2] */, T decay, T momentum, int nesterov) {
    if (!is_finite(loss[0])) return;
    const CostGradient<T> cost = {parameters, gradients, weight_count, decay, clip == nullptr ? T(1) : *clip};
    for_each_element<N>(
        count, SgdStep<T, VELOCITY>{cost, parameters, velocity, scalars[0], momentum, nesterov != 0});
}

template <typename T>
struct AdamStep {
    CostGradient<T, true> cost;
    T* parameters;
    T* first_moment;
    T* second_moment;
    T rate, scaled_rate, correction_2, beta_1, beta_2, one_minus_beta_1, one_minus_beta_2, epsilon, weight_decay;

    template <int M>
    __device__ __forceinline__ void operator()(long long first, Width<M>) const {
        Pack<T, M> values, gradient, mean, square;
        cost.load(first, values, gradient);
        mean = load_pack<M>(first_moment + first);
        square = load_pack<M>(second_moment + first);
#pragma unroll
        for (int i = 0; i < M; ++i) {
            const T g = gradient.values[i];
            mean.values[i] = beta_1 * mean.values[i] + one_minus_beta_1 * g;
            square.values[i] = beta_2 * square.values[i] + one_minus_beta_2 * g * g;
            const T kept = first + i < cost.weight_count ? T(1) - rate * weight_decay : T(1);
            const T root = square_root(correction_2 * square.values[i]);
            values.values[i] = kept * values.values[i] - scaled_rate * mean.values[i] / (root + epsilon);
        }
        store_pack(parameters + first, values);
        store_pack(first_moment + first, mean);
        store_pack(second_moment + first, square);
    }
};

// one_minus_beta_1 and one_minus_beta_2 come from the host, which rounds 1 - beta once, from double precision.
template <typename T, int N>
__global__ void __launch_bounds__(256)
    adam_step(T* parameters /* [count] */, const T* gradients /* [count] */, T* first_moment /* [count] */,
              T* second_moment /* [count] */, long long count, long long weight_count,
              const T* scalars /* [3]: rate, 1 / (1 - beta_1^t), 1 / (1 - beta_2^t) */, const T* clip /* [1] or null */,
              const T* loss /* [2] */, T decay, T beta_1, T beta_2, T one_minus_beta_1, T one_minus_beta_2, T epsilon,
              T weight_decay) {
    if (!is_finite(loss[0])) return;
    const CostGradient<T, true> cost = {parameters, gradients, weight_count, decay, clip == nullptr ? T(1) : *clip};
    for_each_element<N>(count, AdamStep<T>{cost, parameters, first_moment, second_moment, scalars[0],
                                           scalars[0] * scalars[1], scalars[2], beta_1, beta_2, one_minus_beta_1,
                                           one_minus_beta_2, epsilon, weight_decay});
}

template <typename T>
struct SquaredNorm {
    CostGradient<T> cost;
    double* total;
    double scale;

    template <int M>
    __device__ __forceinline__ void operator()(long long first, Width<M>) const {
        Pack<T, M> values, gradient;
        cost.load(first, values, gradient);
#pragma unroll
        for (int i = 0; i < M; ++i) {
            const double value = (double)gradient.values[i] * scale;
            *total += value * value;
        }
    }
};

// Summed in double precision, where squares of float gradients, from 1e19 on, do not overflow. Where those of double
// gradients do, from 1e154 on, the last block adds all of them again, scaled down.
template <typename T, int N>
__global__ void __launch_bounds__(256)
    clip_factor(const T* parameters /* [count] */, const T* gradients /* [count] */, long long count,
                long long weight_count, T decay, double maximum_norm, T* out /* [1] */,
                double* partial /* [gridDim.x] */, unsigned int* ticket /* [1] */) {
    SHARED(double, scratch, [WARP_LANES]);
    const CostGradient<T> cost = {parameters, gradients, weight_count, decay, T(1)};
    double total = 0;
    for_each_element<N>(count, SquaredNorm<T>{cost, &total, 1});
    total = block_reduce<Sum>(total, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = total;
    if (!is_last_block(ticket, gridDim.x)) return;
    total = 0;
    for (int block = threadIdx.x; block < gridDim.x; block += blockDim.x) total += __ldcg(partial + block);
    total = block_reduce<Sum>(total, scratch);
    double norm = square_root(total);
    if constexpr (sizeof(T) == sizeof(double)) {
        if (!is_finite(total)) {
            constexpr double SCALE = 0x1p-600;
            total = 0;
            for (long long i = threadIdx.x; i < count; i += blockDim.x)
                SquaredNorm<T>{cost, &total, SCALE}(i, Width<1>());
            norm = square_root(block_reduce<Sum>(total, scratch)) / SCALE;
        }
    }
    if (threadIdx.x == 0) {
        const T factor = T(maximum_norm / norm);
        *out = norm <= maximum_norm ? T(1) : (factor == factor ? factor : T(0));
    }
}
