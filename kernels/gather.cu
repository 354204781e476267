// A batch from the data set: out_i = source[index[first + i]], of features, targets and weights in one
// launch; first, which a recorded step moves on, is 0 where null.
//
// Rows are bytes here, moved as words of 16, 8, 4 or 2 bytes: for each array the widest that divides the length of a row
// and both addresses. The first blocks of the grid have the features, the next ones the targets, the last the weights.
// Of an array's blocks, thread t moves words t % lanes, t % lanes + lanes, ... of rows t / lanes,
// t / lanes + blocks * (256 / lanes), ...; neighbouring threads touch neighbouring words, and each has four loads in
// flight.
//
// Bytes: 1 element read and 1 written per element, and 4 bytes of index per row and array: the minimum, but for the
// index, which the second and third array mostly find in the L2 cache.
#include "common.cuh"

// How one array is moved; an array that does not exist has no blocks.
struct Rows {
    const void* source /* [source_rows, words] */;
    void* out /* [rows, words] */;
    int word_bytes, words, lanes, blocks;
};

template <typename Word>
__device__ __forceinline__ void move_rows(const Rows& array, const int* index, int rows, int block) {
    constexpr int IN_FLIGHT = 4;
    const int step = array.lanes, down = blockDim.x / array.lanes;
    for (long long row = (long long)block * down + threadIdx.x / step; row < rows;
         row += (long long)array.blocks * down) {
        const Word* from = static_cast<const Word*>(array.source) + element_offset(index[row], 0, array.words);
        Word* to = static_cast<Word*>(array.out) + element_offset((int)row, 0, array.words);
        long long word = threadIdx.x % step;
        for (; word + (IN_FLIGHT - 1) * step < array.words; word += IN_FLIGHT * step) {
            Word held[IN_FLIGHT];
#pragma unroll
            for (int i = 0; i < IN_FLIGHT; ++i) held[i] = from[word + i * step];
#pragma unroll
            for (int i = 0; i < IN_FLIGHT; ++i) to[word + i * step] = held[i];
        }
        for (; word < array.words; word += step) to[word] = from[word];
    }
}

__global__ void __launch_bounds__(256)
    gather_batch(const int* index /* [first + rows] */, const long long* first /* [1] or null */, int rows,
                 const void* features, void* batch_features,
                 int feature_bytes, int feature_words, int feature_lanes, int feature_blocks, const void* targets,
                 void* batch_targets, int target_bytes, int target_words, int target_lanes, int target_blocks,
                 const void* weights, void* batch_weights, int weight_bytes, int weight_words, int weight_lanes,
                 int weight_blocks) {
    Rows array = {features, batch_features, feature_bytes, feature_words, feature_lanes, feature_blocks};
    if (first != nullptr) index += *first;
    int block = blockIdx.x;
    if (block >= feature_blocks) {
        block -= feature_blocks;
        array = {targets, batch_targets, target_bytes, target_words, target_lanes, target_blocks};
        if (block >= target_blocks) {
            block -= target_blocks;
            array = {weights, batch_weights, weight_bytes, weight_words, weight_lanes, weight_blocks};
        }
    }
    switch (array.word_bytes) {
        case 16: move_rows<uint4>(array, index, rows, block); break;
        case 8: move_rows<uint2>(array, index, rows, block); break;
        case 4: move_rows<unsigned int>(array, index, rows, block); break;
        default: move_rows<unsigned short>(array, index, rows, block);
    }
}
