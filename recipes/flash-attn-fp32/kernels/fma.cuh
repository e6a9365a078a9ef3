// The matrix products in plain FMA: outer products in registers.
#pragma once

#include "tile.cuh"

namespace flash_attention_fp32 {

// scores += own rows x streamed columns, over the 32 dimensions of a chunk. `own` is the resident tile at the chunk's
// first dimension.
template <typename T>
__device__ __forceinline__ void multiply_dims(
    float (&scores)[T::kThreadRows][T::kThreadCols], const float *own, const float *chunk, const Place<T> &place) {
    own += place.row(0) * T::kResidentStride;
    chunk += place.col(0) * kChunkDims;
    const int swizzle = place.lane_col & 7;
#pragma unroll 2
    for (int unit = 0; unit < kChunkDims / 4; ++unit) {
        float4 right[T::kThreadCols];
        const float *from = chunk + ((unit ^ swizzle) << 2);
#pragma unroll
        for (int col = 0; col < T::kThreadCols; ++col) {
            right[col] = read4(from + ((col & 3) + (col >> 2) * (T::kLaneCols * 4)) * kChunkDims);
        }
#pragma unroll
        for (int row = 0; row < T::kThreadRows; ++row) {
            const int distance = (row & 3) + (row >> 2) * (T::kLaneRows * 4);
            const float4 left = read4(own + distance * T::kResidentStride + unit * 4);
#pragma unroll
            for (int col = 0; col < T::kThreadCols; ++col) scores[row][col] = fmaf(left.y, right[col].x, scores[row][col]);
#pragma unroll
            for (int col = 0; col < T::kThreadCols; ++col) scores[row][col] = fmaf(left.x, right[col].y, scores[row][col]);
#pragma unroll
            for (int col = 0; col < T::kThreadCols; ++col) scores[row][col] = fmaf(left.w, right[col].z, scores[row][col]);
#pragma unroll
            for (int col = 0; col < T::kThreadCols; ++col) scores[row][col] = fmaf(left.z, right[col].w, scores[row][col]);
        }
    }
}

// A thread's columns of the output: groups of 4 neighbours, kLaneCols groups apart; for head dimension 96 a group of 2.
template <typename T>
__device__ __forceinline__ void read_out_columns(float (&to)[T::kOut], const float *row, int lane_col) {
#pragma unroll
    for (int group = 0; group < T::kOut / 4; ++group) {
        const float4 four = read4(row + (group * T::kLaneCols + lane_col) * 4);
        to[group * 4] = four.x, to[group * 4 + 1] = four.y, to[group * 4 + 2] = four.z, to[group * 4 + 3] = four.w;
    }
    if (T::kOut % 4 == 2) {
        constexpr int kBegin = T::kOut / 4 * 4;
        const float2 two = *reinterpret_cast<const float2 *>(row + kBegin * T::kLaneCols + lane_col * 2);
        to[kBegin] = two.x, to[kBegin + 1] = two.y;
    }
}

// out += weights x streamed rows, over the rows of a chunk. `weights` is the tile of weights at the chunk's first row.
template <typename T, int kHeadDim>
__device__ __forceinline__ void multiply_rows(
    float (&out)[T::kThreadRows][T::kOut], const float *weights, const float *chunk, const Place<T> &place) {
    weights += place.row(0) * T::kWeightStride;
#pragma unroll 2
    for (int step = 0; step < T::kChunkRows; step += 4) {
        float right[4][T::kOut];
#pragma unroll
        for (int index = 0; index < 4; ++index) {
            read_out_columns<T>(right[index], chunk + (step + index) * kHeadDim, place.lane_col);
        }
#pragma unroll
        for (int row = 0; row < T::kThreadRows; ++row) {
            const int distance = (row & 3) + (row >> 2) * (T::kLaneRows * 4);
            const float4 left = read4(weights + distance * T::kWeightStride + step);
#pragma unroll
            for (int col = 0; col < T::kOut; ++col) out[row][col] = fmaf(left.x, right[0][col], out[row][col]);
#pragma unroll
            for (int col = 0; col < T::kOut; ++col) out[row][col] = fmaf(left.y, right[1][col], out[row][col]);
#pragma unroll
            for (int col = 0; col < T::kOut; ++col) out[row][col] = fmaf(left.z, right[2][col], out[row][col]);
#pragma unroll
            for (int col = 0; col < T::kOut; ++col) out[row][col] = fmaf(left.w, right[3][col], out[row][col]);
        }
    }
}

// out += weights transposed x own rows, over all rows of the block: `weights` and `own` are at their first row, and out's
// rows are columns of the weights, beginning with column `first`. Neighbouring columns of out are swapped, as in `own`.
template <typename T, int kHeadDim>
__device__ __forceinline__ void multiply_transposed(
    float (&out)[T::kThreadRows][T::kOut], const float *weights, const float *own, int first, const Place<T> &place) {
    weights += first + place.row(0);
#pragma unroll 4
    for (int step = 0; step < T::kRows; ++step) {
        float right[T::kOut];
        read_out_columns<T>(right, own + step * T::kResidentStride, place.lane_col);
        const float4 low = read4(weights + step * T::kWeightStride);
        const float4 high = read4(weights + step * T::kWeightStride + T::kLaneRows * 4);
        const float left[T::kThreadRows] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
        for (int row = 0; row < T::kThreadRows; ++row) {
#pragma unroll
            for (int col = 0; col < T::kOut; ++col) out[row][col] = fmaf(left[row], right[col], out[row][col]);
        }
    }
}

// Puts a thread's weights where its warp reads them as rows.
template <typename T>
__device__ __forceinline__ void store_weights(
    float *weights, const float (&values)[T::kThreadRows][T::kThreadCols], const Place<T> &place) {
#pragma unroll
    for (int row = 0; row < T::kThreadRows; ++row) {
#pragma unroll
        for (int col = 0; col < T::kThreadCols; col += 4) {
            *reinterpret_cast<float4 *>(weights + place.row(row) * T::kWeightStride + place.col(col)) =
                make_float4(values[row][col], values[row][col + 1], values[row][col + 2], values[row][col + 3]);
        }
    }
}

}  // namespace flash_attention_fp32
