// Inverted dropout: out = x / (1 - rate) where kept, 0 elsewhere; dx = dy / (1 - rate) where kept, 0 elsewhere.
//
// Element e is kept where its random word is at least `threshold`. The word is number e mod 4 of Philox4x32-10 with
// counter (e div 4, layer, step mod 2^32, step div 2^32) and key (seed mod 2^32, seed div 2^32): a function of these
// numbers alone, the same bits as gpunet/random.py and whatever the launch configuration.
//
// Thread t handles the four elements that share a counter, 4t to 4t + 3, in one access of 16 bytes (float) where the
// arrays are ALIGNED, and goes on a grid further.
//
// Bytes per element of s bytes: forward reads s, writes s + 1 (the mask); backward reads s + 1, writes s. Recomputing
// the mask instead of keeping it would save 1 byte each way and cost 100 integer operations per four elements.
//
// Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3".
#include "common.cuh"

struct Words {
    unsigned int word[4];
};

__device__ __forceinline__ Words philox4x32(Words counter, unsigned int key_0, unsigned int key_1) {
    constexpr int ROUNDS = 10;
    constexpr unsigned int MULTIPLIER_0 = 0xD2511F53u, MULTIPLIER_1 = 0xCD9E8D57u;
    constexpr unsigned int WEYL_0 = 0x9E3779B9u, WEYL_1 = 0xBB67AE85u;
#pragma unroll
    for (int round = 0; round < ROUNDS; ++round) {
        const unsigned int high_0 = __umulhi(MULTIPLIER_0, counter.word[0]), low_0 = MULTIPLIER_0 * counter.word[0];
        const unsigned int high_1 = __umulhi(MULTIPLIER_1, counter.word[2]), low_1 = MULTIPLIER_1 * counter.word[2];
        counter = {{high_1 ^ counter.word[1] ^ key_0, low_1, high_0 ^ counter.word[3] ^ key_1, low_0}};
        key_0 += WEYL_0;
        key_1 += WEYL_1;
    }
    return counter;
}

// Four elements in as few accesses as 16 bytes allow.
template <typename T>
struct Quad {
    static constexpr int WIDTH = Pack<T, 1>::WIDEST < 4 ? Pack<T, 1>::WIDEST : 4;
    Pack<T, WIDTH> packs[4 / WIDTH];

    __device__ __forceinline__ void load(const T* address) {
#pragma unroll
        for (int i = 0; i < 4 / WIDTH; ++i) packs[i] = load_pack<WIDTH>(address + i * WIDTH);
    }
    __device__ __forceinline__ void store(T* address) const {
#pragma unroll
        for (int i = 0; i < 4 / WIDTH; ++i) store_pack(address + i * WIDTH, packs[i]);
    }
    __device__ __forceinline__ arithmetic<T> get(int i) const { return packs[i / WIDTH].get(i % WIDTH); }
    __device__ __forceinline__ void set(int i, arithmetic<T> value) { packs[i / WIDTH].set(i % WIDTH, value); }
};

template <typename T, bool ALIGNED>
__global__ void __launch_bounds__(256)
    dropout_forward(const T* x /* [count] */, T* out /* [count], may be x */, unsigned char* mask /* [count] */,
                    long long count, unsigned int threshold, arithmetic<T> scale, unsigned int seed_low,
                    unsigned int seed_high, unsigned int layer, const long long* step /* [1] */) {
    const unsigned long long steps = (unsigned long long)*step;
    const long long stride = (long long)gridDim.x * blockDim.x;
    for (long long quad = (long long)blockIdx.x * blockDim.x + threadIdx.x; 4 * quad < count; quad += stride) {
        const long long first = 4 * quad;
        const Words random = philox4x32(
            {{(unsigned int)quad, layer, (unsigned int)steps, (unsigned int)(steps >> 32)}}, seed_low, seed_high);
        if (ALIGNED && first + 4 <= count) {
            Quad<T> values;
            values.load(x + first);
            unsigned int bytes = 0;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const bool kept = random.word[i] >= threshold;
                values.set(i, kept ? values.get(i) * scale : arithmetic<T>(0));
                bytes |= (unsigned int)kept << 8 * i;
            }
            values.store(out + first);
            *reinterpret_cast<unsigned int*>(mask + first) = bytes;
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (first + i >= count) break;
                const bool kept = random.word[i] >= threshold;
                out[first + i] = to_storage<T>(kept ? to_arithmetic(x[first + i]) * scale : arithmetic<T>(0));
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
                values.set(i, bytes >> 8 * i & 1u ? values.get(i) * scale : arithmetic<T>(0));
            values.store(dx + first);
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (first + i >= count) break;
                const arithmetic<T> gradient = to_arithmetic(dy[first + i]) * scale;
                dx[first + i] = to_storage<T>(mask[first + i] ? gradient : arithmetic<T>(0));
            }
        }
    }
}
