// The geometry of a thread block's tile, and how its parts come into shared memory and out of registers. The matrix products
// are in fma.cuh and tensor.cuh.
//
// All kernels have one shape. A thread block owns some rows (queries, or keys where dK and dV are made) and walks over
// blocks of the other sequence, its columns. Each warp owns whole rows, so that a row's softmax never leaves its warp:
//
// In FMA:
//
//     lanes        kLaneRows x kLaneCols        2 x 16, or 4 x 8 forward up to head dimension 64
//     a thread     8 rows, two groups of 4      times columns of the scores, in groups of 4, or of the output
//
// Products are outer products in registers. What is streamed comes in chunks: of all columns and 32 dimensions for
// scores, of some columns and all dimensions for outputs; two slots take turns, so that the next chunk is on its way
// while one is worked on. Lanes 2i and 2i + 1 read the same columns: a 16-byte read of shared memory then takes 2
// cycles for the whole warp in place of 4.
#pragma once

#include <stdint.h>

namespace flash_attention_fp32 {

constexpr int kChunkDims = 32;

// How products are computed, by what a GPU has:
//     kSmall         in FMA; a thread block may have 64 KiB and copies are not asynchronous: below compute capability 8.0
//     kLarge         in FMA; 99 KiB: 8.6 to 8.9, where three products of TF32 are slower than one of FMA
//     kTensorCores   three products of TF32 for each; 99 KiB: 8.0, and from 9.0 on
enum class Way { kSmall, kLarge, kTensorCores };

__host__ __device__ constexpr Way way_of(int architecture) {
    return architecture < 800                            ? Way::kSmall
           : architecture == 800 || architecture >= 900 ? Way::kTensorCores
                                                         : Way::kLarge;
}

#ifdef __CUDA_ARCH__
constexpr Way kWay = way_of(__CUDA_ARCH__);
#else
constexpr Way kWay = Way::kLarge;  // no kernel runs on the host
#endif

// kResident: how many tensors of the block's rows stay in shared memory, 1 forward, 2 backward.
template <int kHeadDim, int kResident, Way kHow>
struct Tile {
    static constexpr bool kTensorCores = false;
    static constexpr bool kSmall = kHow == Way::kSmall;
    static constexpr int kThreadRows = 8;
    static constexpr int kWarps = kSmall && kResident == 2 ? 2 : 4;
    static constexpr int kThreads = 32 * kWarps;
    static constexpr int kLaneCols = kResident == 2 || kHeadDim > 64 ? 16 : 8;
    static constexpr int kLaneRows = 32 / kLaneCols;
    static constexpr int kWarpRows = kThreadRows * kLaneRows;
    static constexpr int kRows = kWarps * kWarpRows;
    // Columns of a block: 8 a thread where shared memory has room for the weights, else 4.
    static constexpr int kThreadCols = !kSmall && kResident == 1 ? 8 : 4;
    static constexpr int kCols = kThreadCols * kLaneCols;
    static constexpr int kOut = kHeadDim / kLaneCols;
    static constexpr int kRowBits = 2, kEndOfRowBits = 2 * kLaneCols;  // lanes that share a row differ in these bits
    static constexpr int kChunkRows = !kSmall && (kResident == 1 || kHeadDim <= 64) ? 32 : 16;
    static constexpr int kStages = kSmall ? 1 : 2;
    // 4 more than needed: rows that are read at once lie in different banks.
    static constexpr int kResidentStride = kHeadDim + 4;
    static constexpr int kWeightStride = kCols + 4;
    static constexpr int kResidentFloats = kRows * kResidentStride;
    static constexpr int kWeightFloats = kRows * kWeightStride;
    static constexpr int kDimsChunk = kCols * kChunkDims;
    static constexpr int kRowsChunk = kChunkRows * kHeadDim;
    static constexpr int kSlot = kDimsChunk > kRowsChunk ? kDimsChunk : kRowsChunk;
    static constexpr int kDimsParts = kHeadDim / kChunkDims;
    static constexpr int kRowsParts = kCols / kChunkRows;
    static constexpr int kBlocks = kResident == 2 && kHeadDim <= 64 ? 3 : 2;  // that registers are left for, at once
    static constexpr int kBytes = 4 * (kResident * kResidentFloats + kWeightFloats + kStages * kSlot);
    static_assert(kBytes <= (kSmall ? 65536 : 101376), "more shared memory than the smallest GPU of this class has");
};

// Where a thread stands: first row and first column of it, within the tile.
template <typename T>
struct Place {
    int warp_row;
    int lane_row;
    int lane_col;

