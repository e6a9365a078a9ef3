// The entry points: which kernel a head dimension has, and delta, which all of them share.

#include "attention.h"

#include "launch.cuh"

namespace flash_attention_fp32 {

template <int kHeadDim>
cudaError_t forward(const AttentionParams &params, cudaStream_t stream);
template <int kHeadDim>
cudaError_t backward(const AttentionParams &params, cudaStream_t stream);

namespace {

constexpr int kDeltaThreads = 256;

// delta = rowsum(dout * out) - dlse: a warp for each query of each head.
__global__ void __launch_bounds__(kDeltaThreads) delta_kernel(const AttentionParams params, int64_t rows) {
    const int64_t index = static_cast<int64_t>(blockIdx.x) * (kDeltaThreads / 32) + threadIdx.x / 32;
    if (index >= rows * params.heads) return;
    const int head = index % params.heads;
    const int64_t row_of_all = index / params.heads;
    // Packed sequences are one long row of queries here.
    const bool packed = params.cu_seqlens_q != nullptr;
    const int64_t batch = packed ? 0 : row_of_all / params.seqlen_q;
    const int64_t row = packed ? row_of_all : row_of_all % params.seqlen_q;
    const float *out = params.out.data + batch * params.out.batch + row * params.out.row + head * params.out.head;
    const float *dout = params.dout.data + batch * params.dout.batch + row * params.dout.row + head * params.dout.head;
    float sum = 0.f;
    for (int dim = threadIdx.x % 32; dim < params.head_dim; dim += 32) sum = fmaf(out[dim], dout[dim], sum);
    for (int bit = 16; bit > 0; bit /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, bit);
    if (threadIdx.x % 32 != 0) return;
    const int64_t where = batch * params.lse_batch + head * params.lse_head + row;
    params.delta[where] = params.dlse != nullptr ? sum - params.dlse[where] : sum;
}

cudaError_t compute_delta(const AttentionParams &params, cudaStream_t stream) {
    const int64_t rows = params.cu_seqlens_q != nullptr ? params.total_q
                                                        : static_cast<int64_t>(params.batch) * params.seqlen_q;
    const int64_t blocks = (rows * params.heads + kDeltaThreads / 32 - 1) / (kDeltaThreads / 32);
    if (blocks == 0) return cudaSuccess;
    if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
    delta_kernel<<<static_cast<unsigned>(blocks), kDeltaThreads, 0, stream>>>(params, rows);
    return cudaGetLastError();
}

}  // namespace
}  // namespace flash_attention_fp32

using namespace flash_attention_fp32;

extern "C" cudaError_t flash_attention_fp32_forward(const AttentionParams *params, cudaStream_t stream) {
    switch (params->head_dim) {
        case 32: return forward<32>(*params, stream);
        case 64: return forward<64>(*params, stream);
        case 96: return forward<96>(*params, stream);
        case 128: return forward<128>(*params, stream);
        default: return cudaErrorInvalidValue;
    }
}

// In turn, a block of keys waits for those before it that run at the same time; apart, 7 products are computed and not
// 5. So turns are taken where the wait is shorter than two products: below two fifths of the walk over the queries.
extern "C" cudaError_t flash_attention_fp32_turns(const AttentionParams *params, int64_t *count) {
    constexpr int kQueriesOfBlock = 64, kFewestQueries = 32, kBlocksAtOnce = 2;  // as the tiles have them
    int device = 0, multiprocessors = 0;
    cudaError_t status = cudaGetDevice(&device);
    if (status != cudaSuccess) return status;
    status = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
    if (status != cudaSuccess) return status;
    const int64_t blocks = (params->seqlen_q + kQueriesOfBlock - 1) / kQueriesOfBlock;
    const int64_t heads = static_cast<int64_t>(params->batch) * params->heads_k;
    const bool in_turn = heads > 0 && 5 * kBlocksAtOnce * multiprocessors < 2 * blocks * heads;
    const int64_t counters = (params->seqlen_q + kFewestQueries - 1) / kFewestQueries;
    *count = in_turn ? 1 + counters * params->batch * params->heads : 0;
    return cudaSuccess;
}

extern "C" cudaError_t flash_attention_fp32_backward(const AttentionParams *params, cudaStream_t stream) {
    const cudaError_t status = compute_delta(*params, stream);
    if (status != cudaSuccess) return status;
    switch (params->head_dim) {
        case 32: return backward<32>(*params, stream);
        case 64: return backward<64>(*params, stream);
        case 96: return backward<96>(*params, stream);
        case 128: return backward<128>(*params, stream);
        default: return cudaErrorInvalidValue;
    }
}
