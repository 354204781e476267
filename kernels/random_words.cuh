// Random bits that depend on (stream, seed, layer, step, element) alone: the same as gpunet/random.py, whatever the
// launch configuration.
//
// Element e takes word e mod 4 of Philox4x32-10 with counter (e div 4, layer, step mod 2^32, step div 2^32 +
// 2^31 stream) and key (seed mod 2^32, seed div 2^32). A step is less than 2^63, so that two streams have no counter
// in common.
//
// Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3".
#ifndef GPUNET_RANDOM_WORDS_CUH
#define GPUNET_RANDOM_WORDS_CUH

#include "common.cuh"

enum Stream { DROPOUT = 0, SAMPLING = 1 };  // of gpunet/random.py

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

// The words of elements 4 quad to 4 quad + 3.
template <Stream STREAM>
__device__ __forceinline__ Words random_words(long long quad, unsigned int seed_low, unsigned int seed_high,
                                              unsigned int layer, unsigned long long step) {
    const unsigned int high = (unsigned int)(step >> 32) | (unsigned int)STREAM << 31;
    return philox4x32({{(unsigned int)quad, layer, (unsigned int)step, high}}, seed_low, seed_high);
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

#endif