    __device__ __forceinline__ Place() {
        const int lane = threadIdx.x & 31;
        warp_row = (threadIdx.x >> 5) * T::kWarpRows;
        if constexpr (T::kTensorCores) {
            lane_row = lane >> 2;
            lane_col = lane & 3;
        } else if constexpr (T::kLaneCols == 16) {
            lane_row = lane & 1;
            lane_col = ((lane >> 1) & 7) | ((lane >> 4) << 3);
        } else {
            lane_row = (lane & 1) | ((lane >> 4) << 1);
            lane_col = (lane >> 1) & 7;
        }
    }
    // Columns of scores come in groups of 4 neighbours, rows in two groups, of 4 neighbours or of one.
    __device__ __forceinline__ int row(int index) const {
        if constexpr (T::kTensorCores) return warp_row + lane_row + 8 * index;
        else return warp_row + lane_row * 4 + (index & 3) + (index >> 2) * (T::kLaneRows * 4);
    }
    __device__ __forceinline__ int col(int index) const {
        if constexpr (T::kTensorCores) return lane_col * 4 + (index & 3) + (index >> 2) * 16;
        else return lane_col * 4 + (index & 3) + (index >> 2) * (T::kLaneCols * 4);
    }
};

template <typename T>
__device__ __forceinline__ float max_of_row(float value) {
#pragma unroll
    for (int bit = T::kRowBits; bit < T::kEndOfRowBits; bit *= 2) {
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, bit));
    }
    return value;
}

template <typename T>
__device__ __forceinline__ float sum_of_row(float value) {
#pragma unroll
    for (int bit = T::kRowBits; bit < T::kEndOfRowBits; bit *= 2) {
        value += __shfl_xor_sync(0xffffffffu, value, bit);
    }
    return value;
}

// --- copies

// Rows of one head of one sequence: those from `count` on do not exist and are read as zeros. A stride is below 2^31.
struct Rows {
    const float *data;
    int stride;
    int count;
};

__device__ __forceinline__ float *row_of(const Rows &rows, int row) {
    return const_cast<float *>(rows.data) + static_cast<int64_t>(row) * rows.stride;
}

// Copies 16 bytes; asynchronous from compute capability 8.0 on.
__device__ __forceinline__ void copy_unit(float *to, const float *from) {
#if __CUDA_ARCH__ >= 800
    const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(address), "l"(from));
#else
    *reinterpret_cast<float4 *>(to) = __ldg(reinterpret_cast<const float4 *>(from));
#endif
}

__device__ __forceinline__ void copy_number(float *to, const float *from) {
#if __CUDA_ARCH__ >= 800
    const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;\n" ::"r"(address), "l"(from));
#else
    *to = __ldg(from);
#endif
}

__device__ __forceinline__ void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;\n" ::: "memory");
#endif
}

__device__ __forceinline__ void end_group_of_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}

__device__ __forceinline__ void wait_for_copies_but_last_group() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group 1;\n" ::: "memory");
#endif
}

// Copies kCount rows of kUnits units of 16 bytes, beginning with row `first` and dimension `dim`; `place` says where in
// `to` a unit of a row goes. Every thread keeps to one unit where it can: then an address is one multiplication.
template <int kThreads, int kCount, int kUnits, typename Place>
__device__ __forceinline__ void copy_rows(float *to, const Rows &rows, int first, int dim, Place place) {
    static_assert(kCount * kUnits % kThreads == 0, "every thread copies the same number of units");
    constexpr int kSteps = kCount * kUnits / kThreads;
    if (kThreads % kUnits == 0 && first + kCount <= rows.count) {
        constexpr int kRowsOfStep = kThreads / kUnits;
        const int row = threadIdx.x / kUnits, unit = threadIdx.x % kUnits;
        const float *from = rows.data + static_cast<int64_t>(first + row) * rows.stride + dim + unit * 4;
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
            copy_unit(to + place(row + step * kRowsOfStep, unit),
                      from + static_cast<int64_t>(rows.stride) * (step * kRowsOfStep));
        }
        return;
    }
#pragma unroll 1
    for (int index = threadIdx.x; index < kCount * kUnits; index += kThreads) {
        const int row = index / kUnits, unit = index % kUnits;
        float *where = to + place(row, unit);
        if (first + row < rows.count) {
            copy_unit(where, rows.data + static_cast<int64_t>(first + row) * rows.stride + dim + unit * 4);
        } else {
            *reinterpret_cast<float4 *>(where) = make_float4(0.f, 0.f, 0.f, 0.f);
        }
    }
}

// The layout of tiles for tensor cores: units of 16 bytes trade places within eight, so that rows read at once lie in
// different banks, both rows 1 apart (where columns are terms) and rows 4 apart (where rows are).
__device__ __forceinline__ int swizzle(int row) { return ((row >> 2) & 2) | ((row ^ (row << 2)) & 4); }

template <int kWidth>
__device__ __forceinline__ int place_of(int row, int unit) {
    return row * kWidth + ((unit ^ swizzle(row)) << 2);
}

