// J = sum_i w_i l_i / sum_i w_i with l_i = -log p_i[label_i], p_i = softmax(logits_i), and dJ/dlogits.
//
// With m = max_j s_j, e_j = exp(s_j - m) and Z = sum_j e_j of one row: l = log Z - (s_label - m), and the gradient is
// w / sum w (e_j / Z - y_j) for the one-hot y. Nothing overflows: every s_j - m is at most 0.
//
// softmax_cross_entropy_lanes: LANES lanes of a warp share a row of at most LANES * VALUES columns and keep it in
// registers between its one read and the write of the gradient. Lane l belongs to row l mod (32 / LANES) of the warp's
// rows and holds every LANES-th column from l div (32 / LANES) on.
// softmax_cross_entropy_block: one block per row, for longer rows. STAGED keeps the row in shared memory; a row too
// long even for that is read three times, the second and third time mostly from the L2 cache.
//
// Each thread adds up its part of the loss over its rows; each block adds its threads' parts, the last block those of
// the blocks, and the rows of the gradient to that of the bias (weighted_mean.cuh). With weights, total_weight runs
// first.
//
// Bytes: 1 element read, 1 written per element, 1 label and 1 weight read per row: the minimum, but for rows that are
// too long for STAGED. With a bias 1 more is written, and for its gradient 1 more is read, from the L2 cache.
#include "activation.cuh"
#include "weighted_mean.cuh"

__device__ __forceinline__ float logarithm(float value) { return logf(value); }
__device__ __forceinline__ double logarithm(double value) { return log(value); }

template <typename T, int LANES, int VALUES>
__global__ void __launch_bounds__(128, VALUES >= 16 ? 2 : 4)
    softmax_cross_entropy_lanes(T* logits /* [rows, columns] */, const arithmetic<T>* bias /* [columns] or null */,
                                const int* labels /* [rows] */, const arithmetic<T>* weights /* [rows] or null */,
                                T* dlogits /* [rows, columns] */, arithmetic<T>* dbias /* [columns] or null */,
                                arithmetic<T>* loss /* [2] */, arithmetic<T>* partial /* [gridDim.x] */,
                                unsigned int* ticket /* [1] */, int rows, int columns,
                                double* losses, const arithmetic<T>* table, arithmetic<T>* scalars, long long* place,
                                long long* steps, const float* skipped, int scalar_count) {
    typedef arithmetic<T> A;
    constexpr int ROWS = WARP_LANES / LANES;
    const int lane = threadIdx.x % WARP_LANES, first_column = lane / ROWS;
    const int warps = blockDim.x / WARP_LANES, warp = blockIdx.x * warps + threadIdx.x / WARP_LANES;
    const A total = weight_total(weights, loss, rows);
    A part = 0;
    // The bound is the same for all lanes of a warp, which all take part in its reductions; beyond the last row they
    // have nothing but minus infinity.
    for (long long base = (long long)warp * ROWS; base < rows; base += (long long)gridDim.x * warps * ROWS) {
        const bool is_row = base + lane % ROWS < rows;
        const int row = is_row ? (int)base + lane % ROWS : rows - 1;
        T* in = logits + element_offset(row, 0, columns);
        T* out = dlogits + element_offset(row, 0, columns);
        const int label = labels[row];
        const A weight = weights == nullptr ? A(1) : weights[row];

        A held[VALUES];
        A maximum = logarithm(A(0));
#pragma unroll
        for (int i = 0; i < VALUES; ++i) {
            const int column = first_column + i * LANES;
            held[i] = is_row && column < columns ? output_at(in, column, bias, column) : maximum;
        }
#pragma unroll
        for (int i = 0; i < VALUES; ++i) maximum = Maximum::apply(maximum, held[i]);
        maximum = warp_reduce<Maximum>(maximum, ROWS);

        A sum = 0, row_loss = 0;
#pragma unroll
        for (int i = 0; i < VALUES; ++i) {
            const int column = first_column + i * LANES;
            const A shifted = held[i] - maximum;
            if (column == label) row_loss = -shifted;
            // Without a column it is 0 anyway; said, it saves up to 30 registers.
            held[i] = column < columns ? exponential(shifted) : A(0);
            sum += held[i];
        }
        sum = warp_reduce<Sum>(sum, ROWS);
        if (first_column == 0) row_loss += logarithm(sum);
        if (is_row) part += weight * row_loss;

        const A inverse_sum = A(1) / sum, factor = weight / total;
#pragma unroll
        for (int i = 0; i < VALUES; ++i) {
            const int column = first_column + i * LANES;
            if (!is_row || column >= columns) continue;
            const A gradient = held[i] * inverse_sum - (column == label ? A(1) : A(0));
            out[column] = to_storage<T>(total == A(0) ? A(0) : gradient * factor);
        }
    }
    finish_weighted_mean(part, total, dlogits, dbias, loss, partial, ticket, rows, columns,
                         {losses, table, scalars, place, steps, skipped, scalar_count});
}

