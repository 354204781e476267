// Inverted dropout: out = x / (1 - rate) where kept, 0 elsewhere; dx = dy / (1 - rate) where kept, 0 elsewhere.
// Elsewhere is a product with 0: what is NaN or infinite is not hidden by chance, and becomes NaN.
//
// Element e is kept where its random word (random_words.cuh) is at least `threshold`. The mask may be that of some rows
// of a batch: its element e is element 4 first_quad + e of the whole.
//
// Thread t handles the four elements that share a counter, 4t to 4t + 3, in one access of 16 bytes (float) where the
// arrays are ALIGNED, and goes on a grid further. Elements are counted by the `columns` of the mask. A row of the other
// matrices has `stride` elements in memory; where that is more, the padding is neither read nor written, and ALIGNED
// means that both are multiples of four, so that no quad lies in two rows.
//
// Bytes per element of s bytes: forward reads s, writes s + 1 (the mask); backward reads s + 1, writes s. Recomputing
// the mask instead of keeping it would save 1 byte each way and cost 100 integer operations per four elements.
#include "random_words.cuh"

// Where an element lies in memory.
__device__ __forceinline__ long long place_of(long long element, int columns, int stride) {
    return stride == columns ? element : element / columns * stride + element % columns;
}

template <typename T, bool ALIGNED>
__global__ void __launch_bounds__(256)
    dropout_forward(const T* x /* [count / columns, stride] */, T* out /* the same, may be x */,
                    unsigned char* mask /* [count] */, long long count, int columns, int stride,
                    unsigned int threshold, arithmetic<T> scale, unsigned int seed_low,
                    unsigned int seed_high, unsigned int layer, const long long* step /* [1] */,
                    long long first_quad) {
    const unsigned long long steps = (unsigned long long)*step;
    const long long quads_of_grid = (long long)gridDim.x * blockDim.x;
    for (long long quad = (long long)blockIdx.x * blockDim.x + threadIdx.x; 4 * quad < count; quad += quads_of_grid) {
        const long long first = 4 * quad;
        const Words random = random_words<DROPOUT>(first_quad + quad, seed_low, seed_high, layer, steps);
        if (ALIGNED && first + 4 <= count) {
            const long long place = place_of(first, columns, stride);
            Quad<T> values;
            values.load(x + place);
            unsigned int bytes = 0;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const bool kept = random.word[i] >= threshold;
                values.set(i, values.get(i) * (kept ? scale : arithmetic<T>(0)));
                bytes |= (unsigned int)kept << 8 * i;
            }
            values.store(out + place);
            *reinterpret_cast<unsigned int*>(mask + first) = bytes;
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (first + i >= count) break;
                const long long place = place_of(first + i, columns, stride);
                const bool kept = random.word[i] >= threshold;
                out[place] = to_storage<T>(to_arithmetic(x[place]) * (kept ? scale : arithmetic<T>(0)));
                mask[first + i] = kept;
            }
        }
    }
}

template <typename T, bool ALIGNED>
__global__ void __launch_bounds__(256)
    dropout_backward(const T* dy /* [count / columns, stride] */, const unsigned char* mask /* [count] */,
                     T* dx /* as dy, may be dy */, long long count, int columns, int stride, arithmetic<T> scale) {
    const long long quads_of_grid = (long long)gridDim.x * blockDim.x;
    for (long long quad = (long long)blockIdx.x * blockDim.x + threadIdx.x; 4 * quad < count; quad += quads_of_grid) {
        const long long first = 4 * quad;
        if (ALIGNED && first + 4 <= count) {
            const long long place = place_of(first, columns, stride);
            Quad<T> values;
            values.load(dy + place);
            const unsigned int bytes = *reinterpret_cast<const unsigned int*>(mask + first);
#pragma unroll
            for (int i = 0; i < 4; ++i)
                values.set(i, values.get(i) * (bytes >> 8 * i & 1u ? scale : arithmetic<T>(0)));
            values.store(dx + place);
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (first + i >= count) break;
                const long long place = place_of(first + i, columns, stride);
                const arithmetic<T> factor = mask[first + i] ? scale : arithmetic<T>(0);
                dx[place] = to_storage<T>(to_arithmetic(dy[place]) * factor);
            }
        }
    }
}