template <typename T, int kHeadDim, int kCount>
__device__ __forceinline__ void load_swizzled(float *to, const Rows &rows, int first) {
    copy_rows<T::kThreads, kCount, kHeadDim / 4>(
        to, rows, first, 0, [](int row, int unit) { return place_of<kHeadDim>(row, unit); });
}

// The block's own rows, all dimensions. Neighbours swap places, so that a product's two factors come to lie in registers
// of different banks: three operands of one bank cost a cycle more.
template <typename T, int kHeadDim>
__device__ __forceinline__ void load_resident(float *to, const Rows &rows, int first) {
    if constexpr (T::kTensorCores) {
        load_swizzled<T, kHeadDim, T::kRows>(to, rows, first);
    } else {
        constexpr int kUnits = kHeadDim / 4;
#pragma unroll 4
        for (int index = threadIdx.x; index < T::kRows * kUnits; index += T::kThreads) {
            const int row = index / kUnits, unit = index % kUnits;
            float4 four = make_float4(0.f, 0.f, 0.f, 0.f);
            if (first + row < rows.count) {
                four = __ldg(reinterpret_cast<const float4 *>(rows.data + static_cast<int64_t>(first + row) * rows.stride + unit * 4));
            }
            *reinterpret_cast<float4 *>(to + row * T::kResidentStride + unit * 4) = make_float4(four.y, four.x, four.w, four.z);
        }
    }
}

// A chunk for scores: kCols rows of the streamed tensor, 32 dimensions (all for tensor cores). Units of a row are permuted so that lanes, which
// read rows 4 apart, find them in different banks.
template <typename T, int kHeadDim>
__device__ __forceinline__ void load_dims(float *to, const Rows &rows, int first, int dim) {
    if constexpr (T::kTensorCores) {
        load_swizzled<T, kHeadDim, T::kCols>(to, rows, first);
    } else {
        copy_rows<T::kThreads, T::kCols, kChunkDims / 4>(to, rows, first, dim, [](int row, int unit) {
            return row * kChunkDims + ((unit ^ ((row >> 2) & 7)) << 2);
        });
    }
}

// A chunk for outputs: kChunkRows rows of the streamed tensor, all dimensions.
template <typename T, int kHeadDim>
__device__ __forceinline__ void load_rows(float *to, const Rows &rows, int first) {
    if constexpr (T::kTensorCores) {
        load_swizzled<T, kHeadDim, T::kCols>(to, rows, first);
    } else {
        copy_rows<T::kThreads, T::kChunkRows, kHeadDim / 4>(
            to, rows, first, 0, [](int row, int unit) { return row * kHeadDim + unit * 4; });
    }
}

// Two slots that take turns (one where copies are not asynchronous). `next` and `current` copy a chunk into a slot.
template <typename T>
struct Ring {
    float *base;
    int slot;

    __device__ __forceinline__ explicit Ring(float *memory) : base(memory), slot(0) {}

    // Waits for the chunk that was asked for last, and asks for the next one.
    template <typename Copy>
    __device__ __forceinline__ const float *turn(Copy copy, int part) {
        if (T::kStages == 1) {
            __syncthreads();
            copy(base, part);
            __syncthreads();
            return base;
        }
        wait_for_copies();
        __syncthreads();
        const float *ready = base + slot * T::kSlot;
        slot ^= 1;
        copy(base + slot * T::kSlot, part + 1);
        return ready;
    }
};

// --- registers

__device__ __forceinline__ float4 read4(const float *from) { return *reinterpret_cast<const float4 *>(from); }

template <int kRows, int kCols>
__device__ __forceinline__ void clear(float (&values)[kRows][kCols]) {
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
#pragma unroll
        for (int col = 0; col < kCols; ++col) values[row][col] = 0.f;
    }
}

// Where a group of 4 of a thread's columns of the output begins; for tensor cores two groups are neighbours, of each 32.
template <typename T>
__device__ __forceinline__ int out_column(int group, int lane_col) {
    if constexpr (T::kTensorCores) return (group >> 1) * 32 + lane_col * 8 + (group & 1) * 4;
    else return (group * T::kLaneCols + lane_col) * 4;
}

template <typename T>
__device__ __forceinline__ void write_out_columns(float *row, const float (&from)[T::kOut], float factor, int lane_col) {
#pragma unroll
    for (int group = 0; group < T::kOut / 4; ++group) {
        *reinterpret_cast<float4 *>(row + out_column<T>(group, lane_col)) =
            make_float4(from[group * 4] * factor, from[group * 4 + 1] * factor, from[group * 4 + 2] * factor,
                        from[group * 4 + 3] * factor);
    }
    if constexpr (T::kOut % 4 == 2) {
        constexpr int kBegin = T::kOut / 4 * 4;
        *reinterpret_cast<float2 *>(row + kBegin * T::kLaneCols + lane_col * 2) =
            make_float2(from[kBegin] * factor, from[kBegin + 1] * factor);
    }
}

}  // namespace flash_attention_fp32
