// The tile and its products on tensor cores, for GPUs where three of their products are quicker than one of the lanes.
//
// A tensor core multiplies numbers of 11 bits (TF32) and adds in fp32. A float is the sum of two such numbers, big and
// small, to within 2^-23 of itself, so a product is big * big + big * small + small * big. The sum inside a tensor core
// is cut off, not rounded, which drifts toward zero where many follow each other: so each 16 terms begin at zero, small
// products first, and are then added by an ordinary, rounded addition. That is closer to the exact result than a chain
// of fused multiply-adds.
//
// The order of a product's terms is free, and so is that of its columns, as long as both factors agree. Here a thread's
// four terms of 16 are neighbours, its columns of the scores are neighbours in fours and those of the output in eights:
// everything is read from shared memory 16 bytes at a time, and scores are the left factor of the next product as they
// lie in registers. With `group` = lane / 4 and `quad` = lane % 4 a thread has
//
//     rows       group and group + 8 of its warp's 16
//     scores     columns 4 * quad to 4 * quad + 3 of each 16
//     output     columns 8 * quad to 8 * quad + 7 of each 32
#pragma once

#include "fma.cuh"

namespace flash_attention_fp32 {

// Whole blocks of columns are streamed, in one layout for both kinds of product.
template <int kHeadDim, int kResident>
struct Tile<kHeadDim, kResident, Way::kTensorCores> {
    static constexpr bool kTensorCores = true;
    static constexpr int kWarps = 4;
    static constexpr int kThreads = 32 * kWarps;
    static constexpr int kThreadRows = 2;
    static constexpr int kWarpRows = 16;
    static constexpr int kRows = kWarps * kWarpRows;
    // More where shared memory has room, and forward registers.
    static constexpr int kCols = kHeadDim > 64 ? 32 : 64;
    static constexpr int kThreadCols = kCols / 4;
    static constexpr int kOut = kHeadDim / 4;
    static constexpr int kRowBits = 1, kEndOfRowBits = 4;  // lanes that share a row differ in these bits
    static constexpr int kUnroll = kResident == 1 ? 2 : 1;  // backward has fewer registers to spare
    static constexpr int kStages = 2;
    static constexpr int kDimsParts = 1;
    static constexpr int kRowsParts = 1;
    static constexpr int kChunkRows = kCols;
    static constexpr int kResidentFloats = kRows * kHeadDim;
    static constexpr int kWeightFloats = 0;
    // Backward, slopes take the place of a block of gradients.
    static constexpr int kSlot = kCols * (kResident == 2 && kHeadDim < kRows ? kRows : kHeadDim);
    static constexpr int kBlocks = 2;  // that registers are left for, at once
    static constexpr int kStatistics = kResident == 2 ? 2 * kCols : 0;
    static constexpr int kBytes = 4 * (kResident * kResidentFloats + kStages * kSlot + kStatistics);
    static_assert(kBytes <= 101376, "more shared memory than GPUs have that run this code from PTX");
};

// --- products

// How many pairs of columns are worked on at once: with one a sum waits for itself, with four registers run out.
constexpr int kPairs = 2;

// Four neighbouring terms of one row or column.
struct Split {
    uint32_t big[4];
    uint32_t small[4];

    __device__ __forceinline__ Split() {}
    __device__ __forceinline__ Split(float a, float b, float c, float d) {
        const float values[4] = {a, b, c, d};
#pragma unroll
        for (int index = 0; index < 4; ++index) {
            big[index] = (__float_as_uint(values[index]) + 0x1000u) & 0xffffe000u;
            small[index] = __float_as_uint(values[index] - __uint_as_float(big[index]));
        }
    }
    __device__ __forceinline__ explicit Split(const float4 &four) : Split(four.x, four.y, four.z, four.w) {}
};

// sum += 8 terms: `half` says which of the 16.
__device__ __forceinline__ void multiply8(
    float (&sum)[4], const uint32_t (&low)[4], const uint32_t (&high)[4], const uint32_t (&right)[4], int half) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(low[2 * half]), "r"(high[2 * half]), "r"(low[2 * half + 1]), "r"(high[2 * half + 1]),
          "r"(right[2 * half]), "r"(right[2 * half + 1]));
#endif
}

// 16 terms of two rows (`low` and `high`) and of two columns for each of `right`. The columns take turns, so that one sum
// need not wait for the other.
__device__ __forceinline__ void multiply16(
    float (&sums)[kPairs][4], const Split &low, const Split &high, const Split (&right)[kPairs]) {
    clear(sums);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int pair = 0; pair < kPairs; ++pair) multiply8(sums[pair], low.small, high.small, right[pair].big, half);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int pair = 0; pair < kPairs; ++pair) multiply8(sums[pair], low.big, high.big, right[pair].small, half);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int pair = 0; pair < kPairs; ++pair) multiply8(sums[pair], low.big, high.big, right[pair].big, half);
    }
}

