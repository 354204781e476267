// What the pass of a narrow network is made of: tiles on chip, products, what blocks tell one another; narrow_pass.cu
// has the formulas and the overview.
#ifndef GPUNET_NARROW_PASS_CUH
#define GPUNET_NARROW_PASS_CUH

#include "batch_norm.cuh"

constexpr int THREADS = 256, SIDE = 64, QUAD = 4, QUADS = SIDE / QUAD, PARTS = THREADS / SIDE;
// Vectors in the flat parameters start at multiples of this; the numbers in between have the gradient 0.
constexpr int ALIGNMENT = 32;

// A linear layer: sizes, and where vectors start in the flat parameters and in the state.
struct NarrowLayer {
    int inputs, outputs;
    int weights;
    int scale, shift;  // gamma and beta; or nothing and the bias
    int running_mean, running_variance;
};

// The rows of a block; the last one has what is left over.
__device__ __forceinline__ int rows_of(int block, int rows) {
    const int left = rows - block * SIDE;
    return left < SIDE ? left : SIDE;
}

// Four units and four rows: the thread's in every tile. Of a warp, the 16 lanes of one parity have the same units.
struct Own {
    int unit, row;  // the first of each

    __device__ __forceinline__ Own()
        : unit(QUAD * (threadIdx.x / WARP_LANES * 2 + threadIdx.x % 2)), row(QUAD * (threadIdx.x % WARP_LANES / 2)) {}
    __device__ __forceinline__ bool exists(int p, int q, int units, int rows) const {
        return unit + p < units && row + q < rows;
    }
};

// ----------------------------------------------------------------------------------------------------------- on chip

// 64 lines of 64 numbers. The quads of a line change places from one group of four lines to the next, so that a column of
// quads, like a line of them, is read without a bank conflict.
template <typename T>
struct Tile {
    Pack<T, QUAD>* packs;

    // Quad `index` of the first line of a group; those of the next three follow at intervals of QUADS.
    __device__ __forceinline__ Pack<T, QUAD>* quad(int group, int index) const {
        return packs + group * QUAD * QUADS + (index ^ group);
    }
    __device__ __forceinline__ T& number(int line, int index) const {
        return quad(line / QUAD, index / QUAD)[line % QUAD * QUADS].values[index % QUAD];
    }
    __device__ __forceinline__ void read(const Own& own, T (&values)[QUAD][QUAD]) const {
        for (int p = 0; p < QUAD; ++p) {
            const Pack<T, QUAD> pack = quad(own.unit / QUAD, own.row / QUAD)[p * QUADS];
            for (int q = 0; q < QUAD; ++q) values[p][q] = pack.values[q];
        }
    }
    __device__ __forceinline__ void write(const Own& own, const T (&values)[QUAD][QUAD]) const {
        for (int p = 0; p < QUAD; ++p) {
            Pack<T, QUAD> pack;
            for (int q = 0; q < QUAD; ++q) pack.values[q] = values[p][q];
            quad(own.unit / QUAD, own.row / QUAD)[p * QUADS] = pack;
        }
    }
    // From a matrix in global memory, transposed or not, and 0 beyond its edges, by the threads from FIRST on.
    template <bool TRANSPOSED, int FIRST>
    __device__ __forceinline__ void load(const T* matrix, int rows, int columns) const {
#pragma unroll 4
        for (int place = (int)threadIdx.x - FIRST; place < SIDE * SIDE; place += THREADS - FIRST) {
            const int row = place / SIDE, column = place % SIDE;
            const T value = row < rows && column < columns ? matrix[element_offset(row, column, columns)] : T(0);
            if (TRANSPOSED) number(column, row) = value;
            else number(row, column) = value;
        }
    }
};

// c_pq = sum_k a_pk b_kq over k < count, rounded up to a quad, for the thread's p and q. A line of `a` is one p, and of
// `b` one q, where they are BY_LINE; otherwise it is one k.
template <bool A_BY_LINE, bool B_BY_LINE, typename T>
__device__ __forceinline__ void multiply(const Own& own, const Tile<T>& a, const Tile<T>& b, int count,
                                         T (&c)[QUAD][QUAD]) {
    for (int p = 0; p < QUAD; ++p)
        for (int q = 0; q < QUAD; ++q) c[p][q] = 0;
#pragma unroll 2
    for (int k = 0; k < count; k += QUAD) {
        const int unit = own.unit / QUAD, row = own.row / QUAD;
        const Pack<T, QUAD>* const of_a = A_BY_LINE ? a.quad(unit, k / QUAD) : a.quad(k / QUAD, unit);
        const Pack<T, QUAD>* const of_b = B_BY_LINE ? b.quad(row, k / QUAD) : b.quad(k / QUAD, row);
        Pack<T, QUAD> x[QUAD], y[QUAD];
#pragma unroll
        for (int i = 0; i < QUAD; ++i) {
            x[i] = of_a[i * QUADS];
            y[i] = of_b[i * QUADS];
        }
#pragma unroll
        for (int i = 0; i < QUAD; ++i)
#pragma unroll
            for (int p = 0; p < QUAD; ++p)
#pragma unroll
                for (int q = 0; q < QUAD; ++q)
                    c[p][q] = fused_multiply_add(A_BY_LINE ? x[p].values[i] : x[i].values[p],
                                                 B_BY_LINE ? y[q].values[i] : y[i].values[q], c[p][q]);
    }
}

// Sums over the block's rows, for the thread's units.
template <typename T>
__device__ __forceinline__ void sum_rows(const T (&values)[QUAD][QUAD], T (&sums)[QUAD]) {
    for (int p = 0; p < QUAD; ++p)
        sums[p] = warp_reduce<Sum>(values[p][0] + values[p][1] + (values[p][2] + values[p][3]), 2);
}

