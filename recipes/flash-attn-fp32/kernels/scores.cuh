// What happens to single scores: scale, bias, mask, causality and dropout; and where sequences begin.
#pragma once

#include <math_constants.h>

#include "attention.h"
#include "tensor.cuh"

namespace flash_attention_fp32 {

constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

__device__ __forceinline__ float power_of_two(float exponent) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(exponent));
    return result;
}

// One sequence of the batch and one head of the queries.
struct Sequence {
    int batch;
    int head;
    int begin_q;  // its first row where sequences are packed, else 0
    int begin_k;
    int seqlen_q;
    int seqlen_k;

    __device__ __forceinline__ Sequence(const AttentionParams &params, int batch_, int head_) : batch(batch_), head(head_) {
        if (params.cu_seqlens_q != nullptr) {
            begin_q = params.cu_seqlens_q[batch], begin_k = params.cu_seqlens_k[batch];
            seqlen_q = params.cu_seqlens_q[batch + 1] - begin_q;
            seqlen_k = params.cu_seqlens_k[batch + 1] - begin_k;
        } else {
            begin_q = begin_k = 0;
            seqlen_q = params.seqlen_q, seqlen_k = params.seqlen_k;
        }
    }
    // How far behind its own number a query sees keys: the last query sees the last key.
    __device__ __forceinline__ int shift() const { return seqlen_k - seqlen_q; }

    __device__ __forceinline__ int64_t start(const AttentionParams &params, const AttentionTensor &tensor, int begin, int of_head) const {
        const int64_t batches = params.cu_seqlens_q != nullptr ? 0 : batch * tensor.batch;
        return batches + begin * tensor.row + of_head * tensor.head;
    }
    __device__ __forceinline__ Rows queries(const AttentionParams &params, const AttentionTensor &tensor) const {
        return Rows{tensor.data + start(params, tensor, begin_q, head), static_cast<int>(tensor.row), seqlen_q};
    }
    __device__ __forceinline__ Rows keys(const AttentionParams &params, const AttentionTensor &tensor, int head_k) const {
        return Rows{tensor.data + start(params, tensor, begin_k, head_k), static_cast<int>(tensor.row), seqlen_k};
    }
    __device__ __forceinline__ int64_t statistics(const AttentionParams &params) const {
        return (params.cu_seqlens_q != nullptr ? begin_q : batch * params.lse_batch) + head * params.lse_head;
    }
};

// Turns products into exponents of two: x = score * log2(e), -inf where the score does not count.
// kQueriesAreRows: whether a thread's rows are queries (and its columns keys) or the other way round. kExtras: whether
// bias and mask are looked at.
template <typename T, bool kQueriesAreRows, bool kExtras>
__device__ __forceinline__ void finish_scores(
    float (&scores)[T::kThreadRows][T::kThreadCols], const AttentionParams &params, const Sequence &sequence,
    const Place<T> &place, int first_row, int first_col) {
    const float factor = params.scale * kLog2E;
#pragma unroll
    for (int row = 0; row < T::kThreadRows; ++row) {
#pragma unroll
        for (int col = 0; col < T::kThreadCols; ++col) scores[row][col] *= factor;
    }
    const int first_query = kQueriesAreRows ? first_row : first_col;
    const int first_key = kQueriesAreRows ? first_col : first_row;
    const int end_query = first_query + (kQueriesAreRows ? T::kRows : T::kCols);
    const int end_key = first_key + (kQueriesAreRows ? T::kCols : T::kRows);
    const bool added = kExtras && (params.bias != nullptr || params.mask != nullptr);
    const bool whole = end_query <= sequence.seqlen_q && end_key <= sequence.seqlen_k &&
                       (!params.causal || end_key - 1 <= first_query + sequence.shift());
    if (whole && !added) return;
    const int64_t begin = sequence.batch * params.bias_batch + sequence.head * params.bias_head;
#pragma unroll
    for (int row = 0; row < T::kThreadRows; ++row) {
#pragma unroll
        for (int col = 0; col < T::kThreadCols; ++col) {
            const int own = first_row + place.row(row), other = first_col + place.col(col);
            const int query = kQueriesAreRows ? own : other, key = kQueriesAreRows ? other : own;
            bool counts = query < sequence.seqlen_q && key < sequence.seqlen_k &&
                          (!params.causal || key <= query + sequence.shift());
            if (kExtras && added && counts) {
                const int64_t where = begin + query * params.bias_row + key * params.bias_column;
                if (params.mask != nullptr) {
                    counts = __ldg(params.mask + where) != 0;
                } else {
                    scores[row][col] = fmaf(__ldg(params.bias + where), kLog2E, scores[row][col]);
                }
            }
            if (!counts) scores[row][col] = -CUDART_INF_F;
        }
    }
}

