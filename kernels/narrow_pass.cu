// Forward and backward pass of a whole narrow network in one launch: linear layers of at most 64 inputs and units, batch
// norm (or a bias) and an activation between them, a bias and softmax cross-entropy behind the last.
//
//   S_1 = X W_1^T, Y_i = f(BN(S_i)) or f(S_i + b_i), S_{i+1} = Y_i W_{i+1}^T, J = mean cross-entropy of S_k + b_k
//   dW_i = dS_i^T Y_{i-1}, dY_{i-1} = dS_i W_i; the rest as in batch_norm.cu, activation.cu, softmax_cross_entropy.cu
//
// A block of 256 threads keeps up to 64 rows of the batch on chip from the first product to the last: X and every S_i,
// as tiles of 64 x 64 numbers in shared memory, [unit][row], 0 where there is no such unit or row. A thread forms 16
// numbers of each product in registers, four units of four rows, and they are its own in every tile: what is element by
// element needs no barrier, and sums over a block's rows take shuffles alone.
//
// Blocks meet once for each batch norm in each direction, and once at the end. Before that, each leaves its part of a
// sum over all rows in global memory; behind it, each adds the parts of all, in the order of the blocks: the same bits
// each time. A block waits for all others, so all must be on the device at once: the launch is cooperative, and its grid
// is (1, blocks), since CuPy cuts one-dimensional ones down to what fits.
//
// Bytes: X and the labels once; by each block, every W_i twice and its part of the gradients written and read once.
#include "narrow_pass.cuh"

template <typename T, typename F, bool BATCH_NORM>
struct NarrowPass {
    // The kernel's arguments.
    const T *x, *parameters;
    const int* labels;
    const NarrowLayer* layers;
    T *state, *partial, *moments;
    unsigned int* counters;
    int rows, depth;
    T momentum, epsilon, parameter;
    // Shared memory.
    Tile<T> inputs, weights, outputs, gradient;  // X, W_i, Y_i, dS_i
    Tile<T> first_sums;                          // S_1, and behind it S_2, ...
    T *statistics, *totals;                      // [depth - 1, 2, SIDE]: mean, inverse_std; [2, SIDE]
    // The block's rows, its part of the gradient, and what the thread has of them.
    int first_row, own_rows;
    long long stride;
    Part<T> part;
    Own own;

    // i is the layer's number, from 1.
    __device__ __forceinline__ const NarrowLayer& layer(int i) const { return layers[i - 1]; }
    __device__ __forceinline__ Tile<T> s(int i) const { return {first_sums.packs + (i - 1) * SIDE * QUADS}; }
    __device__ __forceinline__ T* mean(int i) const { return statistics + (i - 1) * 2 * SIDE; }
    __device__ __forceinline__ T* inverse_std(int i) const { return mean(i) + SIDE; }
    // While blocks meet, Y_i is not needed any more, or not there yet.
    __device__ __forceinline__ T* scratch() const { return reinterpret_cast<T*>(outputs.packs); }
    __device__ __forceinline__ const Tile<T>& outputs_below(int i) const { return i == 1 ? inputs : outputs; }

    template <int FIRST>
    __device__ __forceinline__ void load_weights(int i) const {
        weights.template load<false, FIRST>(parameters + layer(i).weights, layer(i).outputs, layer(i).inputs);
    }

    // The thread's units as batch norm sees them; without it, z = s + b. A quad in which the layer ends has numbers from
    // between two vectors.
    __device__ __forceinline__ Columns<T, QUAD> columns(int i) const {
        Columns<T, QUAD> result = {};
        if (own.unit >= layer(i).outputs) return result;
        const T* const scale = BATCH_NORM ? parameters + layer(i).scale : nullptr;
        result.load_scale_and_shift(scale, parameters + layer(i).shift, own.unit);
        for (int p = 0; p < QUAD; ++p)
            result.set_statistics(p, BATCH_NORM ? mean(i)[own.unit + p] : T(0),
                                  BATCH_NORM ? inverse_std(i)[own.unit + p] : T(1));
        return result;
    }

