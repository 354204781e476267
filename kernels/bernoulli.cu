// Samples of binary units: out = 1 with probability p, 0 otherwise.
//
// Element e is 1 where its random word w (random_words.cuh) is below 2^32 p, exactly: p = 0 never gives 1, p = 1 always
// does, NaN gives 0, and the bits are those of gpunet/backends/reference/bernoulli.py.
//
// Thread t handles the four elements that share a counter, 4t to 4t + 3, in one access of 16 bytes (float) where the
// arrays are ALIGNED, and goes on a grid further.
//
// Bytes per element of s bytes: reads s, writes s: the minimum.
#include "random_words.cuh"

// w < 2^32 p. Multiplying by 2^32 does not round, and for the integer w a bound may be rounded up. Below 1, a float is
// at most 1 - 2^-24, so that its bound fits a word; a double may be nearer to 1, but holds every word.
__device__ __forceinline__ bool is_below(unsigned int word, float probability) {
    if (probability >= 1.0f) return true;
    return probability > 0.0f && word < (unsigned int)ceilf(probability * 4294967296.0f);
}
__device__ __forceinline__ bool is_below(unsigned int word, double probability) {
    return (double)word < probability * 4294967296.0;
}

template <typename T, bool ALIGNED>
__global__ void __launch_bounds__(256)
    sample_bernoulli(const T* probabilities /* [count] */, T* out /* [count], may be probabilities */, long long count,
                     unsigned int seed_low, unsigned int seed_high, unsigned int layer,
                     const long long* step /* [1] */) {
    typedef arithmetic<T> A;
    const unsigned long long steps = (unsigned long long)*step;
    const long long stride = (long long)gridDim.x * blockDim.x;
    for (long long quad = (long long)blockIdx.x * blockDim.x + threadIdx.x; 4 * quad < count; quad += stride) {
        const long long first = 4 * quad;
        const Words random = random_words<SAMPLING>(quad, seed_low, seed_high, layer, steps);
        if (ALIGNED && first + 4 <= count) {
            Quad<T> values;
            values.load(probabilities + first);
#pragma unroll
            for (int i = 0; i < 4; ++i) values.set(i, is_below(random.word[i], values.get(i)) ? A(1) : A(0));
            values.store(out + first);
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (first + i >= count) break;
                const bool one = is_below(random.word[i], to_arithmetic(probabilities[first + i]));
                out[first + i] = to_storage<T>(one ? A(1) : A(0));
            }
        }
    }
}
