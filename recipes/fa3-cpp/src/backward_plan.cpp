#include <cstdint>

#include "backward.h"
#include "head_dims.h"
#include "kernel_params.h"
#include "workspace.h"

namespace hopperforge::fa3 {
namespace {

using Backward = ::hopperforge_fa3_backward_params;

constexpr std::int64_t kLargestCount = 2147483647;

struct Tile {
  int queries;
  int keys;
};

// The kernels' tiles, which the layout of what they accumulate follows. Upstream has them in its launch code
// (flash_bwd_launch_template.h) as arguments of templates; a pin that changes them there must change them here.
//
//     head dim     queries, keys on Hopper     on 8.0      on 8.6, 8.9
//     64           128 (causal with softcap: 96), 128   128, 128    64, 128
//     96           64, 128                     64, 128     64, 128
//     128          80 (masked or softcap: 64), 128      64, 128     64, 96
//     192          64, 96                      64, 80      64, 64
//     256          64, 80                      64, 64      32, 64
Tile backward_tile(int architecture, int head_dim, const Masks& masks, bool softcap) {
  if (architecture >= 90) {
    switch (head_dim) {
      case 64:
        return {masks.causal && softcap ? 96 : 128, 128};
      case 96:
        return {64, 128};
      case 128:
        return {masks.causal || masks.local || softcap ? 64 : 80, 128};
      case 192:
        return {64, 96};
      default:
        return {64, 80};
    }
  }
  const bool sm86 = architecture == 86 || architecture == 89;
  switch (head_dim) {
    case 64:
      return {sm86 ? 64 : 128, 128};
    case 96:
      return {64, 128};
    case 128:
      return {64, sm86 ? 96 : 128};
    case 192:
      return {64, sm86 ? 64 : 80};
    default:
      return {sm86 ? 32 : 64, 64};
  }
}

void fill_gradients(const Backward& params, Flash_bwd_params& kernel) {
  const Problem& problem = params.problem;
  const Extents queries = query_extents(problem, problem.head_dim);
  const Extents keys = key_extents(problem, problem.head_dim);
  kernel.do_ptr = params.dout.data;
  kernel.do_batch_stride = stride(queries.batch, params.dout.batch_stride);
  kernel.do_row_stride = stride(queries.rows, params.dout.row_stride);
  kernel.do_head_stride = stride(queries.heads, params.dout.head_stride);
  kernel.dq_ptr = params.dq.data;
  kernel.dq_batch_stride = stride(queries.batch, params.dq.batch_stride);
  kernel.dq_row_stride = stride(queries.rows, params.dq.row_stride);
  kernel.dq_head_stride = stride(queries.heads, params.dq.head_stride);
  kernel.dk_ptr = params.dk.data;
  kernel.dk_batch_stride = stride(keys.batch, params.dk.batch_stride);
  kernel.dk_row_stride = stride(keys.rows, params.dk.row_stride);
  kernel.dk_head_stride = stride(keys.heads, params.dk.head_stride);
  kernel.dv_ptr = params.dv.data;
  kernel.dv_batch_stride = stride(keys.batch, params.dv.batch_stride);
  kernel.dv_row_stride = stride(keys.rows, params.dv.row_stride);
  kernel.dv_head_stride = stride(keys.heads, params.dv.head_stride);
}

// Rows that the kernels accumulate into, all sequences together: each begins at a tile of its own.
std::int64_t padded_rows(const int* cu_seqlens, std::int64_t batch, std::int64_t seqlen, std::int64_t total, int tile) {
  return cu_seqlens != nullptr ? round_up(total + batch * tile, tile) : batch * round_up(seqlen, tile);
}

Status place_accumulators(const Tile& sizes, Workspace& workspace, BackwardPlan& plan) {
  Flash_bwd_params& kernel = plan.kernel;
  const std::int64_t query_rows =
      kernel.h * padded_rows(kernel.cu_seqlens_q, kernel.b, kernel.seqlen_q, kernel.total_q, sizes.queries);
  const std::int64_t key_rows =
      kernel.h_k * padded_rows(kernel.cu_seqlens_k, kernel.b, kernel.seqlen_k, kernel.total_k, sizes.keys);
  if (std::max(query_rows, key_rows) * kernel.d_rounded >
      kLargestCount * (kernel.cu_seqlens_q != nullptr ? 1 : kernel.b)) {
    return fail(HOPPERFORGE_FA3_UNSUPPORTED,
                "rows times heads times head_dim are more than backward kernels can count");
  }
  kernel.softmax_lse_log2_ptr = workspace.take<float>(query_rows);
  kernel.dsoftmax_sum = workspace.take<float>(query_rows);
  kernel.dq_accum_ptr = workspace.take<float>(query_rows * kernel.d_rounded);
  kernel.dq_semaphore = workspace.take<int>(ceil_div(kernel.seqlen_q, sizes.queries) * kernel.b * kernel.h);
  if (kernel.h == kernel.h_k) return HOPPERFORGE_FA3_OK;

  // query heads that share a key head add up, in any order, or one after the other
  const std::size_t begin = workspace.used();
  float* dk = workspace.take<float>(key_rows * kernel.d_rounded);
  kernel.dk_accum_ptr = dk;
  kernel.dv_accum_ptr = workspace.take<float>(key_rows * kernel.dv_rounded);
  if (kernel.deterministic) {
    const std::int64_t key_tiles = ceil_div(kernel.seqlen_k, sizes.keys) * kernel.b * kernel.h_k;
    kernel.dk_semaphore = workspace.take<int>(key_tiles);
    kernel.dv_semaphore = workspace.take<int>(key_tiles);
  }
  plan.cleared = dk;
  plan.cleared_bytes = workspace.used() - begin;
  return HOPPERFORGE_FA3_OK;
}

}  // namespace

Status plan_backward(const Backward& params, const Device& device, void* base, BackwardPlan& plan) {
  const Problem& problem = params.problem;
  if (problem.sm_margin >= device.multiprocessors) {
    return fail(HOPPERFORGE_FA3_INVALID_ARGUMENT, "sm_margin is %d, and the device has %d multiprocessors",
                problem.sm_margin, device.multiprocessors);
  }
  Flash_bwd_params& kernel = plan.kernel;
  const Masks masks = backward_masks(problem);
  const Extents keys = key_extents(problem, problem.head_dim);
  fill_problem(problem, masks, device, kernel);
  kernel.scale_softmax = problem.softmax_scale != 0.0f
                             ? problem.softmax_scale
                             : static_cast<float>(1.0 / std::sqrt(static_cast<double>(problem.head_dim)));
  fill_inputs(params.q, query_extents(problem, problem.head_dim), params.k, keys, params.v, keys, kernel);
  fill_output(params.out, query_extents(problem, problem.head_dim_v), kernel);
  fill_gradients(params, kernel);
  kernel.softmax_lse_ptr = const_cast<float*>(params.softmax_lse);
  kernel.deterministic = params.deterministic != 0;
  kernel.d_rounded = compiled_head_dim(std::max(problem.head_dim, problem.head_dim_v));
  kernel.dv_rounded = kernel.d_rounded;
  const Tile sizes = backward_tile(kernel.arch, kernel.d_rounded, masks, kernel.softcap > 0.0f);
  kernel.seqlen_q_rounded = static_cast<int>(round_up(kernel.seqlen_q, sizes.queries));
  kernel.seqlen_k_rounded = static_cast<int>(round_up(kernel.seqlen_k, sizes.keys));

  Workspace workspace(base);
  HOPPERFORGE_TRY(place_accumulators(sizes, workspace, plan));
  plan.workspace_bytes = workspace.used();
  return HOPPERFORGE_FA3_OK;
}

}  // namespace hopperforge::fa3
