#include <cstdint>

#include "checks.h"
#include "forward.h"
#include "head_dims.h"
#include "kernel_params.h"
#include "workspace.h"

namespace hopperforge::fa3 {
namespace {

using Forward = ::hopperforge_fa3_forward_params;

// One thread block prepares the schedule of so many sequences, and only then do kernels overlap with it.
constexpr int kSequencesOfOnePreparingBlock = 31 * 32;
constexpr int kMostAutomaticSplits = 128;

struct Tile {
  int queries;
  int keys;
};

bool is_varlen(const Flash_fwd_params& kernel) {
  return kernel.cu_seqlens_q != nullptr || kernel.cu_seqlens_k != nullptr || kernel.seqused_q != nullptr ||
         kernel.seqused_k != nullptr || kernel.leftpad_k != nullptr;
}

// Pages that TMA does not fetch are fetched by other kernels, with other tiles.
bool fetches_pages_itself(const Flash_fwd_params& kernel) {
  return kernel.page_table != nullptr && !kernel.pagedkv_tma;
}

// The tile of the kernel that will run, by upstream's own tables.
Tile tile(const Flash_fwd_params& kernel, const HeadDims& dims, bool pages_without_tma) {
  const int element = kernel.is_e4m3 ? 1 : 2;
  const bool softcap = kernel.softcap > 0.0f;
  if (kernel.arch >= 90) {
    const auto sizes = tile_size_fwd_sm90(dims.qk, dims.v, kernel.is_causal, kernel.is_local, element, false,
                                          pages_without_tma, softcap);
    return {std::get<0>(sizes), std::get<1>(sizes)};
  }
  const bool sm86 = kernel.arch == 86 || kernel.arch == 89;
  const auto sizes =
      tile_size_fwd_sm8x(sm86, dims.qk, dims.v, kernel.is_causal, kernel.is_local, element,
                         kernel.page_table != nullptr, is_varlen(kernel), softcap, kernel.knew_ptr != nullptr);
  return {std::get<0>(sizes), std::get<1>(sizes)};
}

// TMA fetches whole pages, so they must be whole tiles; where few queries wait for memory it is the slower way.
bool tma_fetches_pages(const Flash_fwd_params& kernel, const HeadDims& dims) {
  if (kernel.arch < 90 || kernel.page_table == nullptr || kernel.leftpad_k != nullptr || kernel.knew_ptr != nullptr) {
    return false;
  }
  const Tile sizes = tile(kernel, dims, false);
  return kernel.page_size % sizes.keys == 0 && kernel.seqlen_q * (kernel.h / kernel.h_k) > sizes.queries;
}

int choose_splits(const Flash_fwd_params& kernel, const HeadDims& dims) {
  const Tile sizes = tile(kernel, dims, fetches_pages_itself(kernel));
  int keys = kernel.seqlen_k;
  if (kernel.is_local) {  // most keys are out of sight
    const std::int64_t seen = std::int64_t{kernel.window_size_left} + kernel.window_size_right + 1 + sizes.queries;
    keys = static_cast<int>(std::max<std::int64_t>(0, std::min<std::int64_t>(keys, seen)));
  }
  const auto key_tiles = static_cast<int>(ceil_div(keys, sizes.keys));
  const auto query_tiles =
      static_cast<int>(ceil_div(std::int64_t{kernel.seqlen_q} * (kernel.h / kernel.h_k), sizes.queries));
  const std::int64_t head_bytes = std::int64_t{kernel.seqlen_k} * (kernel.d + kernel.dv) * (kernel.is_e4m3 ? 1 : 2);
  // Where lengths vary the kernels split by what they find, up to this number: as if one long sequence were alone.
  const int sequences = is_varlen(kernel) ? 1 : kernel.b;
  return num_splits_heuristic(sequences * kernel.h_k * query_tiles, kernel.num_sm, key_tiles, query_tiles,
                              static_cast<int>(std::min<std::int64_t>(head_bytes, 2147483647)),
                              kernel.is_causal || kernel.is_local, kMostAutomaticSplits);
}

bool choose_packing(const Flash_fwd_params& kernel, const HeadDims& dims) {
  if (kernel.arch < 90 || fetches_pages_itself(kernel) || kernel.num_splits > 1) return true;  // the only ones compiled
  if (!kPackGQA || kernel.h == kernel.h_k) return false;
  const Tile sizes = tile(kernel, dims, false);
  const bool lengths_unknown = kernel.cu_seqlens_q != nullptr || kernel.seqused_q != nullptr;
  return should_pack_gqa(lengths_unknown, kernel.seqlen_q, kernel.h / kernel.h_k, sizes.queries);
}

float softmax_scale(const Forward& params) {
  const Problem& problem = params.problem;
  if (problem.softmax_scale != 0.0f) return problem.softmax_scale;
  const int width = problem.head_dim + (params.qv.data != nullptr ? problem.head_dim_v : 0);
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(width)));
}

