// Copies in half precision: out_ij = factor source_ij, rounded to nearest, ties to even, and 0 in the columns from
// `columns` to `stride` that pad a row to a multiple of 16 bytes.
//
// blockIdx.y is the matrix: the one of the arguments, or row blockIdx.y of `table`, with which one launch copies all
// weights. Thread t of a matrix writes N neighbours of a row, one access of 16 bytes where every row is aligned, and
// goes on a grid further. It reads 16 bytes at a time where the rows of `source` are aligned too.
//
// Bytes per element: 4 read, 2 written: the minimum.
#include "common.cuh"

constexpr int TABLE_COLUMNS = 5;

template <typename T, int N>
__global__ void __launch_bounds__(256)
    round_rows(const float* source /* [rows, columns], or the vector of all */, T* out /* [rows, stride], or of all */,
               const float* factor /* [1] or null */,
               const long long* table /* [gridDim.y, 5]: source, rows, columns, out, stride; or null */, int rows,
               int columns, int stride) {
    if (table != nullptr) {
        const long long* entry = table + blockIdx.y * TABLE_COLUMNS;
        source += entry[0];
        rows = (int)entry[1];
        columns = (int)entry[2];
        out += entry[3];
        stride = (int)entry[4];
    }
    const float scale = factor == nullptr ? 1.0f : *factor;
    constexpr int READ = 4;
    const bool is_aligned = (unsigned long long)source % (READ * sizeof(float)) == 0;
    const bool is_wide = N % READ == 0 && columns % READ == 0 && is_aligned;
    const int packs = stride / N;
    const long long count = (long long)rows * packs, step = (long long)gridDim.x * blockDim.x;
    for (long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x; index < count; index += step) {
        const int row = (int)(index / packs), column = (int)(index % packs) * N;
        const float* from = source + element_offset(row, column, columns);
        float values[N] = {};
        if (is_wide) {
#pragma unroll
            for (int first = 0; first < N; first += READ) {
                if (column + first >= columns) break;
                const Pack<float, READ> read = load_pack<READ>(from + first);
#pragma unroll
                for (int i = 0; i < READ && i < N; ++i) values[first + i] = read.values[i];
            }
        } else {
#pragma unroll
            for (int i = 0; i < N; ++i)
                if (column + i < columns) values[i] = from[i];
        }
        Pack<T, N> pack;
#pragma unroll
        for (int i = 0; i < N; ++i) pack.set(i, scale * values[i]);
        store_pack(out + element_offset(row, column, stride), pack);
    }
}
