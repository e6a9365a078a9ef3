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

#include "launch.cuh"
#include "scores.cuh"

namespace flash_attention_fp32 {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr bool kSmallGpu = true;
#else
constexpr bool kSmallGpu = false;
#endif

// Thread blocks begin in no certain order, but one that waits for its turn must have those before it running: so the
// number of a block is drawn when it begins.
__device__ __forceinline__ int draw_number(int *counter, float *scratch) {
    int *shared_number = reinterpret_cast<int *>(scratch);
    if (threadIdx.x == 0) *shared_number = atomicAdd(counter, 1);
    __syncthreads();
    const int number = *shared_number;
    __syncthreads();
    return number;
}

__device__ __forceinline__ void wait_for_turn(const int *turns, int turn) {
    if (threadIdx.x == 0) {
        int now;
        do {
            asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(now) : "l"(turns) : "memory");
        } while (now != turn);
    }
    __syncthreads();
}

__device__ __forceinline__ void end_turn(int *turns, int turn) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"(turns), "r"(turn + 1) : "memory");
}

// Adds to a row in memory what multiply_transposed computed: columns are swapped in pairs.
template <typename T>
__device__ __forceinline__ void add_out_columns(float *row, const float (&from)[T::kOut], float factor, int lane_col) {
#pragma unroll
    for (int group = 0; group < T::kOut / 4; ++group) {
        float4 *place = reinterpret_cast<float4 *>(row + (group * T::kLaneCols + lane_col) * 4);
        const float4 old = __ldcg(place);
        __stcg(place, make_float4(fmaf(from[group * 4 + 1], factor, old.x), fmaf(from[group * 4], factor, old.y),
                                  fmaf(from[group * 4 + 3], factor, old.z), fmaf(from[group * 4 + 2], factor, old.w)));
    }
    if (T::kOut % 4 == 2) {
        constexpr int kBegin = T::kOut / 4 * 4;
        float2 *place = reinterpret_cast<float2 *>(row + kBegin * T::kLaneCols + lane_col * 2);
        const float2 old = __ldcg(place);
        __stcg(place, make_float2(fmaf(from[kBegin + 1], factor, old.x), fmaf(from[kBegin], factor, old.y)));
    }
}

constexpr int blocks_per_multiprocessor(int head_dim) { return head_dim <= 64 ? 3 : 2; }

__device__ __forceinline__ float finite_or_zero(float lse) { return lse == -CUDART_INF_F ? 0.f : lse; }

