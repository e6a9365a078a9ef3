// Starts a kernel with the shared memory that its tile takes on this GPU.
#pragma once

#include "attention.h"
#include "tensor.cuh"

namespace flash_attention_fp32 {

inline bool has_extras(const AttentionParams &params) {
    return params.bias != nullptr || params.mask != nullptr || params.dropout > 0.f;
}

// What the host must know of a tile.
struct Size {
    int rows;
    int threads;
    int bytes;
};

template <typename T>
constexpr Size size_of() {
    return Size{T::kRows, T::kThreads, T::kBytes};
}

// Which tile a kernel was compiled with is decided by __CUDA_ARCH__, so the loaded code is asked, not the GPU.
template <int kHeadDim, int kResident, typename Kernel>
cudaError_t find_size(Kernel kernel, Size *size) {
    cudaFuncAttributes attributes;
    const cudaError_t status = cudaFuncGetAttributes(&attributes, reinterpret_cast<const void *>(kernel));
    if (status != cudaSuccess) return status;
    switch (way_of(attributes.ptxVersion * 10)) {
        case Way::kSmall: *size = size_of<Tile<kHeadDim, kResident, Way::kSmall>>(); break;
        case Way::kLarge: *size = size_of<Tile<kHeadDim, kResident, Way::kLarge>>(); break;
        case Way::kTensorCores: *size = size_of<Tile<kHeadDim, kResident, Way::kTensorCores>>(); break;
    }
    return cudaSuccess;
}

// `rows` and `heads`: the longest sequence the blocks' rows come from, and its heads.
template <int kHeadDim, int kResident, typename Kernel>
cudaError_t launch(Kernel kernel, const AttentionParams &params, int rows, int heads, cudaStream_t stream) {
    Size size{};
    cudaError_t status = find_size<kHeadDim, kResident>(kernel, &size);
    if (status != cudaSuccess) return status;
    const int64_t blocks = (static_cast<int64_t>(rows) + size.rows - 1) / size.rows * heads * params.batch;
    if (blocks == 0) return cudaSuccess;
    if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
    status = cudaFuncSetAttribute(
        reinterpret_cast<const void *>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, size.bytes);
    if (status != cudaSuccess) return status;
    kernel<<<static_cast<unsigned>(blocks), size.threads, size.bytes, stream>>>(params);
    return cudaGetLastError();
}

}  // namespace flash_attention_fp32
