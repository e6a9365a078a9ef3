// The forward kernel: a block of queries walks over the keys with an online softmax.
#pragma once

#include "launch.cuh"
#include "scores.cuh"

namespace flash_attention_fp32 {

// kExtras: whether bias, mask and dropout are looked at; without them registers are left for the products.
template <int kHeadDim, bool kExtras>
__global__ void __launch_bounds__(128, Tile<kHeadDim, 1, kWay>::kBlocks) forward_kernel(const AttentionParams params) {
    using T = Tile<kHeadDim, 1, kWay>;
    extern __shared__ float4 shared[];
    float *own = reinterpret_cast<float *>(shared);
    float *weights = own + T::kResidentFloats;
    Ring<T> ring(weights + T::kWeightFloats);

    const int row_blocks = (params.seqlen_q + T::kRows - 1) / T::kRows;
    // Under causality the last rows have most to do: they begin first.
    const int first_row = (row_blocks - 1 - blockIdx.x % row_blocks) * T::kRows;
    const int which = blockIdx.x / row_blocks;
    const Sequence sequence(params, which / params.heads, which % params.heads);
    if (first_row >= sequence.seqlen_q) return;
    const int head_k = sequence.head / (params.heads / params.heads_k);
    const Rows keys = sequence.keys(params, params.k, head_k), values = sequence.keys(params, params.v, head_k);
    const Place<T> place;

    int end = sequence.seqlen_k;
    if (params.causal) end = min(end, first_row + T::kRows + sequence.shift());
    const int blocks = end > 0 ? (end + T::kCols - 1) / T::kCols : 0;

    float out[T::kThreadRows][T::kOut], peak[T::kThreadRows], total[T::kThreadRows];
    clear(out);
#pragma unroll
    for (int row = 0; row < T::kThreadRows; ++row) peak[row] = -CUDART_INF_F, total[row] = 0.f;

    if (blocks > 0) {
        load_resident<T, kHeadDim>(own, sequence.queries(params, params.q), first_row);
        if (T::kStages == 2) load_dims<T, kHeadDim>(ring.base, keys, 0, 0);
    }
    for (int block = 0; block < blocks; ++block) {
        const int first_key = block * T::kCols;
        const auto copy = [&](float *to, int part) {
            if (part < T::kDimsParts) {
                load_dims<T, kHeadDim>(to, keys, first_key, part * kChunkDims);
            } else if (part < T::kDimsParts + T::kRowsParts) {
                load_rows<T, kHeadDim>(to, values, first_key + (part - T::kDimsParts) * T::kChunkRows);
            } else if (block + 1 < blocks) {
                load_dims<T, kHeadDim>(to, keys, first_key + T::kCols, 0);
            }
        };
        float scores[T::kThreadRows][T::kThreadCols], alpha[T::kThreadRows];
        clear(scores);
#pragma unroll 1
        for (int part = 0; part < T::kDimsParts; ++part) {
            const float *chunk = ring.turn(copy, part);
            multiply_chunk<T, kHeadDim>(scores, own + part * kChunkDims, chunk, place);
        }
        finish_scores<T, true, kExtras>(scores, params, sequence, place, first_row, first_key);
#pragma unroll
        for (int row = 0; row < T::kThreadRows; ++row) {
            float highest = peak[row];
#pragma unroll
            for (int col = 0; col < T::kThreadCols; ++col) highest = fmaxf(highest, scores[row][col]);
            highest = max_of_row<T>(highest);
            const float base = highest == -CUDART_INF_F ? 0.f : highest;  // no key seen yet
            alpha[row] = power_of_two(peak[row] - base);
            peak[row] = highest;
            float sum = 0.f;
#pragma unroll
            for (int col = 0; col < T::kThreadCols; ++col) {
                scores[row][col] = power_of_two(scores[row][col] - base);
                sum += scores[row][col];
            }
            total[row] = total[row] * alpha[row] + sum;
        }
        if (kExtras && params.dropout > 0.f) {
            const Dropout dropout(params, sequence);
            visit_dropout<T, true>(dropout, place, first_row, first_key,
                                   [&](int row, int col, float factor) { scores[row][col] *= factor; });
        }
        // A sum of its own for each block, so that rounding grows with the number of blocks and not of keys.
        float added[T::kThreadRows][T::kOut];
        clear(added);
        if constexpr (T::kTensorCores) {
            multiply_weights<T, kHeadDim>(added, scores, ring.turn(copy, 1), place);
        } else {
            store_weights<T>(weights, scores, place);
            __syncwarp();
#pragma unroll 1
            for (int part = 0; part < T::kRowsParts; ++part) {
                const float *chunk = ring.turn(copy, T::kDimsParts + part);
                multiply_rows<T, kHeadDim>(added, weights + part * T::kChunkRows, chunk, place);
            }
            __syncwarp();
        }
#pragma unroll
        for (int row = 0; row < T::kThreadRows; ++row) {
#pragma unroll
            for (int col = 0; col < T::kOut; ++col) out[row][col] = fmaf(out[row][col], alpha[row], added[row][col]);
        }
    }

    const Rows target = sequence.queries(params, params.out);
    float *lse = params.lse + sequence.statistics(params);
#pragma unroll
    for (int row = 0; row < T::kThreadRows; ++row) {
        const float sum = sum_of_row<T>(total[row]);
        const int query = first_row + place.row(row);
        if (query >= sequence.seqlen_q) continue;
        write_out_columns<T>(row_of(target, query), out[row],
                             sum > 0.f ? 1.f / sum : 0.f, place.lane_col);
        if (place.lane_col == 0) lse[query] = sum > 0.f ? peak[row] * kLn2 + logf(sum) : -CUDART_INF_F;
    }
}

template <int kHeadDim>
cudaError_t forward(const AttentionParams &params, cudaStream_t stream) {
    const auto kernel = has_extras(params) ? forward_kernel<kHeadDim, true> : forward_kernel<kHeadDim, false>;
    return launch<kHeadDim, 1>(kernel, params, params.seqlen_q, params.heads, stream);
}

}  // namespace flash_attention_fp32
