// The backward kernels. Scores are computed again from q, k and the saved log-sum-exp; with the gradient of the output,
//
//     weight = exp(score - lse),  slope = weight * (dropped(dout . v) - delta),  delta = rowsum(dout * out) - dlse,
//     dv = dropped(weight)^T dout,  dk = scale * slope^T q,  dq = scale * slope k.
//
// One kernel owns keys and makes dK and dV. For dQ there are two ways, and both give the same bits every time:
//
//     in turn    the same kernel adds its part of dQ to memory, one block of keys after another: 5 products, not 7
//     apart      another kernel owns queries and computes the scores again: for few heads, where turns would be long
#pragma once

#include "backward_keys.cuh"

namespace flash_attention_fp32 {

template <int kHeadDim, bool kExtras>
__global__ void __launch_bounds__(128, Tile<kHeadDim, 2, kWay>::kBlocks) backward_queries_kernel(
    const AttentionParams params) {
    using T = Tile<kHeadDim, 2, kWay>;
    extern __shared__ float4 shared[];
    float *own_queries = reinterpret_cast<float *>(shared);
    float *own_gradients = own_queries + T::kResidentFloats;
    float *weights = own_gradients + T::kResidentFloats;
    Ring<T> ring(weights + T::kWeightFloats);

    const int row_blocks = (params.seqlen_q + T::kRows - 1) / T::kRows;
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
    constexpr int kSecond = T::kDimsParts, kThird = 2 * T::kDimsParts, kEnd = kThird + T::kRowsParts;

    float dq[T::kThreadRows][T::kOut];
    clear(dq);
    const int64_t statistics = sequence.statistics(params);
    float lse[T::kThreadRows], delta[T::kThreadRows];
#pragma unroll
    for (int row = 0; row < T::kThreadRows; ++row) {
        const int query = first_row + place.row(row);
        const bool exists = query < sequence.seqlen_q;
        lse[row] = exists ? finite_or_zero(params.lse[statistics + query]) * kLog2E : 0.f;
        delta[row] = exists ? params.delta[statistics + query] : 0.f;
    }
    if (blocks > 0) {
        load_resident<T, kHeadDim>(own_queries, sequence.queries(params, params.q), first_row);
        load_resident<T, kHeadDim>(own_gradients, sequence.queries(params, params.dout), first_row);
        if (T::kStages == 2) load_dims<T, kHeadDim>(ring.base, T::kTensorCores ? values : keys, 0, 0);
    }
    for (int block = 0; block < blocks; ++block) {
        const int first_col = block * T::kCols;
        const auto copy = [&](float *to, int part) {
            if (part < kSecond) {
                load_dims<T, kHeadDim>(to, keys, first_col, part * kChunkDims);
            } else if (part < kThird) {
                load_dims<T, kHeadDim>(to, values, first_col, (part - kSecond) * kChunkDims);
            } else if (part < kEnd) {
                load_rows<T, kHeadDim>(to, keys, first_col + (part - kThird) * T::kChunkRows);
            } else if (block + 1 < blocks) {
                load_dims<T, kHeadDim>(to, keys, first_col + T::kCols, 0);
            }
        };
        // Whole blocks, values first, so that keys are there for both their products.
        const auto copy_whole = [&](float *to, int part) {
            if (part == 1) load_dims<T, kHeadDim>(to, keys, first_col, 0);
            else if (block + 1 < blocks) load_dims<T, kHeadDim>(to, values, first_col + T::kCols, 0);
        };
        float scores[T::kThreadRows][T::kThreadCols], slopes[T::kThreadRows][T::kThreadCols];
        clear(scores), clear(slopes);
        const float *block_of_keys = nullptr;
        if constexpr (T::kTensorCores) {
            multiply_tiles<T, kHeadDim>(slopes, own_gradients, ring.turn(copy_whole, 0), place);
            block_of_keys = ring.turn(copy_whole, 1);
            multiply_tiles<T, kHeadDim>(scores, own_queries, block_of_keys, place);
        } else {
#pragma unroll 1
            for (int part = 0; part < T::kDimsParts; ++part) {
                const float *chunk = ring.turn(copy, part);
                multiply_dims<T>(scores, own_queries + part * kChunkDims, chunk, place);
            }
#pragma unroll 1
            for (int part = 0; part < T::kDimsParts; ++part) {
                const float *chunk = ring.turn(copy, kSecond + part);
                multiply_dims<T>(slopes, own_gradients + part * kChunkDims, chunk, place);
            }
        }
        finish_scores<T, true, kExtras>(scores, params, sequence, place, first_row, first_col);
        if (kExtras && params.dropout > 0.f) {
            const Dropout dropout(params, sequence);
            visit_dropout<T, true>(dropout, place, first_row, first_col,
                                   [&](int row, int col, float factor) { slopes[row][col] *= factor; });
        }
#pragma unroll
        for (int row = 0; row < T::kThreadRows; ++row) {
#pragma unroll
            for (int col = 0; col < T::kThreadCols; ++col) {
                slopes[row][col] = power_of_two(scores[row][col] - lse[row]) * (slopes[row][col] - delta[row]);
            }
        }
        if constexpr (T::kTensorCores) {
            multiply_weights<T, kHeadDim>(dq, slopes, block_of_keys, place);
        } else {
            store_weights<T>(weights, slopes, place);
            __syncwarp();
#pragma unroll 1
            for (int part = 0; part < T::kRowsParts; ++part) {
                const float *chunk = ring.turn(copy, kThird + part);
                multiply_rows<T, kHeadDim>(dq, weights + part * T::kChunkRows, chunk, place);
            }
            __syncwarp();
        }
    }

    const Rows target = sequence.queries(params, params.dq);
#pragma unroll
    for (int row = 0; row < T::kThreadRows; ++row) {
        const int query = first_row + place.row(row);
        if (query >= sequence.seqlen_q) continue;
        write_out_columns<T>(row_of(target, query), dq[row], params.scale, place.lane_col);
    }
}

template <int kHeadDim, bool kExtras>
cudaError_t backward_kernels(const AttentionParams &params, cudaStream_t stream) {
    if (params.turns != nullptr) {
        return launch<kHeadDim, 2>(
            backward_keys_kernel<kHeadDim, kExtras, true>, params, params.seqlen_k, params.heads_k, stream);
    }
    const cudaError_t status = launch<kHeadDim, 2>(
        backward_keys_kernel<kHeadDim, kExtras, false>, params, params.seqlen_k, params.heads_k, stream);
    if (status != cudaSuccess) return status;
    return launch<kHeadDim, 2>(
        backward_queries_kernel<kHeadDim, kExtras>, params, params.seqlen_q, params.heads, stream);
}

template <int kHeadDim>
cudaError_t backward(const AttentionParams &params, cudaStream_t stream) {
    return has_extras(params) ? backward_kernels<kHeadDim, true>(params, stream)
                              : backward_kernels<kHeadDim, false>(params, stream);
}

}  // namespace flash_attention_fp32