// kInTurn: whether dQ is made here too.
template <int kHeadDim, bool kExtras, bool kInTurn>
__global__ void __launch_bounds__(128, blocks_per_multiprocessor(kHeadDim)) backward_keys_kernel(const AttentionParams params) {
    using T = Tile<kHeadDim, 2, kSmallGpu>;
    extern __shared__ float4 shared[];
    float *own_keys = reinterpret_cast<float *>(shared);
    float *own_values = own_keys + T::kResidentFloats;
    float *weights = own_values + T::kResidentFloats;
    Ring<T> ring(weights + T::kWeightFloats);

    const int row_blocks = (params.seqlen_k + T::kRows - 1) / T::kRows;
    // The first keys are seen by most queries. Where blocks take turns, those that run at once are of different heads.
    const int all_heads = params.batch * params.heads_k;
    const int number = kInTurn ? draw_number(params.turns, weights) : blockIdx.x;
    const int turn = kInTurn ? number / all_heads : number % row_blocks;
    const int which = kInTurn ? number % all_heads : number / row_blocks;
    const int first_row = turn * T::kRows;
    const int head_k = which % params.heads_k, group = params.heads / params.heads_k;
    Sequence sequence(params, which / params.heads_k, head_k * group);
    if (first_row >= sequence.seqlen_k) return;
    const Place<T> place;

    const int blocks = (sequence.seqlen_q + T::kCols - 1) / T::kCols;
    int first_block = 0;
    if (params.causal) first_block = min(blocks, max(0, first_row - sequence.shift()) / T::kCols);

    float dk[kThreadRows][T::kOut], dv[kThreadRows][T::kOut];
    clear(dk), clear(dv);
    constexpr int kSecond = T::kDimsParts, kThird = 2 * T::kDimsParts, kFourth = kThird + T::kRowsParts;
    constexpr int kEnd = kFourth + T::kRowsParts;

    const int steps = (blocks - first_block) * group;
    if (steps > 0) {
        load_resident<T, kHeadDim>(own_keys, sequence.keys(params, params.k, head_k), first_row);
        load_resident<T, kHeadDim>(own_values, sequence.keys(params, params.v, head_k), first_row);
        if (T::kStages == 2) load_dims<T>(ring.base, sequence.queries(params, params.q), first_block * T::kCols, 0);
    }
    // The heads that share these keys come one after another, so their sum has one order.
    int block = first_block;
    for (int step = 0; step < steps; ++step) {
        const int first_col = block * T::kCols;
        const Rows queries = sequence.queries(params, params.q), gradients = sequence.queries(params, params.dout);
        const auto copy = [&](float *to, int part) {
            if (part < kSecond) {
                load_dims<T>(to, queries, first_col, part * kChunkDims);
            } else if (part < kThird) {
                load_dims<T>(to, gradients, first_col, (part - kSecond) * kChunkDims);
            } else if (part < kFourth) {
                load_rows<T, kHeadDim>(to, gradients, first_col + (part - kThird) * T::kChunkRows);
            } else if (part < kEnd) {
                load_rows<T, kHeadDim>(to, queries, first_col + (part - kFourth) * T::kChunkRows);
            } else if (step + 1 < steps) {
                Sequence next = sequence;
                next.head += block + 1 == blocks;
                const int next_block = block + 1 == blocks ? first_block : block + 1;
                load_dims<T>(to, next.queries(params, params.q), next_block * T::kCols, 0);
            }
        };
        float slopes[kThreadRows][T::kThreadCols];
        {
            float scores[kThreadRows][T::kThreadCols];
            clear(scores);
#pragma unroll 1
            for (int part = 0; part < T::kDimsParts; ++part) {
                const float *chunk = ring.turn(copy, part);
                multiply_dims<T>(scores, own_keys + part * kChunkDims, chunk, place);
            }
            finish_scores<T, false, kExtras>(scores, params, sequence, place, first_row, first_col);
            clear(slopes);
#pragma unroll 1
            for (int part = 0; part < T::kDimsParts; ++part) {
                const float *chunk = ring.turn(copy, kSecond + part);
                multiply_dims<T>(slopes, own_values + part * kChunkDims, chunk, place);
            }
            const int64_t statistics = sequence.statistics(params);
#pragma unroll
            for (int col = 0; col < T::kThreadCols; ++col) {
                const int query = first_col + place.col(col);
                const bool exists = query < sequence.seqlen_q;
                const float lse = exists ? finite_or_zero(params.lse[statistics + query]) * kLog2E : 0.f;
#pragma unroll
                for (int row = 0; row < kThreadRows; ++row) scores[row][col] = power_of_two(scores[row][col] - lse);
            }
            const auto finish = [&](int row, int col, float delta, float factor) {
                slopes[row][col] = scores[row][col] * (slopes[row][col] * factor - delta);
                scores[row][col] *= factor;
            };
            float delta[T::kThreadCols];
#pragma unroll
            for (int col = 0; col < T::kThreadCols; ++col) {
                const int query = first_col + place.col(col);
                delta[col] = query < sequence.seqlen_q ? params.delta[statistics + query] : 0.f;
            }
            if (kExtras && params.dropout > 0.f) {
                const Dropout dropout(params, sequence);
                visit_dropout<T, false>(dropout, place, first_row, first_col, [&](int row, int col, float factor) {
                    finish(row, col, delta[col], factor);
                });
            } else {
#pragma unroll
                for (int row = 0; row < kThreadRows; ++row) {
#pragma unroll
                    for (int col = 0; col < T::kThreadCols; ++col) finish(row, col, delta[col], 1.f);
                }
            }
            store_weights<T>(weights, scores, place);
        }
        __syncwarp();
#pragma unroll 1
        for (int part = 0; part < T::kRowsParts; ++part) {
            const float *chunk = ring.turn(copy, kThird + part);
            multiply_rows<T, kHeadDim>(dv, weights + part * T::kChunkRows, chunk, place);
        }
        __syncwarp();
        store_weights<T>(weights, slopes, place);
        __syncwarp();
#pragma unroll 1
        for (int part = 0; part < T::kRowsParts; ++part) {
            const float *chunk = ring.turn(copy, kFourth + part);
            multiply_rows<T, kHeadDim>(dk, weights + part * T::kChunkRows, chunk, place);
        }
        if (kInTurn) {
            const Rows target = sequence.queries(params, params.dq);
            const int64_t of_head = static_cast<int64_t>(sequence.batch) * params.heads + sequence.head;
            int *turns = params.turns + 1 + of_head * ((params.seqlen_q + T::kCols - 1) / T::kCols) + block;
#pragma unroll 1
            for (int first = 0; first < T::kCols; first += T::kRows) {
                float dq[kThreadRows][T::kOut];
                clear(dq);
                multiply_transposed<T, kHeadDim>(dq, weights, own_keys, first, place);
                if (first == 0) wait_for_turn(turns, turn);
#pragma unroll
                for (int row = 0; row < kThreadRows; ++row) {
                    const int query = first_col + first + place.row(row);
                    if (query >= sequence.seqlen_q) continue;
                    add_out_columns<T>(row_of(target, query), dq[row], params.scale,
                                       place.lane_col);
                }
            }
            end_turn(turns, turn);
        }
        __syncwarp();
        if (++block == blocks) block = first_block, ++sequence.head;
    }

    const Rows target_k = sequence.keys(params, params.dk, head_k), target_v = sequence.keys(params, params.dv, head_k);
#pragma unroll
    for (int row = 0; row < kThreadRows; ++row) {
        const int key = first_row + place.row(row);
        if (key >= sequence.seqlen_k) continue;
        write_out_columns<T>(row_of(target_k, key), dk[row], params.scale, place.lane_col);
        write_out_columns<T>(row_of(target_v, key), dv[row], 1.f, place.lane_col);
    }
}