    // Y_i from S_i, the thread's own.
    __device__ __forceinline__ void write_outputs(int i) const {
        const Columns<T, QUAD> of = columns(i);
        T values[QUAD][QUAD];
        s(i).read(own, values);
        for (int p = 0; p < QUAD; ++p)
            for (int q = 0; q < QUAD; ++q)
                values[p][q] = own.exists(p, q, layer(i).outputs, own_rows)
                                   ? of.template output<F>(values[p][q], p, parameter) : T(0);
        outputs.write(own, values);
    }

    // Mean and variance of S_i, of which the thread has `values`; meanwhile W_{i+1} comes.
    __device__ __forceinline__ void find_statistics(int i, const T (&values)[QUAD][QUAD]) const {
        T* const means = moments + (i - 1) * 2 * gridDim.y * SIDE;
        T* const squares = means + gridDim.y * SIDE;
        T own_mean[QUAD], own_squares[QUAD];
        find_moments(own, values, own_rows, own_mean, own_squares);
        for (int p = 0; p < QUAD; ++p)
            if (own.row == 0) {
                means[blockIdx.y * SIDE + own.unit + p] = own_mean[p];
                squares[blockIdx.y * SIDE + own.unit + p] = own_squares[p];
            }
        meet(counters + i, [&] { load_weights<WARP_LANES>(i + 1); });
        merge<true>(means, squares, SIDE, rows, scratch(), totals);
        if (threadIdx.x < SIDE) {
            const int unit = threadIdx.x;
            const T shift = totals[unit] / T(rows), all_mean = __ldcg(means + unit) + shift;
            const T about_mean = fused_multiply_add(-shift, totals[unit], totals[SIDE + unit]);
            const T all_squares = about_mean < T(0) ? T(0) : about_mean;
            const Statistics<T> to = {mean(i), inverse_std(i), state + layer(i).running_mean,
                                      state + layer(i).running_variance, momentum, epsilon};
            mean(i)[unit] = all_mean;
            inverse_std(i)[unit] = to.inverse_std_of(all_squares, rows);
            if (blockIdx.y == 0 && unit < layer(i).outputs) to.write(unit, all_mean, all_squares, rows);
        }
        __syncthreads();
    }

    __device__ __forceinline__ void forward() const {
        T values[QUAD][QUAD];
        inputs.template load<true, 0>(x + element_offset(first_row, 0, layer(1).inputs), own_rows, layer(1).inputs);
        load_weights<0>(1);
        __syncthreads();
        for (int i = 1; i < depth; ++i) {
            multiply<true, false>(own, weights, outputs_below(i), layer(i).inputs, values);
            s(i).write(own, values);
            if (BATCH_NORM) {
                find_statistics(i, values);
            } else {
                __syncthreads();
                load_weights<0>(i + 1);
            }
            write_outputs(i);
            __syncthreads();
        }
    }

    // J's part of this block, dS_k, and the gradient of the last bias.
    __device__ __forceinline__ void loss(int count) const {
        const NarrowLayer& last = layer(depth);
        T values[QUAD][QUAD], sums[QUAD];
        multiply<true, false>(own, weights, outputs_below(depth), last.inputs, values);
        for (int p = 0; p < QUAD; ++p)
            for (int q = 0; q < QUAD; ++q)
                values[p][q] = own.exists(p, q, last.outputs, own_rows)
                                   ? values[p][q] + parameters[last.shift + own.unit + p] : T(0);
        gradient.write(own, values);
        __syncthreads();
        const int row = threadIdx.x;
        T row_loss = 0;
        if (row < own_rows)
            row_loss = softmax_cross_entropy(gradient, row, labels[first_row + row], last.outputs, rows);
        const T block_loss = block_reduce<Sum>(row_loss, totals);
        if (threadIdx.x == 0) part.numbers[count] = block_loss;
        gradient.read(own, values);
        sum_rows(values, sums);
        part.leave(own, last.shift, last.outputs, sums);
    }