// scores += own rows x streamed columns, over all dimensions; both as load_swizzled puts them.
template <typename T, int kHeadDim>
__device__ __forceinline__ void multiply_tiles(
    float (&scores)[2][T::kThreadCols], const float *own, const float *columns, const Place<T> &place) {
    constexpr int kUnroll = T::kUnroll;
    const int group = place.lane_row, quad = place.lane_col, row = place.row(0);
#pragma unroll kUnroll
    for (int step = 0; step < kHeadDim / 16; ++step) {
        const int unit = step * 4 + quad;
        const Split low(read4(own + place_of<kHeadDim>(row, unit)));
        const Split high(read4(own + place_of<kHeadDim>(row + 8, unit)));
#pragma unroll
        for (int col = 0; col < T::kThreadCols; col += 2 * kPairs) {
            Split right[kPairs];
            float sums[kPairs][4];
#pragma unroll
            for (int pair = 0; pair < kPairs; ++pair) {
                const int index = col + 2 * pair;
                const int column = (index >> 2) * 16 + (index & 2) + (group >> 1) * 4 + (group & 1);
                right[pair] = Split(read4(columns + place_of<kHeadDim>(column, unit)));
            }
            multiply16(sums, low, high, right);
#pragma unroll
            for (int pair = 0; pair < kPairs; ++pair) {
                const int index = col + 2 * pair;
                scores[0][index] += sums[pair][0], scores[0][index + 1] += sums[pair][1];
                scores[1][index] += sums[pair][2], scores[1][index + 1] += sums[pair][3];
            }
        }
    }
}

// scores += own rows x streamed columns, over the dimensions of a chunk, either way.
template <typename T, int kHeadDim>
__device__ __forceinline__ void multiply_chunk(
    float (&scores)[T::kThreadRows][T::kThreadCols], const float *own, const float *chunk, const Place<T> &place) {
    if constexpr (T::kTensorCores) multiply_tiles<T, kHeadDim>(scores, own, chunk, place);
    else multiply_dims<T>(scores, own, chunk, place);
}

// What a thread reads of 16 streamed rows for 32 columns of the output, beginning with unit `unit`.
template <int kWidth>
__device__ __forceinline__ void read_right(float4 (&right)[4], const float *rows, int unit, int quad) {
#pragma unroll
    for (int index = 0; index < 4; ++index) right[index] = read4(rows + place_of<kWidth>(quad * 4 + index, unit));
}

// out, two rows by 8 columns from `begin` on, += 16 terms.
template <int kOut>
__device__ __forceinline__ void multiply_right(
    float (&out)[2][kOut], int begin, const Split &low, const Split &high, const float4 (&right)[4]) {
    const float(*rows)[4] = reinterpret_cast<const float(*)[4]>(right);
#pragma unroll
    for (int index = 0; index < 4; index += kPairs) {
        Split of_pairs[kPairs];
        float sums[kPairs][4];
#pragma unroll
        for (int pair = 0; pair < kPairs; ++pair) {
            const int term = index + pair;
            of_pairs[pair] = Split(rows[0][term], rows[1][term], rows[2][term], rows[3][term]);
        }
        multiply16(sums, low, high, of_pairs);
#pragma unroll
        for (int pair = 0; pair < kPairs; ++pair) {
            const int first = begin + index + pair, second = first + 4;
            out[0][first] += sums[pair][0], out[0][second] += sums[pair][1];
            out[1][first] += sums[pair][2], out[1][second] += sums[pair][3];
        }
    }
}

// out += weights x streamed rows.
template <typename T, int kHeadDim>
__device__ __forceinline__ void multiply_weights(
    float (&out)[2][T::kOut], const float (&weights)[2][T::kThreadCols], const float *rows, const Place<T> &place) {
#pragma unroll
    for (int col = 0; col < T::kThreadCols; col += 4) {
        const Split low(weights[0][col], weights[0][col + 1], weights[0][col + 2], weights[0][col + 3]);
        const Split high(weights[1][col], weights[1][col + 1], weights[1][col + 2], weights[1][col + 3]);
#pragma unroll
        for (int begin = 0; begin < T::kOut; begin += 8) {
            float4 right[4];
            read_right<kHeadDim>(right, rows + col * 4 * kHeadDim, begin + place.lane_row, place.lane_col);
            multiply_right(out, begin, low, high, right);
        }
    }
}

// Puts slopes of keys (rows) and queries (columns) where all warps read them, as rows of queries.
template <typename T>
__device__ __forceinline__ void store_transposed(
    float *to, const float (&slopes)[2][T::kThreadCols], const Place<T> &place) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
        const int key = place.row(row);
#pragma unroll
        for (int col = 0; col < T::kThreadCols; ++col) {
            to[place_of<T::kRows>(place.col(col), key >> 2) + (key & 3)] = slopes[row][col];
        }
    }
}

// out = 16 * kBlocks rows of slopes, as store_transposed puts them, x own rows; 32 columns beginning with unit `unit`.
template <typename T, int kHeadDim, int kBlocks>
__device__ __forceinline__ void multiply_slopes(
    float (&out)[kBlocks][2][8], const float *slopes, int first, const float *own, int unit, const Place<T> &place) {
    const int group = place.lane_row, quad = place.lane_col;
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) clear(out[block]);
#pragma unroll 1
    for (int key = 0; key < T::kRows; key += 16) {
        float4 right[4];
        read_right<kHeadDim>(right, own + key * kHeadDim, unit + group, quad);
#pragma unroll
        for (int block = 0; block < kBlocks; ++block) {
            const int row = first + block * 16 + group;
            const Split low(read4(slopes + place_of<T::kRows>(row, key / 4 + quad)));
            const Split high(read4(slopes + place_of<T::kRows>(row + 8, key / 4 + quad)));
            multiply_right(out[block], 0, low, high, right);
        }
    }
}

}  // namespace flash_attention_fp32