// Mean and squared deviations of the block's rows, for the thread's units, as find_block_statistics has them.
template <typename T>
__device__ __forceinline__ void find_moments(const Own& own, const T (&s)[QUAD][QUAD], int rows, T (&mean)[QUAD],
                                             T (&squares)[QUAD]) {
    T numbers[QUAD][QUAD], products[QUAD][QUAD], residual[QUAD];
    for (int p = 0; p < QUAD; ++p)
        for (int q = 0; q < QUAD; ++q) numbers[p][q] = own.row + q < rows ? s[p][q] : T(0);
    sum_rows(numbers, mean);
    for (int p = 0; p < QUAD; ++p) {
        mean[p] /= T(rows);
        for (int q = 0; q < QUAD; ++q) {
            numbers[p][q] = own.row + q < rows ? s[p][q] - mean[p] : T(0);
            products[p][q] = numbers[p][q] * numbers[p][q];
        }
    }
    sum_rows(numbers, residual);
    sum_rows(products, squares);
    for (int p = 0; p < QUAD; ++p) {
        const T shift = residual[p] / T(rows), about_mean = fused_multiply_add(-shift, residual[p], squares[p]);
        mean[p] += shift;
        squares[p] = about_mean < T(0) ? T(0) : about_mean;
    }
}

__device__ __forceinline__ float logarithm(float value) { return logf(value); }

// dJ/dlogits in place of the logits, a thread for each row, of which it returns the loss.
template <typename T>
__device__ __forceinline__ T softmax_cross_entropy(const Tile<T>& logits, int row, int label, int classes, int all_rows) {
    T maximum = logits.number(0, row), sum = 0;
    for (int unit = 1; unit < classes; ++unit) maximum = Maximum::apply(maximum, logits.number(unit, row));
    const T label_loss = maximum - logits.number(label, row);
    for (int unit = 0; unit < classes; ++unit) {
        const T exponent = exponential(logits.number(unit, row) - maximum);
        logits.number(unit, row) = exponent;
        sum += exponent;
    }
    for (int unit = 0; unit < classes; ++unit)
        logits.number(unit, row) = (logits.number(unit, row) / sum - (unit == label ? T(1) : T(0))) / T(all_rows);
    return label_loss + logarithm(sum);
}

// ------------------------------------------------------------------------------------------------ between the blocks

// What a block leaves of the gradient: its part of the sum over all rows.
template <typename T>
struct Part {
    T* numbers;  // [count + 1], the last for the loss

    // A number for each unit, from the thread that owns it and the first row.
    __device__ __forceinline__ void leave(const Own& own, int offset, int units, const T (&sums)[QUAD]) const {
        for (int p = 0; p < QUAD; ++p)
            if (own.exists(p, 0, units, 1)) numbers[offset + own.unit + p] = sums[p];
        clear_gap(offset + units);
    }
    __device__ __forceinline__ void leave(const Own& own, int offset, int rows, int columns,
                                          const T (&values)[QUAD][QUAD]) const {
        for (int p = 0; p < QUAD; ++p)
            for (int q = 0; q < QUAD; ++q)
                if (own.exists(p, q, rows, columns))
                    numbers[offset + (own.unit + p) * columns + own.row + q] = values[p][q];
        clear_gap(offset + rows * columns);
    }
    __device__ __forceinline__ void clear_gap(int end) const {
        if (threadIdx.x < (ALIGNMENT - end % ALIGNMENT) % ALIGNMENT) numbers[end + threadIdx.x] = 0;
    }
};

// A barrier of the grid. What blocks wrote before it, others may read behind it, past the L1 cache. While the first warp
// waits, the others do `work`. `counter` is zero before the launch and after it: each block counts it up when it comes,
// and again when it goes.
template <typename Work>
__device__ __forceinline__ void meet(unsigned int* counter, Work work) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        atomicInc(counter, 2 * gridDim.y - 1);
        while (*reinterpret_cast<volatile unsigned int*>(counter) < gridDim.y) __nanosleep(20);
        __threadfence();
        atomicInc(counter, 2 * gridDim.y - 1);
    } else if (threadIdx.x >= WARP_LANES) {
        work();
    }
    __syncthreads();
}

// totals[0][unit] and totals[1][unit] = the sums over the blocks of first[block * stride + unit] and of second[...]; or
// with MOMENTS, of means and squared deviations, those of deviations from the mean of block 0 and of their squares.
// Four parts of the blocks are added side by side, then the parts. Begins behind a barrier and ends with one.
template <bool MOMENTS, typename T>
__device__ __forceinline__ void merge(const T* first, const T* second, long long stride, int rows,
                                      T* scratch /* [2, THREADS] */, T* totals /* [2, SIDE] */) {
    const int unit = threadIdx.x % SIDE;
    const T pivot = MOMENTS ? __ldcg(first + unit) : T(0);
    T sums[2] = {};
#pragma unroll 8
    for (int block = threadIdx.x / SIDE; block < gridDim.y; block += PARTS) {
        const T one = __ldcg(first + block * stride + unit) - pivot, other = __ldcg(second + block * stride + unit);
        const T count = MOMENTS ? T(rows_of(block, rows)) : T(1);
        sums[0] += count * one;
        sums[1] += MOMENTS ? other + count * one * one : other;
    }
    scratch[threadIdx.x] = sums[0];
    scratch[THREADS + threadIdx.x] = sums[1];
    __syncthreads();
    if (threadIdx.x < 2 * SIDE) {
        const T* const parts = scratch + threadIdx.x / SIDE * THREADS + unit;
        T total = 0;
        for (int part = 0; part < PARTS; ++part) total += parts[part * SIDE];
        totals[threadIdx.x] = total;
    }
    __syncthreads();
}

#endif
