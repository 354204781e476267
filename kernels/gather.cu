// A batch from the data set: out_i = source[index[first + i]]; first, which a recorded step moves on, is 0 where null.
//
// Rows are bytes here, moved as words of 16, 8, 4 or 2 bytes: the widest that divides the length of a row and the
// addresses of both arrays. Thread (x, y) of a block moves words x, x + blockDim.x, ... of rows y, y + blocks of rows,
// ...; neighbours in x touch neighbouring words, and each thread has four loads in flight.
//
// Bytes: 1 element read and 1 written per element, and 4 bytes of index per row: the minimum.
#include "common.cuh"

template <typename Word>
__global__ void __launch_bounds__(256)
    gather_rows(const void* source /* [source_rows, words] */, const int* index /* [first + rows] */,
                const long long* first /* [1] or null */, void* out /* [rows, words] */, int rows, int words) {
    constexpr int IN_FLIGHT = 4;
    const int step = blockDim.x;
    if (first != nullptr) index += *first;
    for (long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y; row < rows;
         row += (long long)gridDim.x * blockDim.y) {
        const Word* from = static_cast<const Word*>(source) + element_offset(index[row], 0, words);
        Word* to = static_cast<Word*>(out) + element_offset((int)row, 0, words);
        long long word = threadIdx.x;
        for (; word + (IN_FLIGHT - 1) * step < words; word += IN_FLIGHT * step) {
            Word held[IN_FLIGHT];
#pragma unroll
            for (int i = 0; i < IN_FLIGHT; ++i) held[i] = from[word + i * step];
#pragma unroll
            for (int i = 0; i < IN_FLIGHT; ++i) to[word + i * step] = held[i];
        }
        for (; word < words; word += step) to[word] = from[word];
    }
}