void fill_cache(const Forward& params, Flash_fwd_params& kernel) {
  const Problem& problem = params.problem;
  Extents keys = key_extents(problem, problem.head_dim);
  kernel.page_size = 1;
  kernel.leftpad_k = const_cast<int*>(params.leftpad_k);
  if (params.batch_index_k != nullptr) {
    kernel.kv_batch_idx = const_cast<int*>(params.batch_index_k);
    kernel.b_k = params.batch_k;
    keys.batch = params.batch_k;
  }
  if (params.page_table != nullptr) {
    kernel.page_table = const_cast<int*>(params.page_table);
    kernel.page_table_batch_stride = params.page_table_stride;
    kernel.page_size = params.page_size;
    kernel.num_pages = params.pages;
    keys.batch = params.pages;
    keys.rows = params.page_size;
  }
  fill_inputs(params.q, query_extents(problem, problem.head_dim), params.k, keys, params.v, keys, kernel);
}

void fill_appended(const Forward& params, Flash_fwd_params& kernel) {
  if (params.k_new.data == nullptr) return;
  const Problem& problem = params.problem;
  const bool packed = params.cu_seqlens_k_new != nullptr;
  const std::int64_t batch = packed ? 1 : problem.batch;
  const std::int64_t rows = packed ? params.total_k_new : params.seqlen_k_new;
  kernel.seqlen_knew = packed ? 0 : params.seqlen_k_new;
  kernel.total_knew = params.total_k_new;  // read where they are packed
  kernel.cu_seqlens_knew = const_cast<int*>(params.cu_seqlens_k_new);
  kernel.knew_ptr = params.k_new.data;
  kernel.knew_batch_stride = stride(batch, params.k_new.batch_stride);
  kernel.knew_row_stride = stride(rows, params.k_new.row_stride);
  kernel.knew_head_stride = stride(problem.heads_k, params.k_new.head_stride);
  kernel.vnew_ptr = params.v_new.data;
  kernel.vnew_batch_stride = stride(batch, params.v_new.batch_stride);
  kernel.vnew_row_stride = stride(rows, params.v_new.row_stride);
  kernel.vnew_head_stride = stride(problem.heads_k, params.v_new.head_stride);
}

void fill_rotary(const Forward& params, Flash_fwd_params& kernel) {
  if (params.rotary_cos == nullptr) return;
  kernel.rotary_dim = params.rotary_dim;
  kernel.rotary_cos_ptr = const_cast<void*>(params.rotary_cos);
  kernel.rotary_sin_ptr = const_cast<void*>(params.rotary_sin);
  kernel.seqlens_rotary = const_cast<int*>(params.seqlens_rotary);
  kernel.is_rotary_interleaved = params.rotary_interleaved != 0;
}

void fill_second_query(const Forward& params, Flash_fwd_params& kernel) {
  if (params.qv.data == nullptr) return;
  const Extents extents = query_extents(params.problem, params.problem.head_dim_v);
  kernel.qv_ptr = params.qv.data;
  kernel.qv_batch_stride = stride(extents.batch, params.qv.batch_stride);
  kernel.qv_row_stride = stride(extents.rows, params.qv.row_stride);
  kernel.qv_head_stride = stride(extents.heads, params.qv.head_stride);
}

void fill_descales(const Forward& params, Flash_fwd_params& kernel) {
  if (!kernel.is_e4m3) return;
  kernel.q_descale_ptr = const_cast<float*>(params.q_descale.data);
  kernel.q_descale_batch_stride = params.q_descale.batch_stride;
  kernel.q_descale_head_stride = params.q_descale.head_stride;
  kernel.k_descale_ptr = const_cast<float*>(params.k_descale.data);
  kernel.k_descale_batch_stride = params.k_descale.batch_stride;
  kernel.k_descale_head_stride = params.k_descale.head_stride;
  kernel.v_descale_ptr = const_cast<float*>(params.v_descale.data);
  kernel.v_descale_batch_stride = params.v_descale.batch_stride;
  kernel.v_descale_head_stride = params.v_descale.head_stride;
}

void choose(const Forward& params, Flash_fwd_params& kernel) {
  const HeadDims dims = forward_kernel(kernel.d, kernel.dv, kernel.is_e4m3, kernel.arch >= 90);
  kernel.d_rounded = dims.qk;
  kernel.dv_rounded = dims.v;
  kernel.pagedkv_tma = tma_fetches_pages(kernel, dims);
  const bool splits = kSplit && can_split(params.problem);
  kernel.num_splits = params.num_splits > 0 ? params.num_splits : splits ? choose_splits(kernel, dims) : 1;
  kernel.pack_gqa = params.pack_gqa >= 0 ? params.pack_gqa == 1 : choose_packing(kernel, dims);
}

