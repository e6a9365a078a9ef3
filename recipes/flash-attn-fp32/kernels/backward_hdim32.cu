#include "backward.cuh"

namespace flash_attention_fp32 {

template cudaError_t backward<32>(const AttentionParams &params, cudaStream_t stream);

}  // namespace flash_attention_fp32
