// Sums over a batch whose rows are in shards.
//
// weigh_shard:  doutputs and dbias times w / rows, sums = (loss_0 w, w), with w = loss_1, the weight of the shard.
// sum_shards:   out = the sum of `count` vectors, each of which is the sum over a node of a tree over the shards. A
//               stack of sums, put down in order: as long as the two on top are of one level, they become one of the
//               next; at the end it is added up from its top. Vectors of a negative level are left out. So the order of
//               the additions is the tree's, whoever has added up the nodes. The sum on top is in registers, the others
//               in local memory, which stays in the L1 cache. Nodes of one tree in order never need MOST_SUMS; if others
//               do, the top is added to what is below.
// divide_sums:  gradients times rows / sums_1, or 0 where that is 0; where it is 1 they stay as they are, unread.
//               loss = (sums_0 / sums_1, sums_1).
//
// Thread t handles N neighbouring elements, one access of 16 bytes in each vector where all are aligned.
//
// Bytes per element of s bytes: weigh_shard and divide_sums read s and write s, sum_shards reads s for each vector and
// writes s. The minimum.
#include "flat_vector.cuh"

template <typename T>
struct Scale {
    T* values;
    arithmetic<T> factor;

    template <int M>
    __device__ __forceinline__ void operator()(long long first, Width<M>) const {
        Pack<T, M> pack = load_pack<M>(values + first);
#pragma unroll
        for (int i = 0; i < M; ++i) pack.set(i, pack.get(i) * factor);
        store_pack(values + first, pack);
    }
};

template <typename T, int N>
__global__ void __launch_bounds__(256)
    weigh_shard(T* doutputs /* [count] */, long long count, arithmetic<T>* dbias /* [columns] or null */, int columns,
                const arithmetic<T>* loss /* [2] */, arithmetic<T>* sums /* [2] */, int rows) {
    typedef arithmetic<T> A;
    const A weight = loss[1], share = weight / A(rows);
    for_each_element<N>(count, Scale<T>{doutputs, share});
    if (dbias != nullptr) for_each_element<1>(columns, Scale<A>{dbias, share});
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        sums[0] = loss[0] * weight;
        sums[1] = weight;
    }
}

constexpr int MOST_SUMS = 32;

template <typename T>
struct TreeSum {
    const T* parts;
    const int* levels;
    T* out;
    int count;
    long long size;

    template <int M>
    static __device__ __forceinline__ void add(Pack<T, M>& sum, const Pack<T, M>& other) {
#pragma unroll
        for (int i = 0; i < M; ++i) sum.values[i] += other.values[i];
    }

    template <int M>
    __device__ __forceinline__ void operator()(long long first, Width<M>) const {
        int part = 0;
        while (levels[part] < 0) ++part;
        Pack<T, M> below[MOST_SUMS], top = load_pack<M>(parts + part * size + first);
        int levels_below[MOST_SUMS], level = levels[part], depth = 0;
        while (++part < count) {
            if (levels[part] < 0) continue;
            const Pack<T, M> next = load_pack<M>(parts + part * size + first);
            if (levels[part] == level) {
                add(top, next);
                ++level;
                while (depth > 0 && levels_below[depth - 1] == level) {
                    add(top, below[--depth]);
                    ++level;
                }
            } else {
                if (depth == MOST_SUMS) add(top, below[--depth]);
                below[depth] = top;
                levels_below[depth++] = level;
                top = next;
                level = levels[part];
            }
        }
        while (depth > 0) add(top, below[--depth]);
        store_pack(out + first, top);
    }
};

template <typename T, int N>
__global__ void __launch_bounds__(256)
    sum_shards(const T* parts /* [count, size] */, const int* levels /* [count] */, T* out /* [size], may be parts */,
               int count, long long size) {
    for_each_element<N>(size, TreeSum<T>{parts, levels, out, count, size});
}

template <typename T, int N>
__global__ void __launch_bounds__(256)
    divide_sums(T* gradients /* [count] */, long long count, const T* sums /* [2] */, T* loss /* [2] */, int rows) {
    const T weight = sums[1], factor = weight == T(0) ? T(0) : T(rows) / weight;
    if (factor != T(1)) for_each_element<N>(count, Scale<T>{gradients, factor});
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        loss[0] = weight == T(0) ? T(0) : sums[0] / weight;
        loss[1] = weight;
    }
}
