#include "forward.cuh"

namespace flash_attention_fp32 {

template cudaError_t forward<96>(const AttentionParams &params, cudaStream_t stream);

}  // namespace flash_attention_fp32
