// The C interface of the kernels: fp32 attention, forward and backward, without torch or any other framework.
//
// Everything lies on one device; sizes are in elements, strides too. The caller keeps the rules written here: the
// kernels check the head dimension and nothing else.
#pragma once

#include <cuda_runtime_api.h>
#include <stdint.h>

// Where a tensor of (batch, row, head, head_dim) begins, and how far apart its parts are; the head dimension is
// contiguous. Begin and strides are multiples of 16 bytes, the stride of rows is below 2^31. Packed sequences lie one
// after another along the rows, and `batch` is then not used; rows behind the last one are not written.
struct AttentionTensor {
    float *data;
    int64_t batch;
    int64_t row;
    int64_t head;
};

struct AttentionParams {
    int batch;
    int heads;     // of the queries; a multiple of heads_k
    int heads_k;   // of the keys and values
    int head_dim;  // 32, 64, 96 or 128
    int seqlen_q;  // of each sequence; of the longest where sequences are packed
    int seqlen_k;

    // Packed sequences: batch + 1 sums of lengths, beginning with 0. Null for equal lengths. Both are given, or none.
    const int32_t *cu_seqlens_q;
    const int32_t *cu_seqlens_k;
    int64_t total_q;  // sum of the lengths; read only where sequences are packed

    float scale;   // of the scores, before the softmax
    int causal;    // a query sees no key behind it; the last query is aligned with the last key

    // Added to the scores (bias) or telling which of them count (mask, one byte each): at most one of the two is given.
    // The strides are of (batch, head, query, key), 0 where one value serves all.
    const float *bias;
    const uint8_t *mask;
    int64_t bias_batch;
    int64_t bias_head;
    int64_t bias_row;
    int64_t bias_column;

    // Each weight is kept with probability 1 - dropout; which are kept follows from the seed, one number on the device,
    // and from the weight's position alone. Read only where dropout is above 0.
    float dropout;
    const uint64_t *seed;

    AttentionTensor q;
    AttentionTensor k;
    AttentionTensor v;
    AttentionTensor out;

    // The natural logarithm of the sum of exponentials of each query's scores, -inf if it sees no key. Strides of rows
    // are 1; `lse_batch` is not used where sequences are packed.
    float *lse;
    int64_t lse_batch;
    int64_t lse_head;

    // Backward only. `delta` is scratch with the strides of lse; `dlse`, the gradient of lse with the same strides, may
    // be null.
    AttentionTensor dout;
    AttentionTensor dq;
    AttentionTensor dk;
    AttentionTensor dv;
    const float *dlse;
    float *delta;

    // Scratch of flash_attention_fp32_turns numbers, all 0; then dq is all 0 as well. Null where that says 0.
    int *turns;
};

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define FLASH_ATTENTION_FP32_API __attribute__((visibility("default")))
#else
#define FLASH_ATTENTION_FP32_API
#endif

// Writes out and lse. cudaErrorInvalidValue for a head dimension that has no kernel.
FLASH_ATTENTION_FP32_API cudaError_t flash_attention_fp32_forward(const struct AttentionParams *params, cudaStream_t stream);

// How many ints of scratch the backward call takes; the fields that are not pointers are read. 0: none.
FLASH_ATTENTION_FP32_API cudaError_t flash_attention_fp32_turns(const struct AttentionParams *params, int64_t *count);

// Reads out and lse of the forward call with the same params; writes dq, dk, dv and delta. The same bits every time.
FLASH_ATTENTION_FP32_API cudaError_t flash_attention_fp32_backward(const struct AttentionParams *params, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
