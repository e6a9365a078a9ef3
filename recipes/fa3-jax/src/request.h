// What a call is about, without its arrays; from it come the parameters of the library without a framework.
//
// The kernels are chosen and launched by recipes/fa3-cpp/src, which is compiled into this library as well. Here is only
// what XLA and JAX want otherwise: all arrays are contiguous, and sizes are asked for where there is no GPU.
#ifndef HOPPERFORGE_FA3_JAX_REQUEST_H
#define HOPPERFORGE_FA3_JAX_REQUEST_H

#include <cstdint>

#include "hopperforge/flash_attention_c.h"
#include "status.h"

extern "C" {

// As `Request` of python/fa3_jax/_library.py.
struct fa3_jax_request {
  std::int64_t dtype;
  std::int64_t batch;
  std::int64_t seqlen_q;
  std::int64_t seqlen_k;
  std::int64_t total_q;
  std::int64_t total_k;
  std::int64_t heads;
  std::int64_t heads_k;
  std::int64_t head_dim;
  std::int64_t head_dim_v;
  std::int64_t causal;
  std::int64_t window_left;
  std::int64_t window_right;
  std::int64_t num_splits;
  std::int64_t deterministic;
  std::int64_t packed;
  std::int64_t descaled;
  double softmax_scale;
  double softcap;
};

}  // extern "C"

namespace hopperforge::fa3_jax {

using Request = ::fa3_jax_request;
using fa3::Status;

// Where the arrays are. Gradients are of the backward pass; offsets of packed sequences and descales may be null.
struct Arrays {
  void *q = nullptr;
  void *k = nullptr;
  void *v = nullptr;
  void *out = nullptr;
  float *lse = nullptr;
  void *dout = nullptr;
  void *dq = nullptr;
  void *dk = nullptr;
  void *dv = nullptr;
  const std::int32_t *cu_seqlens_q = nullptr;
  const std::int32_t *cu_seqlens_k = nullptr;
  const float *descales[3] = {};
};

// Fails where a number does not fit the kernels' 32 bits.
Status forward_params(const Request &request, const Arrays &arrays, hopperforge_fa3_forward_params &params);
Status backward_params(const Request &request, const Arrays &arrays, hopperforge_fa3_backward_params &params);

}  // namespace hopperforge::fa3_jax

#endif
