// The backward kernel that owns keys: dK and dV, and dQ in turn. What it computes is said in backward.cuh.
#pragma once

#include "launch.cuh"
#include "scores.cuh"

namespace flash_attention_fp32 {

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

// Each warp waits by itself.
__device__ __forceinline__ void wait_for_turn(const int *turns, int turn) {
    if (threadIdx.x % 32 == 0) {
        int now;
        do {
            asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(now) : "l"(turns) : "memory");
        } while (now != turn);
    }
    __syncwarp();
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

__device__ __forceinline__ float finite_or_zero(float lse) { return lse == -CUDART_INF_F ? 0.f : lse; }

// Which keys a thread block owns, and which blocks of queries see them.
template <typename T, bool kInTurn>
struct OwnKeys {
    int turn;
    int first_row;
    int head_k;
    int group;          // how many heads of queries share them
    Sequence sequence;  // and the first of these heads
    int blocks;
    int first_block;

    // The first keys are seen by most queries. Where blocks take turns, those that run at once are of different heads.
    __device__ __forceinline__ OwnKeys(const AttentionParams &params, int number, int row_blocks, int all_heads)
        : turn(kInTurn ? number / all_heads : number % row_blocks),
          first_row(turn * T::kRows),
          head_k((kInTurn ? number % all_heads : number / row_blocks) % params.heads_k),
          group(params.heads / params.heads_k),
          sequence(params, (kInTurn ? number % all_heads : number / row_blocks) / params.heads_k, head_k * group),
          blocks((sequence.seqlen_q + T::kCols - 1) / T::kCols),
          first_block(params.causal ? min(blocks, max(0, first_row - sequence.shift()) / T::kCols) : 0) {}
};

// The counter of a block of queries.
template <typename T>
__device__ __forceinline__ int *turns_of(const AttentionParams &params, const Sequence &sequence, int block) {
    const int64_t of_head = static_cast<int64_t>(sequence.batch) * params.heads + sequence.head;
    return params.turns + 1 + of_head * ((params.seqlen_q + T::kCols - 1) / T::kCols) + block;
}

// From weights and products dout . v of own keys: what dV is summed by, and the slopes.
template <typename T, bool kExtras>
__device__ __forceinline__ void finish_slopes(
    float (&weights)[T::kThreadRows][T::kThreadCols], float (&slopes)[T::kThreadRows][T::kThreadCols],
    const float (&delta)[T::kThreadCols], const AttentionParams &params, const Sequence &sequence, const Place<T> &place,
    int first_row, int first_col) {
    const auto finish = [&](int row, int col, float factor) {
        slopes[row][col] = weights[row][col] * (slopes[row][col] * factor - delta[col]);
        weights[row][col] *= factor;
    };
    if (kExtras && params.dropout > 0.f) {
        const Dropout dropout(params, sequence);
        visit_dropout<T, false>(dropout, place, first_row, first_col, finish);
    } else {
#pragma unroll
        for (int row = 0; row < T::kThreadRows; ++row) {
#pragma unroll
            for (int col = 0; col < T::kThreadCols; ++col) finish(row, col, 1.f);
        }
    }
}

// In plain FMA. Adds to dk and dv, and with kInTurn to dq in memory.
template <typename T, int kHeadDim, bool kExtras, bool kInTurn>
__device__ __forceinline__ void walk_over_queries(
    float (&dk)[T::kThreadRows][T::kOut], float (&dv)[T::kThreadRows][T::kOut], const AttentionParams &params,
    const OwnKeys<T, kInTurn> &own, float *own_keys, const Place<T> &place) {
    float *own_values = own_keys + T::kResidentFloats;
    float *weights = own_values + T::kResidentFloats;
    Ring<T> ring(weights + T::kWeightFloats);
    constexpr int kSecond = T::kDimsParts, kThird = 2 * T::kDimsParts, kFourth = kThird + T::kRowsParts;
    constexpr int kEnd = kFourth + T::kRowsParts;

    const int steps = (own.blocks - own.first_block) * own.group;
    if (steps > 0) {
        load_resident<T, kHeadDim>(own_keys, own.sequence.keys(params, params.k, own.head_k), own.first_row);
        load_resident<T, kHeadDim>(own_values, own.sequence.keys(params, params.v, own.head_k), own.first_row);
        if (T::kStages == 2) {
            load_dims<T, kHeadDim>(ring.base, own.sequence.queries(params, params.q), own.first_block * T::kCols, 0);
        }
    }
    // The heads that share these keys come one after another, so their sum has one order.
    Sequence sequence = own.sequence;
    int block = own.first_block;
    for (int step = 0; step < steps; ++step) {
        const int first_col = block * T::kCols;
        const Rows queries = sequence.queries(params, params.q), gradients = sequence.queries(params, params.dout);
        const auto copy = [&](float *to, int part) {
            if (part < kSecond) {
                load_dims<T, kHeadDim>(to, queries, first_col, part * kChunkDims);
            } else if (part < kThird) {
                load_dims<T, kHeadDim>(to, gradients, first_col, (part - kSecond) * kChunkDims);
            } else if (part < kFourth) {
                load_rows<T, kHeadDim>(to, gradients, first_col + (part - kThird) * T::kChunkRows);
            } else if (part < kEnd) {
                load_rows<T, kHeadDim>(to, queries, first_col + (part - kFourth) * T::kChunkRows);
            } else if (step + 1 < steps) {
                Sequence next = sequence;
                next.head += block + 1 == own.blocks;
                const int next_block = block + 1 == own.blocks ? own.first_block : block + 1;
                load_dims<T, kHeadDim>(to, next.queries(params, params.q), next_block * T::kCols, 0);
            }
        };
        float slopes[T::kThreadRows][T::kThreadCols];
        {
            float scores[T::kThreadRows][T::kThreadCols];
            clear(scores);
#pragma unroll 1
            for (int part = 0; part < T::kDimsParts; ++part) {
                const float *chunk = ring.turn(copy, part);
                multiply_chunk<T, kHeadDim>(scores, own_keys + part * kChunkDims, chunk, place);
            }
            finish_scores<T, false, kExtras>(scores, params, sequence, place, own.first_row, first_col);
            clear(slopes);
#pragma unroll 1
            for (int part = 0; part < T::kDimsParts; ++part) {
                const float *chunk = ring.turn(copy, kSecond + part);
                multiply_chunk<T, kHeadDim>(slopes, own_values + part * kChunkDims, chunk, place);
            }
            const int64_t statistics = sequence.statistics(params);
#pragma unroll
            for (int col = 0; col < T::kThreadCols; ++col) {
                const int query = first_col + place.col(col);
                const bool exists = query < sequence.seqlen_q;
                const float lse = exists ? finite_or_zero(params.lse[statistics + query]) * kLog2E : 0.f;
#pragma unroll
                for (int row = 0; row < T::kThreadRows; ++row) scores[row][col] = power_of_two(scores[row][col] - lse);
            }
            float delta[T::kThreadCols];
#pragma unroll
            for (int col = 0; col < T::kThreadCols; ++col) {
                const int query = first_col + place.col(col);
                delta[col] = query < sequence.seqlen_q ? params.delta[statistics + query] : 0.f;
            }
            finish_slopes<T, kExtras>(scores, slopes, delta, params, sequence, place, own.first_row, first_col);
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
            int *turns = turns_of<T>(params, sequence, block);
#pragma unroll 1
            for (int first = 0; first < T::kCols; first += T::kRows) {
                float dq[T::kThreadRows][T::kOut];
                clear(dq);
                multiply_transposed<T, kHeadDim>(dq, weights, own_keys, first, place);
                if (first == 0) wait_for_turn(turns, own.turn);
#pragma unroll
                for (int row = 0; row < T::kThreadRows; ++row) {
                    const int query = first_col + first + place.row(row);
                    if (query >= sequence.seqlen_q) continue;
                    add_out_columns<T>(row_of(target, query), dq[row], params.scale,
                                       place.lane_col);
                }
            }
            end_turn(turns, own.turn);
        }
        __syncwarp();
        if (++block == own.blocks) block = own.first_block, ++sequence.head;
    }

}

// dq += scale * slopes x own keys, for a block of queries: a warp has 32 dimensions of some of them at a time.
template <typename T, int kHeadDim>
__device__ __forceinline__ void add_dq(
    const AttentionParams &params, const Sequence &sequence, int first_col, const float *slopes, const float *own_keys,
    const int *turns, int turn, const Place<T> &place) {
    constexpr int kParts = kHeadDim / 32, kBlocks = kParts == 1 ? 1 : 2;
    const Rows target = sequence.queries(params, params.dq);
#pragma unroll 1
    for (int work = threadIdx.x / 32; work < kParts * (T::kCols / 16 / kBlocks); work += T::kWarps) {
        const int part = work % kParts, first = work / kParts * 16 * kBlocks;
        float dq[kBlocks][2][8];
        multiply_slopes<T, kHeadDim, kBlocks>(dq, slopes, first, own_keys, part * 8, place);
        wait_for_turn(turns, turn);
#pragma unroll
        for (int index = 0; index < kBlocks * 2; ++index) {
            const int query = first_col + first + index * 8 + place.lane_row;
            if (query >= sequence.seqlen_q) continue;
            float4 *row = reinterpret_cast<float4 *>(row_of(target, query) + part * 32 + place.lane_col * 8);
            const float (&more)[8] = dq[index / 2][index % 2];
            const float4 low = __ldcg(row), high = __ldcg(row + 1);
            __stcg(row, make_float4(fmaf(more[0], params.scale, low.x), fmaf(more[1], params.scale, low.y),
                                    fmaf(more[2], params.scale, low.z), fmaf(more[3], params.scale, low.w)));
            __stcg(row + 1, make_float4(fmaf(more[4], params.scale, high.x), fmaf(more[5], params.scale, high.y),
                                        fmaf(more[6], params.scale, high.z), fmaf(more[7], params.scale, high.w)));
        }
    }
}

// The same on tensor cores. Weights and slopes stay in registers; slopes go through shared memory for dQ alone, where
// the block of gradients was.
template <typename T, int kHeadDim, bool kExtras, bool kInTurn>
__device__ __forceinline__ void walk_over_queries_by_tensor_cores(
    float (&dk)[2][T::kOut], float (&dv)[2][T::kOut], const AttentionParams &params, const OwnKeys<T, kInTurn> &own,
    float *own_keys, const Place<T> &place) {
    float *own_values = own_keys + T::kResidentFloats;
    float *queries = own_values + T::kResidentFloats, *gradients = queries + T::kSlot;
    float *lse = gradients + T::kSlot, *delta = lse + T::kCols;
    const int steps = (own.blocks - own.first_block) * own.group;
    if (steps <= 0) return;

    // The heads that share these keys come one after another, so their sum has one order.
    const auto load = [&](float *to, float *numbers, const AttentionTensor &tensor, const float *all_numbers, int head,
                          int block) {
        Sequence sequence = own.sequence;
        sequence.head = head;
        load_swizzled<T, kHeadDim, T::kCols>(to, sequence.queries(params, tensor), block * T::kCols);
        const int row = block * T::kCols + threadIdx.x;
        if (threadIdx.x < T::kCols) {
            if (row < sequence.seqlen_q) {
                copy_number(numbers + threadIdx.x, all_numbers + sequence.statistics(params) + row);
            } else {
                numbers[threadIdx.x] = 0.f;
            }
        }
        end_group_of_copies();
    };
    Sequence sequence = own.sequence;
    int block = own.first_block;
    load_resident<T, kHeadDim>(own_keys, sequence.keys(params, params.k, own.head_k), own.first_row);
    load_resident<T, kHeadDim>(own_values, sequence.keys(params, params.v, own.head_k), own.first_row);
    load(queries, lse, params.q, params.lse, sequence.head, block);
    load(gradients, delta, params.dout, params.delta, sequence.head, block);
    for (int step = 0; step < steps; ++step) {
        const int first_col = block * T::kCols;
        const bool last_of_head = block + 1 == own.blocks, more = step + 1 < steps;
        const int next_block = last_of_head ? own.first_block : block + 1, next_head = sequence.head + last_of_head;
        float scores[2][T::kThreadCols], slopes[2][T::kThreadCols];
        clear(scores), clear(slopes);
        if (kInTurn) wait_for_copies_but_last_group();
        else wait_for_copies();
        __syncthreads();
        multiply_tiles<T, kHeadDim>(scores, own_keys, queries, place);
        finish_scores<T, false, kExtras>(scores, params, sequence, place, own.first_row, first_col);
#pragma unroll
        for (int col = 0; col < T::kThreadCols; ++col) {
            const float of_query = finite_or_zero(lse[place.col(col)]) * kLog2E;
#pragma unroll
            for (int row = 0; row < 2; ++row) scores[row][col] = power_of_two(scores[row][col] - of_query);
        }
        if (kInTurn) {
            wait_for_copies();
            __syncthreads();
        }
        multiply_tiles<T, kHeadDim>(slopes, own_values, gradients, place);
        float of_queries[T::kThreadCols];
#pragma unroll
        for (int col = 0; col < T::kThreadCols; ++col) of_queries[col] = delta[place.col(col)];
        finish_slopes<T, kExtras>(scores, slopes, of_queries, params, sequence, place, own.first_row, first_col);
        multiply_weights<T, kHeadDim>(dv, scores, gradients, place);
        __syncthreads();
        if (kInTurn) store_transposed<T>(gradients, slopes, place);
        else if (more) load(gradients, delta, params.dout, params.delta, next_head, next_block);
        multiply_weights<T, kHeadDim>(dk, slopes, queries, place);
        __syncthreads();
        if (more) load(queries, lse, params.q, params.lse, next_head, next_block);
        if (kInTurn) {
            int *turns = turns_of<T>(params, sequence, block);
            add_dq<T, kHeadDim>(params, sequence, first_col, gradients, own_keys, turns, own.turn, place);
            end_turn(turns, own.turn);
            if (more) load(gradients, delta, params.dout, params.delta, next_head, next_block);
        }
        block = next_block, sequence.head = next_head;
    }
}

// kInTurn: whether dQ is made here too.
template <int kHeadDim, bool kExtras, bool kInTurn>
__global__ void __launch_bounds__(128, Tile<kHeadDim, 2, kWay>::kBlocks) backward_keys_kernel(
    const AttentionParams params) {
    using T = Tile<kHeadDim, 2, kWay>;
    extern __shared__ float4 shared[];
    float *own_keys = reinterpret_cast<float *>(shared);
    const int number = kInTurn ? draw_number(params.turns, own_keys) : blockIdx.x;
    const OwnKeys<T, kInTurn> own(
        params, number, (params.seqlen_k + T::kRows - 1) / T::kRows, params.batch * params.heads_k);
    if (own.first_row >= own.sequence.seqlen_k) return;
    const Place<T> place;

    float dk[T::kThreadRows][T::kOut], dv[T::kThreadRows][T::kOut];
    clear(dk), clear(dv);
    if constexpr (T::kTensorCores) {
        walk_over_queries_by_tensor_cores<T, kHeadDim, kExtras>(dk, dv, params, own, own_keys, place);
    } else {
        walk_over_queries<T, kHeadDim, kExtras>(dk, dv, params, own, own_keys, place);
    }

    const Rows target_k = own.sequence.keys(params, params.dk, own.head_k);
    const Rows target_v = own.sequence.keys(params, params.dv, own.head_k);
#pragma unroll
    for (int row = 0; row < T::kThreadRows; ++row) {
        const int key = own.first_row + place.row(row);
        if (key >= own.sequence.seqlen_k) continue;
        write_out_columns<T>(row_of(target_k, key), dk[row], params.scale, place.lane_col);
        write_out_columns<T>(row_of(target_v, key), dv[row], 1.f, place.lane_col);
    }
}

}  // namespace flash_attention_fp32
