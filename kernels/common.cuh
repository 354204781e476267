// What the kernels share: storage and arithmetic types, vector access, reductions, clusters, the layout of a matrix.
//
// Storage and arithmetic. Matrices are float, double, __half or __nv_bfloat16; arithmetic<T> is what a kernel
// computes in: double for double, float for the others.
//
// Matrices are (rows, columns), rows contiguous. Offsets are 64 bits: 65536 x 65536 elements are in range.
//
// Reductions add in an order that depends on the launch configuration alone, never on timing: no kernel adds floats
// atomically, and two runs of a program give the same bits.
//
// The names SHARED, DYNAMIC_SHARED, cluster_size, cluster_rank, cluster_sync and map_shared_rank have a second
// definition in tests/emulation/cuda_emulation.hpp, which runs these kernels on a CPU.
#ifndef GPUNET_COMMON_CUH
#define GPUNET_COMMON_CUH

constexpr int WARP_LANES = 32;
constexpr unsigned int ALL_LANES = 0xffffffffu;

#if !defined(GPUNET_EMULATION)
#include <cuda_bf16.h>
#include <cuda_fp16.h>

// SHARED(float, totals, [4][32]) is __shared__ float totals[4][32].
#define SHARED(type, name, ...) __shared__ type name __VA_ARGS__

// One array for all kernels of a module: `extern __shared__` of two types under one name would not compile.
extern __shared__ __align__(128) unsigned char gpunet_dynamic_shared[];
#define DYNAMIC_SHARED(type, name) type* const name = reinterpret_cast<type*>(gpunet_dynamic_shared)

// ------------------------------------------------------------------------------------------ thread block clusters
// cooperative_groups would do, and takes a second to compile.
#if __CUDA_ARCH__ >= 900
#define CLUSTER_DIMENSIONS(blocks) __cluster_dims__(blocks, 1, 1)