    // dW_i, and below it dS_{i-1}, with what it takes for the next: W_{i-1} and Y_{i-2}.
    __device__ __forceinline__ void backward(int i) const {
        T values[QUAD][QUAD];
        multiply<true, true>(own, gradient, outputs_below(i), SIDE, values);
        part.leave(own, layer(i).weights, layer(i).outputs, layer(i).inputs, values);
        if (i == 1) return;
        multiply<false, false>(own, weights, gradient, layer(i).outputs, values);

        const NarrowLayer& below = layer(i - 1);
        const Columns<T, QUAD> of = columns(i - 1);
        T centred[QUAD][QUAD], products[QUAD][QUAD], sums[QUAD];
        s(i - 1).read(own, centred);
        for (int p = 0; p < QUAD; ++p)
            for (int q = 0; q < QUAD; ++q) {
                const bool exists = own.exists(p, q, below.outputs, own_rows);
                const T input = centred[p][q];
                values[p][q] = exists ? of.template gradient<F>(values[p][q], input, p, parameter) : T(0);
                centred[p][q] = exists ? of.centred(input, p) : T(0);
                products[p][q] = values[p][q] * centred[p][q];
            }
        sum_rows(values, sums);
        part.leave(own, below.shift, below.outputs, sums);
        if (BATCH_NORM) {
            const T* const own_inverse_std = inverse_std(i - 1) + own.unit;
            sum_rows(products, sums);
            for (int p = 0; p < QUAD; ++p) sums[p] *= own_inverse_std[p];
            part.leave(own, below.scale, below.outputs, sums);
            meet(counters + depth + i - 2, [&] { load_weights<WARP_LANES>(i - 1); });
            merge<false>(partial + below.shift, partial + below.scale, stride, rows, scratch(), totals);
            for (int p = 0; p < QUAD; ++p) {
                const T offset = totals[own.unit + p] / T(rows);
                const T slope = totals[SIDE + own.unit + p] * own_inverse_std[p] / T(rows);
                for (int q = 0; q < QUAD; ++q)
                    values[p][q] = own.exists(p, q, below.outputs, own_rows)
                                       ? of.scale[p] * (values[p][q] - offset - centred[p][q] * slope) : T(0);
            }
        } else {
            __syncthreads();
            load_weights<0>(i - 1);
        }
        gradient.write(own, values);
        if (i > 2) write_outputs(i - 2);
        __syncthreads();
    }
};

template <typename T, typename F, bool BATCH_NORM>
__global__ void __launch_bounds__(THREADS, 1) narrow_pass(
    const T* x,              // (rows, inputs of the first layer)
    const int* labels,       // (rows,)
    const int* layers,       // (depth, 7), see NarrowLayer
    const T* parameters,     // (count,)
    T* state,                // running averages, updated
    T* gradients,            // (count,), written
    T* loss,                 // (2,), written: J, and rows
    T* partial,              // (blocks, count + 1), scratch
    T* moments,              // (depth - 1, 2, blocks, SIDE), scratch
    unsigned int* counters,  // (2 depth - 1,), zeros
    int rows, int depth, int count, T momentum, T epsilon, T parameter) {
    DYNAMIC_SHARED(unsigned char, memory);
    const auto tile = [memory](int index) {
        return Tile<T>{reinterpret_cast<Pack<T, QUAD>*>(memory) + index * SIDE * QUADS};
    };
    T* const statistics = reinterpret_cast<T*>(tile(depth + 3).packs);
    const long long stride = count + 1;
    const NarrowPass<T, F, BATCH_NORM> pass = {
        x, parameters, labels, reinterpret_cast<const NarrowLayer*>(layers), state, partial, moments, counters,
        rows, depth, momentum, epsilon, parameter,
        tile(0), tile(1), tile(2), tile(3), tile(4), statistics, statistics + (depth - 1) * 2 * SIDE,
        (int)blockIdx.y * SIDE, rows_of(blockIdx.y, rows), stride, {partial + blockIdx.y * stride}};

    pass.forward();
    pass.loss(count);
    for (int i = depth; i > 0; --i) pass.backward(i);

    meet(counters, [] {});
    for (long long i = (long long)blockIdx.y * THREADS + threadIdx.x; i <= count; i += (long long)gridDim.y * THREADS) {
        T total = 0;
#pragma unroll 16
        for (int block = 0; block < gridDim.y; ++block) total += __ldcg(partial + block * stride + i);
        if (i < count) gradients[i] = total;
        else loss[0] = total / T(rows);
    }
    if (blockIdx.y == 0 && threadIdx.x == 0) loss[1] = T(rows);
}
