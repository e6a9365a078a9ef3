#include "request.h"

#include <cinttypes>
#include <limits>

namespace hopperforge::fa3_jax {
namespace {

using Problem = ::hopperforge_fa3_problem;
using Tensor = ::hopperforge_fa3_tensor;

Status narrow(std::int64_t value, const char *name, std::int32_t &narrowed) {
  if (value < std::numeric_limits<std::int32_t>::min() || value > std::numeric_limits<std::int32_t>::max()) {
    return fa3::fail(HOPPERFORGE_FA3_UNSUPPORTED, "%s is %" PRId64 ", which is more than the kernels can count", name,
                     value);
  }
  narrowed = static_cast<std::int32_t>(value);
  return HOPPERFORGE_FA3_OK;
}

Status fill_problem(const Request &request, const Arrays &arrays, Problem &problem) {
  const struct {
    std::int64_t value;
    const char *name;
    std::int32_t &field;
  } numbers[] = {
      {request.batch, "batch", problem.batch},
      {request.seqlen_q, "seqlen_q", problem.seqlen_q},
      {request.seqlen_k, "seqlen_k", problem.seqlen_k},
      {request.total_q, "total_q", problem.total_q},
      {request.total_k, "total_k", problem.total_k},
      {request.heads, "heads", problem.heads},
      {request.heads_k, "heads_k", problem.heads_k},
      {request.head_dim, "head_dim", problem.head_dim},
      {request.head_dim_v, "head_dim_v", problem.head_dim_v},
      {request.window_left, "window_left", problem.window_left},
      {request.window_right, "window_right", problem.window_right},
  };
  for (const auto &number : numbers) HOPPERFORGE_TRY(narrow(number.value, number.name, number.field));
  problem.dtype = static_cast<hopperforge_fa3_dtype>(request.dtype);
  problem.softmax_scale = static_cast<float>(request.softmax_scale);
  problem.softcap = static_cast<float>(request.softcap);
  problem.causal = request.causal != 0;
  problem.cu_seqlens_q = arrays.cu_seqlens_q;
  problem.cu_seqlens_k = arrays.cu_seqlens_k;
  return HOPPERFORGE_FA3_OK;
}

// An array of XLA's: contiguous, (batch, rows, heads, head_dim).
Tensor contiguous(void *data, std::int64_t rows, std::int64_t heads, std::int64_t head_dim) {
  return {data, rows * heads * head_dim, heads * head_dim, head_dim};
}

Tensor queries(const Request &request, void *data, std::int64_t head_dim) {
  return contiguous(data, request.seqlen_q, request.heads, head_dim);
}

Tensor keys(const Request &request, void *data, std::int64_t head_dim) {
  return contiguous(data, request.seqlen_k, request.heads_k, head_dim);
}

}  // namespace

Status forward_params(const Request &request, const Arrays &arrays, hopperforge_fa3_forward_params &params) {
  hopperforge_fa3_forward_defaults(&params);
  HOPPERFORGE_TRY(fill_problem(request, arrays, params.problem));
  HOPPERFORGE_TRY(narrow(request.num_splits, "num_splits", params.num_splits));
  params.q = queries(request, arrays.q, request.head_dim);
  params.k = keys(request, arrays.k, request.head_dim);
  params.v = keys(request, arrays.v, request.head_dim_v);
  params.out = queries(request, arrays.out, request.head_dim_v);
  params.softmax_lse = arrays.lse;
  params.q_descale = {arrays.descales[0], request.heads_k, 1};
  params.k_descale = {arrays.descales[1], request.heads_k, 1};
  params.v_descale = {arrays.descales[2], request.heads_k, 1};
  return HOPPERFORGE_FA3_OK;
}

Status backward_params(const Request &request, const Arrays &arrays, hopperforge_fa3_backward_params &params) {
  hopperforge_fa3_backward_defaults(&params);
  HOPPERFORGE_TRY(fill_problem(request, arrays, params.problem));
  params.q = queries(request, arrays.q, request.head_dim);
  params.k = keys(request, arrays.k, request.head_dim);
  params.v = keys(request, arrays.v, request.head_dim_v);
  params.out = queries(request, arrays.out, request.head_dim_v);
  params.dout = queries(request, arrays.dout, request.head_dim_v);
  params.softmax_lse = arrays.lse;
  params.dq = queries(request, arrays.dq, request.head_dim);
  params.dk = keys(request, arrays.dk, request.head_dim);
  params.dv = keys(request, arrays.dv, request.head_dim_v);
  params.deterministic = request.deterministic != 0;
  return HOPPERFORGE_FA3_OK;
}

}  // namespace hopperforge::fa3_jax