// --- dropout: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), whose four words
// decide over four neighbouring keys. The position is the counter, so forward and backward agree by themselves.

struct Dropout {
    uint32_t seed_low;
    uint32_t seed_high;
    uint32_t place;    // which sequence and head
    uint64_t dropped;  // words below this drop
    float factor;      // of what is kept

    __device__ __forceinline__ Dropout(const AttentionParams &params, const Sequence &sequence) {
        seed_low = static_cast<uint32_t>(*params.seed);
        seed_high = static_cast<uint32_t>(*params.seed >> 32);
        place = sequence.batch * params.heads + sequence.head;
        dropped = static_cast<uint64_t>(static_cast<double>(params.dropout) * 4294967296.0);
        factor = params.dropout < 1.f ? 1.f / (1.f - params.dropout) : 0.f;
    }

    // The factors of the weights of one query for the keys 4 * quad to 4 * quad + 3.
    __device__ __forceinline__ float4 factors(int query, int quad) const {
        uint32_t a = quad, b = query, c = place, d = 0;
        uint32_t key_a = seed_low, key_b = seed_high;
#pragma unroll
        for (int round = 0; round < 10; ++round) {
            const uint64_t left = static_cast<uint64_t>(0xD2511F53u) * a, right = static_cast<uint64_t>(0xCD9E8D57u) * c;
            a = static_cast<uint32_t>(right >> 32) ^ b ^ key_a;
            b = static_cast<uint32_t>(right);
            c = static_cast<uint32_t>(left >> 32) ^ d ^ key_b;
            d = static_cast<uint32_t>(left);
            key_a += 0x9E3779B9u, key_b += 0xBB67AE85u;
        }
        return make_float4(a < dropped ? 0.f : factor, b < dropped ? 0.f : factor, c < dropped ? 0.f : factor,
                           d < dropped ? 0.f : factor);
    }
};

// Calls visit(row, col, factor) for each of a thread's scores.
template <typename T, bool kQueriesAreRows, typename Visit>
__device__ __forceinline__ void visit_dropout(
    const Dropout &dropout, const Place<T> &place, int first_row, int first_col, Visit visit) {
    if constexpr (kQueriesAreRows) {
#pragma unroll
        for (int row = 0; row < T::kThreadRows; ++row) {
#pragma unroll
            for (int col = 0; col < T::kThreadCols; col += 4) {
                const float4 four = dropout.factors(first_row + place.row(row), (first_col + place.col(col)) >> 2);
                visit(row, col, four.x), visit(row, col + 1, four.y);
                visit(row, col + 2, four.z), visit(row, col + 3, four.w);
            }
        }
    } else if constexpr (T::kTensorCores) {
#pragma unroll
        for (int row = 0; row < T::kThreadRows; ++row) {
            const int key = first_row + place.row(row);
#pragma unroll
            for (int col = 0; col < T::kThreadCols; ++col) {
                const float4 four = dropout.factors(first_col + place.col(col), key >> 2);
                const float low = key & 1 ? four.y : four.x, high = key & 1 ? four.w : four.z;
                visit(row, col, key & 2 ? high : low);
            }
        }
    } else {
#pragma unroll
        for (int row = 0; row < T::kThreadRows; row += 4) {
#pragma unroll
            for (int col = 0; col < T::kThreadCols; ++col) {
                const float4 four = dropout.factors(first_col + place.col(col), (first_row + place.row(row)) >> 2);
                visit(row, col, four.x), visit(row + 1, col, four.y);
                visit(row + 2, col, four.z), visit(row + 3, col, four.w);
            }
        }
    }
}

}  // namespace flash_attention_fp32