template <int kHeadDim, bool kExtras>
__global__ void __launch_bounds__(128, blocks_per_multiprocessor(kHeadDim)) backward_queries_kernel(const AttentionParams params) {
    using T = Tile<kHeadDim, 2, kSmallGpu>;
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

    float dq[kThreadRows][T::kOut];
    clear(dq);
    const int64_t statistics = sequence.statistics(params);
    float lse[kThreadRows], delta[kThreadRows];
#pragma unroll
    for (int row = 0; row < kThreadRows; ++row) {
        const int query = first_row + place.row(row);
        const bool exists = query < sequence.seqlen_q;
        lse[row] = exists ? finite_or_zero(params.lse[statistics + query]) * kLog2E : 0.f;
        delta[row] = exists ? params.delta[statistics + query] : 0.f;
    }
    if (blocks > 0) {
        load_resident<T, kHeadDim>(own_queries, sequence.queries(params, params.q), first_row);
        load_resident<T, kHeadDim>(own_gradients, sequence.queries(params, params.dout), first_row);
        if (T::kStages == 2) load_dims<T>(ring.base, keys, 0, 0);
    }
    for (int block = 0; block < blocks; ++block) {
        const int first_col = block * T::kCols;
        const auto copy = [&](float *to, int part) {
            if (part < kSecond) {
                load_dims<T>(to, keys, first_col, part * kChunkDims);
            } else if (part < kThird) {
                load_dims<T>(to, values, first_col, (part - kSecond) * kChunkDims);
            } else if (part < kEnd) {
                load_rows<T, kHeadDim>(to, keys, first_col + (part - kThird) * T::kChunkRows);
            } else if (block + 1 < blocks) {
                load_dims<T>(to, keys, first_col + T::kCols, 0);
            }
        };
        {
            float scores[kThreadRows][T::kThreadCols], slopes[kThreadRows][T::kThreadCols];
            clear(scores), clear(slopes);
#pragma unroll 1
            for (int part = 0; part < T::kDimsParts; ++part) {
                const float *chunk = ring.turn(copy, part);
                multiply_dims<T>(scores, own_queries + part * kChunkDims, chunk, place);
            }
            finish_scores<T, true, kExtras>(scores, params, sequence, place, first_row, first_col);
#pragma unroll 1
            for (int part = 0; part < T::kDimsParts; ++part) {
                const float *chunk = ring.turn(copy, kSecond + part);
                multiply_dims<T>(slopes, own_gradients + part * kChunkDims, chunk, place);
            }
            if (kExtras && params.dropout > 0.f) {
                const Dropout dropout(params, sequence);
                visit_dropout<T, true>(dropout, place, first_row, first_col,
                                       [&](int row, int col, float factor) { slopes[row][col] *= factor; });
            }
#pragma unroll
            for (int row = 0; row < kThreadRows; ++row) {
#pragma unroll
                for (int col = 0; col < T::kThreadCols; ++col) {
                    slopes[row][col] = power_of_two(scores[row][col] - lse[row]) * (slopes[row][col] - delta[row]);
                }
            }
            store_weights<T>(weights, slopes, place);
        }
        __syncwarp();
#pragma unroll 1
        for (int part = 0; part < T::kRowsParts; ++part) {
            const float *chunk = ring.turn(copy, kThird + part);
            multiply_rows<T, kHeadDim>(dq, weights + part * T::kChunkRows, chunk, place);
        }
        __syncwarp();
    }

    const Rows target = sequence.queries(params, params.dq);
#pragma unroll
    for (int row = 0; row < kThreadRows; ++row) {
        const int query = first_row + place.row(row);
        if (query >= sequence.seqlen_q) continue;
        write_out_columns<T>(row_of(target, query), dq[row], params.scale, place.lane_col);
    }
}

template <int kHeadDim, bool kExtras>
cudaError_t backward_kernels(const AttentionParams &params, cudaStream_t stream) {
    using Small = Tile<kHeadDim, 2, true>;
    using Large = Tile<kHeadDim, 2, false>;
    if (params.turns != nullptr) {
        return launch<Small, Large>(
            backward_keys_kernel<kHeadDim, kExtras, true>, params, params.seqlen_k, params.heads_k, stream);
    }
    const cudaError_t status = launch<Small, Large>(
        backward_keys_kernel<kHeadDim, kExtras, false>, params, params.seqlen_k, params.heads_k, stream);
    if (status != cudaSuccess) return status;
    return launch<Small, Large>(
        backward_queries_kernel<kHeadDim, kExtras>, params, params.seqlen_q, params.heads, stream);
}

template <int kHeadDim>
cudaError_t backward(const AttentionParams &params, cudaStream_t stream) {
    return has_extras(params) ? backward_kernels<kHeadDim, true>(params, stream)
                              : backward_kernels<kHeadDim, false>(params, stream);
}

}  // namespace flash_attention_fp32