// The counter from which persistent thread blocks take their work.
bool needs_semaphore(const Flash_fwd_params& kernel) {
  const bool masked = kernel.is_causal || kernel.is_local;
  if (kernel.arch >= 90) return is_varlen(kernel) || (masked && kernel.num_splits == 1);
  return is_varlen(kernel) ? kernel.num_splits > 1 : kernel.is_causal;
}

// Where lengths vary a small kernel writes the schedule first: rows of one int a sequence, each row aligned to 16
// bytes.
void place_schedule(Workspace& workspace, ForwardPlan& plan) {
  Flash_fwd_params& kernel = plan.kernel;
  kernel.varlen_sort_batches = !kernel.is_local;
  kernel.head_swizzle = kernel.is_causal || kernel.is_local;
  const bool varlen = is_varlen(kernel);
  if (varlen) {
    const auto row = round_up(kernel.b, 4);
    int* rows = workspace.take<int>(4 * row);
    kernel.num_splits_dynamic_ptr = rows;
    kernel.num_m_blocks_ptr = rows + row;
    kernel.varlen_batch_idx_ptr = kernel.varlen_sort_batches ? rows + 2 * row : nullptr;
    kernel.num_nheads_in_l2_ptr = kernel.head_swizzle ? rows + 3 * row : nullptr;
    kernel.prepare_varlen_pdl = kernel.b <= kSequencesOfOnePreparingBlock;
  }
  if (needs_semaphore(kernel)) {
    kernel.tile_count_semaphore = workspace.take<int>(1);
    plan.clears_semaphore = !varlen;
  }
}

// What each split finds, in float, for the kernel that combines them.
void place_splits(Workspace& workspace, Flash_fwd_params& kernel) {
  if (kernel.num_splits <= 1) return;
  const bool packed = kernel.cu_seqlens_q != nullptr;
  const std::int64_t rows = packed ? kernel.total_q : kernel.seqlen_q;
  const std::int64_t heads_and_rows = kernel.h * rows;
  const std::int64_t split_rows = heads_and_rows * (packed ? 1 : kernel.b);
  kernel.oaccum_row_stride = kernel.dv;
  kernel.oaccum_head_stride = rows * kernel.dv;
  kernel.oaccum_batch_stride = packed ? 0 : heads_and_rows * kernel.dv;
  kernel.oaccum_split_stride = split_rows * kernel.dv;
  kernel.lseaccum_head_stride = rows;
  kernel.lseaccum_batch_stride = packed ? 0 : heads_and_rows;
  kernel.lseaccum_split_stride = split_rows;
  kernel.oaccum_ptr = workspace.take<float>(kernel.num_splits * split_rows * kernel.dv);
  kernel.softmax_lseaccum_ptr = workspace.take<float>(kernel.num_splits * split_rows);
}

}  // namespace

Status plan_forward(const Forward& params, const Device& device, void* base, ForwardPlan& plan) {
  const Problem& problem = params.problem;
  HOPPERFORGE_TRY(check_head_dims_on(problem, device.hopper()));
  if (!device.hopper() && problem.dtype == HOPPERFORGE_FA3_FLOAT8_E4M3) {
    return fail(HOPPERFORGE_FA3_UNSUPPORTED, "float8 kernels are for Hopper alone");
  }
  if (problem.sm_margin >= device.multiprocessors) {
    return fail(HOPPERFORGE_FA3_INVALID_ARGUMENT, "sm_margin is %d, and the device has %d multiprocessors",
                problem.sm_margin, device.multiprocessors);
  }
  Flash_fwd_params& kernel = plan.kernel;
  fill_problem(problem, forward_masks(problem, params.page_table != nullptr), device, kernel);
  kernel.scale_softmax = softmax_scale(params);
  fill_cache(params, kernel);
  fill_output(params.out, query_extents(problem, problem.head_dim_v), kernel);
  fill_appended(params, kernel);
  fill_rotary(params, kernel);
  fill_second_query(params, kernel);
  fill_descales(params, kernel);
  choose(params, kernel);

  Workspace workspace(base);
  place_schedule(workspace, plan);
  place_splits(workspace, kernel);
  const Extents queries = query_extents(problem, problem.head_dim);
  kernel.softmax_lse_ptr = params.softmax_lse != nullptr
                               ? params.softmax_lse
                               : workspace.take<float>(queries.batch * queries.rows * queries.heads);
  plan.workspace_bytes = workspace.used();
  return HOPPERFORGE_FA3_OK;
}

}  // namespace hopperforge::fa3
