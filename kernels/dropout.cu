// Inverted dropout: out = x / (1 - rate) where kept, 0 elsewhere; dx = dy / (1 - rate) where kept, 0 elsewhere.
// Elsewhere is a product with 0: what is NaN or infinite is not hidden by chance, and becomes NaN.
//
// Element e is kept where its random word (random_words.cuh) is at least `threshold`.
//
// Thread t handles the four elements that share a counter, 4t to 4t + 3, in one access of 16 bytes (float) where the
// arrays are ALIGNED, and goes on a grid further.
//
// Bytes per element of s bytes: forward reads s, writes s + 1 (the mask); backward reads s + 1, writes s. Recomputing
// the mask instead of keeping it would save 1 byte each way and cost 100 integer operations per four elements.
#include "random_words.cuh"

template <typename T, bool ALIGNED>
__global__ void __launch_bounds__(256)
    dropout_forward(const T* x /* [count] */, T* out /* [count], may be x */, unsigned char* mask /* [count] */,
                    long long count, unsigned int threshold, arithmetic<T> scale, unsigned int seed_low,
                    unsigned int seed_high, unsigned int layer, const long long* step /* [1] */) {
    const unsigned long long steps = (unsigned long long)*step;
    const long long stride = (long long)gridDim.x * blockDim.x;
    for (long long quad = (long long)blockIdx.x * blockDim.x + threadIdx.x; 4 * quad < count; quad += stride) {
        const long long first = 4 * quad;
        const Words random = random_words<DROPOUT>(quad, seed_low, seed_high, layer, steps);
        if (ALIGNED && first + 4 <= count) {
            Quad<T> values;
            values.load(x + first);
            unsigned int bytes = 0;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const bool kept = random.word[i] >= threshold;
                values.set(i, values.get(i) * (kept ? scale : arithmetic<T>(0)));
                bytes |= (unsigned int)kept << 8 * i;
            }
            values.store(out + first);
            *reinterpret_cast<unsigned int*>(mask + first) = bytes;
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (first + i >= count) break;
                const bool kept = random.word[i] >= threshold;
                out[first + i] = to_storage<T>(to_arithmetic(x[first + i]) * (kept ? scale : arithmetic<T>(0)));
                mask[first + i] = kept;
            }
        }
    }
}

template <typename T, bool ALIGNED>
__global__ void __launch_bounds__(256)
    dropout_backward(const T* dy /* [count] */, const unsigned char* mask /* [count] */, T* dx /* [count], may be dy */,
                     long long count, arithmetic<T> scale) {
    const long long stride = (long long)gridDim.x * blockDim.x;
    for (long long quad = (long long)blockIdx.x * blockDim.x + threadIdx.x; 4 * quad < count; quad += stride) {
        const long long first = 4 * quad;
        if (ALIGNED && first + 4 <= count) {
            Quad<T> values;
            values.load(dy + first);
            const unsigned int bytes = *reinterpret_cast<const unsigned int*>(mask + first);
#pragma unroll
            for (int i = 0; i < 4; ++i)
                values.set(i, values.get(i) * (bytes >> 8 * i & 1u ? scale : arithmetic<T>(0)));
            values.store(dx + first);
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (first + i >= count) break;
                const arithmetic<T> factor = mask[first + i] ? scale : arithmetic<T>(0);
                dx[first + i] = to_storage<T>(to_arithmetic(dy[first + i]) * factor);
            }
        }
    }
}
