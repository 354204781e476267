// J = sum_i w_i l_i / sum_i w_i with l_i = -sum_j q_ij log p_ij, p_i = softmax(logits_i), and its gradient
// w_i / sum w (p_ij Q_i - q_ij), Q_i = sum_j q_ij.
//
// L = int: q_ij = (1 - e) [j = label_i] + e / c v_j / v_label, with the smoothing e and the class weights v; a label of
// weight 0 has no second term. L = T: q_ij = v_j ((1 - e) t_ij + e / c) for probabilities t.
//
// A warp has a row, its lanes the columns l, l + 32, ...; with m = max_j s_j and Z = sum_j exp(s_j - m), a term of the
// loss is q (log Z - (s - m)), of numbers of at least 0. Each thread adds up its part of the loss over its rows; each
// block adds its threads' parts, the last block those of the blocks, and the rows of the gradient to that of the bias
// (weighted_mean.cuh). With weights, total_weight runs first.
//
// Bytes: 1 element read, 1 written per element, and 1 target: the minimum, but that a row is read three times, the
// second and third time from the cache. Class weights stay in the cache. With a bias 1 more is written, and for its
// gradient 1 more is read, from the L2 cache.
#include "activation.cuh"
#include "weighted_mean.cuh"

__device__ __forceinline__ float logarithm(float value) { return logf(value); }
__device__ __forceinline__ double logarithm(double value) { return log(value); }

template <typename A>
struct OfLabel {
    int label;
    A kept, even;
    const A* class_weights;

    __device__ __forceinline__ OfLabel(const int* labels, int row, int columns, A smoothing, const A* class_weights)
        : label(labels[row]), kept(A(1) - smoothing), class_weights(class_weights) {
        const A own = class_weights == nullptr ? A(1) : class_weights[label];
        even = own == A(0) ? A(0) : smoothing / (A(columns) * own);
    }
    __device__ __forceinline__ A at(int column) const {
        const A spread = class_weights == nullptr ? even : even * class_weights[column];
        return column == label ? kept + spread : spread;
    }
};

template <typename T>
struct OfProbabilities {
    typedef arithmetic<T> A;
    const T* probabilities;
    A kept, even;
    const A* class_weights;

    __device__ __forceinline__ OfProbabilities(const T* targets, int row, int columns, A smoothing,
                                               const A* class_weights)
        : probabilities(targets + element_offset(row, 0, columns)), kept(A(1) - smoothing),
          even(smoothing / A(columns)), class_weights(class_weights) {}
    __device__ __forceinline__ A at(int column) const {
        const A spread = kept * to_arithmetic(probabilities[column]) + even;
        return class_weights == nullptr ? spread : spread * class_weights[column];
    }
};

template <typename T, typename L> struct SpreadOf { typedef OfProbabilities<T> type; };
template <typename T> struct SpreadOf<T, int> { typedef OfLabel<arithmetic<T>> type; };

template <typename T, typename L>
__global__ void __launch_bounds__(256, 2)
    soft_cross_entropy(T* logits /* [rows, columns] */, const arithmetic<T>* bias /* [columns] or null */,
                       const L* targets /* [rows] or [rows, columns] */,
                       const arithmetic<T>* weights /* [rows] or null */, T* dlogits /* [rows, columns] */,
                       arithmetic<T>* dbias /* [columns] or null */, arithmetic<T>* loss /* [2] */,
                       arithmetic<T>* partial /* [gridDim.x] */, unsigned int* ticket /* [1] */, int rows, int columns,
                       double* losses, const arithmetic<T>* table, arithmetic<T>* scalars, long long* place,
                       long long* steps, const float* skipped, int scalar_count, arithmetic<T> smoothing,
                       const arithmetic<T>* class_weights /* [columns] or null */) {
    typedef arithmetic<T> A;
    const int lane = threadIdx.x % WARP_LANES, warps = blockDim.x / WARP_LANES;
    const A total = weight_total(weights, loss, rows);
    A part = 0;
    for (long long row = (long long)blockIdx.x * warps + threadIdx.x / WARP_LANES; row < rows;
         row += (long long)gridDim.x * warps) {
        T* in = logits + element_offset((int)row, 0, columns);
        T* out = dlogits + element_offset((int)row, 0, columns);
        const typename SpreadOf<T, L>::type spread(targets, (int)row, columns, smoothing, class_weights);
        const A weight = weights == nullptr ? A(1) : weights[row];

        A maximum = logarithm(A(0));
        for (int column = lane; column < columns; column += WARP_LANES)
            maximum = Maximum::apply(maximum, output_at(in, column, bias, column));
        maximum = warp_reduce<Maximum>(maximum);

        A sum = 0, mass = 0;
        for (int column = lane; column < columns; column += WARP_LANES) {
            sum += exponential(to_arithmetic(in[column]) - maximum);
            mass += spread.at(column);
        }
        sum = warp_reduce<Sum>(sum);
        mass = warp_reduce<Sum>(mass);

        const A log_sum = logarithm(sum), scale = mass / sum, factor = weight / total;
        for (int column = lane; column < columns; column += WARP_LANES) {
            const A shifted = to_arithmetic(in[column]) - maximum, share = spread.at(column);
            out[column] = to_storage<T>(total == A(0) ? A(0) : (scale * exponential(shifted) - share) * factor);
            part += weight * (share * (log_sum - shifted));
        }
    }
    finish_weighted_mean(part, total, dlogits, dbias, loss, partial, ticket, rows, columns,
                         {losses, table, scalars, place, steps, skipped, scalar_count});
}
