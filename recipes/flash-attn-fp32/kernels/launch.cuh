// Starts a kernel with the shared memory that its tile takes on this GPU.
#pragma once

#include "attention.h"

namespace flash_attention_fp32 {

inline bool has_extras(const AttentionParams &params) {
    return params.bias != nullptr || params.mask != nullptr || params.dropout > 0.f;
}

// Which tile the kernel was compiled with is decided by __CUDA_ARCH__, so the loaded code is asked, not the GPU.
template <typename Kernel>
cudaError_t is_small(Kernel kernel, bool *small) {
    cudaFuncAttributes attributes;
    const cudaError_t status = cudaFuncGetAttributes(&attributes, reinterpret_cast<const void *>(kernel));
    if (status == cudaSuccess) *small = attributes.binaryVersion < 80;
    return status;
}

// `rows` and `heads`: the longest sequence the blocks' rows come from, and its heads; `small` and `large` are tiles.
template <typename Small, typename Large, typename Kernel>
cudaError_t launch(Kernel kernel, const AttentionParams &params, int rows, int heads, cudaStream_t stream) {
    bool small = false;
    cudaError_t status = is_small(kernel, &small);
    if (status != cudaSuccess) return status;
    const int rows_of_block = small ? Small::kRows : Large::kRows;
    const int threads = small ? Small::kThreads : Large::kThreads;
    const int bytes = small ? Small::kBytes : Large::kBytes;
    const int64_t blocks = (static_cast<int64_t>(rows) + rows_of_block - 1) / rows_of_block * heads * params.batch;
    if (blocks == 0) return cudaSuccess;
    if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
    status = cudaFuncSetAttribute(
        reinterpret_cast<const void *>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (status != cudaSuccess) return status;
    kernel<<<static_cast<unsigned>(blocks), threads, bytes, stream>>>(params);
    return cudaGetLastError();
}

}  // namespace flash_attention_fp32
