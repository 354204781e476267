// How many labels the outputs predict right: out = sum of w_i over the right ones.
//
// score_classes:  [argmax_j o_ij = label_i], the first of equal outputs, NaN above all numbers.
// score_soft_classes: the same, the label of a row being the column of the largest of its targets.
// score_switches: [(o_ij > 0) = (t_ij > 1/2)] for every output.
//
// score_classes: a warp has a row, its lanes the columns l, l + 32, ...: the label is right where no lane finds an
// output that beats its own. score_soft_classes: a warp has a row too, finds that label first, and compares it with the
// column of the largest output. score_switches: thread t has elements t, t + threads, ... Each thread adds up its right
// ones, each block its threads' sums, the last block those of the blocks, all in double precision.
//
// Bytes: 1 element read per output, the others 2, and 1 label and 1 weight per row: the minimum.
#include "common.cuh"

// Writes the sum of every thread's part. All threads of a one-dimensional grid call, at their end.
__device__ __forceinline__ void finish_sum(double part, double* out /* [1] */, double* partial /* [gridDim.x] */,
                                           unsigned int* ticket /* [1] */) {
    SHARED(double, scratch, [WARP_LANES]);
    part = block_reduce<Sum>(part, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = part;
    if (!is_last_block(ticket, gridDim.x)) return;
    double sum = 0;
    for (int block = threadIdx.x; block < gridDim.x; block += blockDim.x) sum += __ldcg(partial + block);
    sum = block_reduce<Sum>(sum, scratch);
    if (threadIdx.x == 0) *out = sum;
}

// Whether a number is before another in order of size, the first of equal ones first.
template <typename A>
__device__ __forceinline__ bool beats(A one, int column, A other, int other_column) {
    const bool is_above = one != one ? other == other : one > other;
    const bool is_equal = one != one ? other != other : one == other;
    return is_above || (is_equal && column < other_column);
}

template <typename T>
__global__ void __launch_bounds__(256)
    score_classes(const T* outputs /* [rows, columns] */, const int* labels /* [rows] */,
                  const arithmetic<T>* weights /* [rows] or null */, double* out /* [1] */,
                  double* partial /* [gridDim.x] */, unsigned int* ticket /* [1] */, int rows, int columns) {
    typedef arithmetic<T> A;
    const int lane = threadIdx.x % WARP_LANES, warps = blockDim.x / WARP_LANES;
    double part = 0;
    for (long long row = (long long)blockIdx.x * warps + threadIdx.x / WARP_LANES; row < rows;
         row += (long long)gridDim.x * warps) {
        const T* in = outputs + element_offset((int)row, 0, columns);
        const int label = labels[row];
        const A own = to_arithmetic(in[label]);
        int is_beaten = 0;
        for (int column = lane; column < columns; column += WARP_LANES) {
            is_beaten |= beats(to_arithmetic(in[column]), column, own, label);
        }
        is_beaten = __any_sync(ALL_LANES, is_beaten);
        if (lane == 0 && !is_beaten) part += weights == nullptr ? A(1) : weights[row];
    }
    finish_sum(part, out, partial, ticket);
}

// The column of a row's largest number, in every lane of the warp that calls.
template <typename T>
__device__ __forceinline__ int largest_column(const T* row /* [columns] */, int columns) {
    typedef arithmetic<T> A;
    int best = threadIdx.x % WARP_LANES;
    if (best >= columns) best = 0;
    for (int column = best; column < columns; column += WARP_LANES)
        if (beats(to_arithmetic(row[column]), column, to_arithmetic(row[best]), best)) best = column;
    A value = to_arithmetic(row[best]);
#pragma unroll
    for (int offset = WARP_LANES / 2; offset > 0; offset /= 2) {
        const A other = __shfl_xor_sync(ALL_LANES, value, offset);
        const int column = __shfl_xor_sync(ALL_LANES, best, offset);
        if (beats(other, column, value, best)) value = other, best = column;
    }
    return best;
}

template <typename T>
__global__ void __launch_bounds__(256)
    score_soft_classes(const T* outputs /* [rows, columns] */, const T* targets /* [rows, columns] */,
                       const arithmetic<T>* weights /* [rows] or null */, double* out /* [1] */,
                       double* partial /* [gridDim.x] */, unsigned int* ticket /* [1] */, int rows, int columns) {
    typedef arithmetic<T> A;
    const int warps = blockDim.x / WARP_LANES;
    double part = 0;
    for (long long row = (long long)blockIdx.x * warps + threadIdx.x / WARP_LANES; row < rows;
         row += (long long)gridDim.x * warps) {
        const long long first = element_offset((int)row, 0, columns);
        const bool is_right = largest_column(outputs + first, columns) == largest_column(targets + first, columns);
        if (threadIdx.x % WARP_LANES == 0 && is_right) part += weights == nullptr ? A(1) : weights[row];
    }
    finish_sum(part, out, partial, ticket);
}

template <typename T>
__global__ void __launch_bounds__(256)
    score_switches(const T* outputs /* [rows, columns] */, const T* targets /* [rows, columns] */,
                   const arithmetic<T>* weights /* [rows] or null */, double* out /* [1] */,
                   double* partial /* [gridDim.x] */, unsigned int* ticket /* [1] */, int rows, int columns) {
    typedef arithmetic<T> A;
    double part = 0;
    const long long count = (long long)rows * columns, stride = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        const bool is_right = (to_arithmetic(outputs[i]) > A(0)) == (to_arithmetic(targets[i]) > A(0.5));
        if (is_right) part += weights == nullptr ? A(1) : weights[i / columns];
    }
    finish_sum(part, out, partial, ticket);
}