__device__ __forceinline__ unsigned int cluster_size() {
    unsigned int blocks;
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(blocks));
    return blocks;
}
__device__ __forceinline__ unsigned int cluster_rank() {
    unsigned int rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
// Every thread of the cluster waits for every other; what they wrote to shared memory is then visible to all.
__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// The same variable in the shared memory of another block of the cluster, which must have started and not ended:
// cluster_sync() before the first access and after the last.
template <typename T>
__device__ __forceinline__ T* map_shared_rank(T* pointer, unsigned int rank) {
    unsigned long long address;
    asm volatile("mapa.u64 %0, %1, %2;" : "=l"(address) : "l"(pointer), "r"(rank));
    return reinterpret_cast<T*>(address);
}
#else
// Without clusters every block is one, alone.
#define CLUSTER_DIMENSIONS(blocks)
__device__ __forceinline__ unsigned int cluster_size() { return 1; }
__device__ __forceinline__ unsigned int cluster_rank() { return 0; }
__device__ __forceinline__ void cluster_sync() { __syncthreads(); }
template <typename T>
__device__ __forceinline__ T* map_shared_rank(T* pointer, unsigned int) { return pointer; }
#endif
#else
#define CLUSTER_DIMENSIONS(blocks)
#endif

// ------------------------------------------------------------------------------------ storage and arithmetic types
template <typename T> struct ArithmeticOf { typedef float type; };
template <> struct ArithmeticOf<double> { typedef double type; };
template <typename T> using arithmetic = typename ArithmeticOf<T>::type;

template <typename T>
__device__ __forceinline__ bool is_finite(T value) {
    return value - value == T(0);
}

__device__ __forceinline__ float to_arithmetic(float value) { return value; }
__device__ __forceinline__ double to_arithmetic(double value) { return value; }
__device__ __forceinline__ float to_arithmetic(__half value) { return __half2float(value); }
__device__ __forceinline__ float to_arithmetic(__nv_bfloat16 value) { return __bfloat162float(value); }

// Rounds to nearest, ties to even.
template <typename T> __device__ __forceinline__ T to_storage(arithmetic<T> value) { return value; }
template <> __device__ __forceinline__ __half to_storage<__half>(float value) { return __float2half_rn(value); }
template <> __device__ __forceinline__ __nv_bfloat16 to_storage<__nv_bfloat16>(float value) {
    return __float2bfloat16_rn(value);
}

// Operations that the compiler must not fuse or split: two kernels that evaluate one expression through these get
// the same bits, whatever surrounds it. (It may turn a * b + c into one rounding in one kernel and two in another.)
__device__ __forceinline__ float subtract_rounded(float a, float b) { return __fsub_rn(a, b); }
__device__ __forceinline__ double subtract_rounded(double a, double b) { return __dadd_rn(a, -b); }
__device__ __forceinline__ float multiply_rounded(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double multiply_rounded(double a, double b) { return __dmul_rn(a, b); }
__device__ __forceinline__ float fused_multiply_add(float a, float b, float c) { return __fmaf_rn(a, b, c); }
__device__ __forceinline__ double fused_multiply_add(double a, double b, double c) { return __fma_rn(a, b, c); }

__device__ __forceinline__ float square_root(float value) { return sqrtf(value); }
__device__ __forceinline__ double square_root(double value) { return sqrt(value); }

// --------------------------------------------------------------------------------------------------- vector access
// N neighbours of a row, moved by one instruction of N * sizeof(T) bytes: 16 wherever every row starts at a multiple
// of 16 bytes, fewer elsewhere, down to one element. The host picks N for a whole launch (vector_width of
// gpunet/backends/cuda/batch_norm.py), so a hot loop has no test of alignment and no ragged end.
template <int BYTES> struct WordOf;
template <> struct WordOf<2> { typedef unsigned short type; };
template <> struct WordOf<4> { typedef unsigned int type; };
template <> struct WordOf<8> { typedef uint2 type; };
template <> struct WordOf<16> { typedef uint4 type; };

template <typename T, int N>
struct __align__(N * sizeof(T)) Pack {
    typedef typename WordOf<N * sizeof(T)>::type Word;
    T values[N];

    // Widest vector: as many elements as 16 bytes hold.
    static constexpr int WIDEST = 16 / sizeof(T);
    static_assert(N <= WIDEST, "a memory instruction moves at most 16 bytes");

    __device__ __forceinline__ arithmetic<T> get(int index) const { return to_arithmetic(values[index]); }
    __device__ __forceinline__ void set(int index, arithmetic<T> value) { values[index] = to_storage<T>(value); }
};

// `address` is a multiple of N * sizeof(T) bytes. As a word: for sm_100 and sm_120 the compiler splits the load of a
// structure of halves that are used one by one.
template <int N, typename T>
__device__ __forceinline__ Pack<T, N> load_pack(const T* address) {
    union { typename Pack<T, N>::Word word; Pack<T, N> pack; } both = {
        *reinterpret_cast<const typename Pack<T, N>::Word*>(address)};
    return both.pack;
}
template <int N, typename T>
__device__ __forceinline__ void store_pack(T* address, const Pack<T, N>& pack) {
    *reinterpret_cast<Pack<T, N>*>(address) = pack;
}
// The streaming forms mark the line as the first to leave the L2 cache: for data that nobody reads again soon.
template <int N, typename T>
__device__ __forceinline__ Pack<T, N> load_pack_streaming(const T* address) {
    union { typename Pack<T, N>::Word word; Pack<T, N> pack; } both = {
        __ldcs(reinterpret_cast<const typename Pack<T, N>::Word*>(address))};
    return both.pack;
}
template <int N, typename T>
__device__ __forceinline__ void store_pack_streaming(T* address, const Pack<T, N>& pack) {
    typedef typename Pack<T, N>::Word Word;
    __stcs(reinterpret_cast<Word*>(address), *reinterpret_cast<const Word*>(&pack));
}

// Global to shared memory without a register in between, from sm_80 on, at least 4 bytes at a time: a thread can have
// dozens in flight. The thread that copied may read after wait_for_copies(), the others after a barrier too.
#if !defined(GPUNET_EMULATION) && __CUDA_ARCH__ >= 800
template <typename T, int N> constexpr bool HAS_ASYNC_COPY = sizeof(Pack<T, N>) >= 4;

template <int N, typename T>
__device__ __forceinline__ void copy_pack_async(Pack<T, N>* shared, const T* global) {
    const unsigned int to = __cvta_generic_to_shared(shared);
    const unsigned long long from = __cvta_generic_to_global(global);
    if constexpr (sizeof(Pack<T, N>) == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(from), "n"((int)sizeof(Pack<T, N>))
                     : "memory");
}
__device__ __forceinline__ void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }
#else
template <typename T, int N> constexpr bool HAS_ASYNC_COPY = false;

template <int N, typename T>
__device__ __forceinline__ void copy_pack_async(Pack<T, N>* shared, const T* global) { *shared = load_pack<N>(global); }
__device__ __forceinline__ void wait_for_copies() {}
#endif

// ----------------------------------------------------------------------------------------------- rows and columns
__device__ __forceinline__ long long element_offset(int row, int column, int columns) {
    return (long long)row * columns + column;
}
// First row of part `part` of `parts` almost equal parts; rows_before(rows, parts, parts) is rows.
__device__ __forceinline__ int rows_before(int rows, int part, int parts) {
    return (int)((long long)rows * part / parts);
}
__device__ __forceinline__ int thread_in_block() {
    return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}
__device__ __forceinline__ int threads_in_block() { return blockDim.x * blockDim.y * blockDim.z; }

// ------------------------------------------------------------------------------------------------------ reductions
struct Sum {
    template <typename A> static __device__ __forceinline__ A apply(A a, A b) { return a + b; }
};
struct Maximum {  // NaN where any value is
    template <typename A> static __device__ __forceinline__ A apply(A a, A b) { return a > b || a != a ? a : b; }
};

// Every lane receives the reduction over the lanes l with l = own lane modulo `stride` (a power of two); all lanes
// of the warp take part. Each step combines the same two values in both of its lanes, and both operations commute, so
// the lanes agree to the bit.
template <typename Operation, typename A>
__device__ __forceinline__ A warp_reduce(A value, int stride = 1) {
#pragma unroll
    for (int offset = WARP_LANES / 2; offset > 0; offset /= 2)
        if (offset >= stride) value = Operation::apply(value, __shfl_xor_sync(ALL_LANES, value, offset));
    return value;
}

// Every thread receives the reduction over the block, of whole warps. Two barriers: `scratch`, one value per warp in
// shared memory, is free again on return, and what was written to shared memory before the call is visible after it.
template <typename Operation, typename A>
__device__ __forceinline__ A block_reduce(A value, A* scratch) {
    const int warps = threads_in_block() / WARP_LANES, thread = thread_in_block();
    value = warp_reduce<Operation>(value);
    if (thread % WARP_LANES == 0) scratch[thread / WARP_LANES] = value;
    __syncthreads();
    value = scratch[0];
    for (int warp = 1; warp < warps; ++warp) value = Operation::apply(value, scratch[warp]);
    __syncthreads();
    return value;
}

// True in the last of `blocks` blocks to call this with one `counter`; to it, everything that the others wrote to
// global memory before they called is visible (read it with __ldcg: the L1 cache may hold older lines). `counter` is
// zero before the first launch and again after each, so a launch can be repeated without clearing it.
__device__ __forceinline__ bool is_last_block(unsigned int* counter, unsigned int blocks) {
    SHARED(unsigned int, arrived_before, [1]);
    __threadfence();
    __syncthreads();
    if (thread_in_block() == 0) arrived_before[0] = atomicInc(counter, blocks - 1);
    __syncthreads();
    __threadfence();
    return arrived_before[0] == blocks - 1;
}

#endif