template <typename T, bool STAGED>
__global__ void __launch_bounds__(512)
    softmax_cross_entropy_block(T* logits /* [rows, columns] */, const arithmetic<T>* bias /* [columns] or null */,
                                const int* labels /* [rows] */, const arithmetic<T>* weights /* [rows] or null */,
                                T* dlogits /* [rows, columns] */, arithmetic<T>* dbias /* [columns] or null */,
                                arithmetic<T>* loss /* [2] */, arithmetic<T>* partial /* [gridDim.x] */,
                                unsigned int* ticket /* [1] */, int rows, int columns,
                                double* losses, const arithmetic<T>* table, arithmetic<T>* scalars, long long* place,
                                long long* steps, const float* skipped, int scalar_count) {
    typedef arithmetic<T> A;
    SHARED(A, scratch, [WARP_LANES]);
    DYNAMIC_SHARED(A, staged);  // [columns] where STAGED; a thread reads only what it wrote itself
    const A total = weight_total(weights, loss, rows);
    A part = 0;
    for (int row = blockIdx.x; row < rows; row += gridDim.x) {
        T* in = logits + element_offset(row, 0, columns);
        T* out = dlogits + element_offset(row, 0, columns);
        const int label = labels[row];
        const A weight = weights == nullptr ? A(1) : weights[row];

        A maximum = logarithm(A(0));
#pragma unroll 4
        for (int column = threadIdx.x; column < columns; column += blockDim.x) {
            const A value = output_at(in, column, bias, column);
            if (STAGED) staged[column] = value;
            maximum = Maximum::apply(maximum, value);
        }
        maximum = block_reduce<Maximum>(maximum, scratch);

        A sum = 0;
#pragma unroll 4
        for (int column = threadIdx.x; column < columns; column += blockDim.x) {
            const A value = exponential((STAGED ? staged[column] : to_arithmetic(in[column])) - maximum);
            if (STAGED) staged[column] = value;
            sum += value;
        }
        sum = block_reduce<Sum>(sum, scratch);
        if (threadIdx.x == 0) part += weight * (logarithm(sum) - (to_arithmetic(in[label]) - maximum));

        const A inverse_sum = A(1) / sum, factor = weight / total;
#pragma unroll 4
        for (int column = threadIdx.x; column < columns; column += blockDim.x) {
            const A value = STAGED ? staged[column] : exponential(to_arithmetic(in[column]) - maximum);
            const A gradient = value * inverse_sum - (column == label ? A(1) : A(0));
            out[column] = to_storage<T>(total == A(0) ? A(0) : gradient * factor);
        }
    }
    finish_weighted_mean(part, total, dlogits, dbias, loss, partial, ticket, rows, columns,
                         {losses, table, scalars, place, steps, skipped, scalar_count});
}
