#include "checks.h"

#include <algorithm>
#include <cinttypes>

#include "built.h"
#include "checks_common.h"
#include "head_dims.h"
#include "masks.h"

namespace hopperforge::fa3 {
namespace {

using Forward = ::hopperforge_fa3_forward_params;
using Backward = ::hopperforge_fa3_backward_params;

constexpr int kMostSplits = 256;
constexpr int kLargestHeadDim = 256;
constexpr int kOutputBytes = 2;

Status head_dim_too_large(const char* name, int head_dim, const char* profile) {
  if (head_dim > kLargestHeadDim) {
    return fail(HOPPERFORGE_FA3_UNSUPPORTED, "%s is %d, and no profile has kernels for more than %d", name, head_dim,
                kLargestHeadDim);
  }
  return fail(
      HOPPERFORGE_FA3_TRIMMED,
      "this library is of profile `%s`, which holds kernels for head dimensions up to %d, and %s is %d: use one "
      "of profile `%s`",
      HOPPERFORGE_PROFILE, largest_head_dim(), name, head_dim, profile);
}

// Heads of values may differ from those of keys only as upstream's kernels do.
Status check_forward_head_dims(const Problem& problem, bool hopper) {
  const int qk = problem.head_dim;
  const int v = problem.head_dim_v;
  const bool float8 = problem.dtype == HOPPERFORGE_FA3_FLOAT8_E4M3;
  if (compiled_head_dim(qk) == 0) return head_dim_too_large("head_dim", qk, "inference");
  if (qk == v) return HOPPERFORGE_FA3_OK;
  const bool small_keys = qk <= 64 && v <= 512;
  const bool small_values = qk > 128 && qk <= 192 && v > 96 && v <= 128;
  if (!hopper || !(small_keys || small_values)) {
    return fail(HOPPERFORGE_FA3_UNSUPPORTED,
                "head_dim is %d and head_dim_v %d: they may differ on Hopper alone, with head_dim up to 64 and "
                "head_dim_v up to 512, or with head_dim above 128 up to 192 and head_dim_v above 96 up to 128",
                qk, v);
  }
  if (v <= forward_kernel(qk, v, float8, hopper).v) return HOPPERFORGE_FA3_OK;
  if (float8) {
    return fail(HOPPERFORGE_FA3_UNSUPPORTED, "no profile has float8 kernels for head_dim %d with head_dim_v %d", qk, v);
  }
  return kHDim64 ? trimmed("value heads above 64 beside heads up to 64", "HDIMDIFF64")
                 : trimmed("head dimension 64", "HDIM64");
}

Status check_masks(const Masks& masks) {
  return !kLocal && masks.local ? trimmed("local attention", "LOCAL") : HOPPERFORGE_FA3_OK;
}

Status check_pages(const Forward& params) {
  const Problem& problem = params.problem;
  if (!kPagedKV) return trimmed("a paged KV cache", "PAGEDKV");
  HOPPERFORGE_TRY(require_positive(params.page_size, "page_size"));
  HOPPERFORGE_TRY(require_positive(params.pages, "pages"));
  if (problem.seqlen_k % params.page_size != 0 || params.page_table_stride < problem.seqlen_k / params.page_size) {
    return fail(HOPPERFORGE_FA3_INVALID_ARGUMENT,
                "page_table has rows %" PRId64
                " apart for %d keys in pages of %d: with pages, seqlen_k is the pages of "
                "a sequence times page_size",
                params.page_table_stride, problem.seqlen_k, params.page_size);
  }
  if (problem.cu_seqlens_k != nullptr) {
    return fail(HOPPERFORGE_FA3_INVALID_ARGUMENT, "page_table and cu_seqlens_k are both given");
  }
  return HOPPERFORGE_FA3_OK;
}

Status check_batch_index(const Forward& params) {
  HOPPERFORGE_TRY(require_positive(params.batch_k, "batch_k"));
  if (params.problem.cu_seqlens_k != nullptr) {
    return fail(HOPPERFORGE_FA3_INVALID_ARGUMENT, "batch_index_k and cu_seqlens_k are both given");
  }
  return HOPPERFORGE_FA3_OK;
}

Extents cache_extents(const Forward& params, int head_dim) {
  Extents extents = key_extents(params.problem, head_dim);
  if (params.page_table != nullptr) {
    extents.batch = params.pages;
    extents.rows = params.page_size;
  } else if (params.batch_index_k != nullptr) {
    extents.batch = params.batch_k;
  }
  return extents;
}

Extents new_extents(const Forward& params, int head_dim) {
  const Problem& problem = params.problem;
  if (params.cu_seqlens_k_new != nullptr) return {1, params.total_k_new, problem.heads_k, head_dim};
  return {problem.batch, params.seqlen_k_new, problem.heads_k, head_dim};
}

Status check_rotary(const Forward& params) {
  const Problem& problem = params.problem;
  HOPPERFORGE_TRY(require_pointer(params.rotary_cos, "rotary_cos"));
  HOPPERFORGE_TRY(require_pointer(params.rotary_sin, "rotary_sin"));
  HOPPERFORGE_TRY(require_aligned(params.rotary_cos, "rotary_cos"));
  HOPPERFORGE_TRY(require_aligned(params.rotary_sin, "rotary_sin"));
  if (params.k_new.data == nullptr) {
    return fail(HOPPERFORGE_FA3_INVALID_ARGUMENT, "a rotary embedding is given without new keys (k_new)");
  }
  if (params.rotary_dim < 16 || params.rotary_dim % 16 != 0 || params.rotary_dim > problem.head_dim) {
    return fail(HOPPERFORGE_FA3_UNSUPPORTED, "rotary_dim is %d, and must be a multiple of 16 up to head_dim, %d",
                params.rotary_dim, problem.head_dim);
  }
  if (params.page_table != nullptr && params.rotary_seqlen < problem.seqlen_k) {
    return fail(HOPPERFORGE_FA3_INVALID_ARGUMENT, "rotary_seqlen is %d, less than the %d keys a sequence has pages for",
                params.rotary_seqlen, problem.seqlen_k);
  }
  return require_positive(params.rotary_seqlen, "rotary_seqlen");
}

Status check_appended(const Forward& params) {
  const Problem& problem = params.problem;
  if (!kAppendKV) return trimmed("appending to the KV cache", "APPENDKV");
  HOPPERFORGE_TRY(require_pointer(problem.seqused_k, "seqused_k, which says where new keys go,"));
  const bool packed = params.cu_seqlens_k_new != nullptr;
  HOPPERFORGE_TRY(packed ? require_positive(params.total_k_new, "total_k_new")
                         : require_positive(params.seqlen_k_new, "seqlen_k_new"));
  if (problem.seqlen_q > problem.seqlen_k || problem.cu_seqlens_k != nullptr) {
    return fail(
        HOPPERFORGE_FA3_INVALID_ARGUMENT,
        "new keys are given: the cache must not be packed, and hold at least seqlen_q keys (%d, and seqlen_k is %d)",
        problem.seqlen_q, problem.seqlen_k);
  }
  const int bytes = element_bytes(problem);
  HOPPERFORGE_TRY(check_tensor(params.k_new, new_extents(params, problem.head_dim), bytes, false, "k_new"));
  return check_tensor(params.v_new, new_extents(params, problem.head_dim_v), bytes, false, "v_new");
}

Status check_second_query(const Forward& params) {
  const Problem& problem = params.problem;
  if (problem.dtype == HOPPERFORGE_FA3_FLOAT8_E4M3 || problem.head_dim > 64 || problem.head_dim_v < 256) {
    return fail(HOPPERFORGE_FA3_UNSUPPORTED,
                "qv is for float16 and bfloat16 with head_dim up to 64 and head_dim_v of 256 or more");
  }
  return check_tensor(params.qv, query_extents(problem, problem.head_dim_v), element_bytes(problem), false, "qv");
}

Status check_choices(const Forward& params) {
  if (params.num_splits < 0 || params.num_splits > kMostSplits) {
    return fail(HOPPERFORGE_FA3_INVALID_ARGUMENT, "num_splits is %d, and must be 0 to %d", params.num_splits,
                kMostSplits);
  }
  if (!kSplit && params.num_splits > 1) return trimmed("split KV", "SPLIT");
  if (params.num_splits > 1 && !can_split(params.problem)) {
    return fail(HOPPERFORGE_FA3_UNSUPPORTED,
                "num_splits is %d, with seqused_q but without packed queries (cu_seqlens_q)", params.num_splits);
  }
  if (params.pack_gqa < -1 || params.pack_gqa > 1) {
    return fail(HOPPERFORGE_FA3_INVALID_ARGUMENT, "pack_gqa is %d, and must be -1, 0 or 1", params.pack_gqa);
  }
  // pages and splits always have packed heads, whatever the switch
  const bool packed_anyway = params.page_table != nullptr || params.num_splits > 1;
  if (!kPackGQA && params.pack_gqa == 1 && !packed_anyway) return trimmed("packed query heads", "PACKGQA");
  return HOPPERFORGE_FA3_OK;
}

Status check_options(const Forward& params) {
  const Problem& problem = params.problem;
  if (problem.attention_chunk < 0) {
    return fail(HOPPERFORGE_FA3_INVALID_ARGUMENT, "attention_chunk is %d", problem.attention_chunk);
  }
  if (params.page_table != nullptr) HOPPERFORGE_TRY(check_pages(params));
  HOPPERFORGE_TRY(check_masks(forward_masks(problem, params.page_table != nullptr)));
  if (!kVarlen && params.leftpad_k != nullptr) return trimmed("sequences of different lengths", "VARLEN");
  if (params.batch_index_k != nullptr) HOPPERFORGE_TRY(check_batch_index(params));
  if (params.k_new.data != nullptr || params.v_new.data != nullptr) HOPPERFORGE_TRY(check_appended(params));
  if (params.rotary_cos != nullptr || params.rotary_sin != nullptr) HOPPERFORGE_TRY(check_rotary(params));
  if (params.qv.data != nullptr) HOPPERFORGE_TRY(check_second_query(params));
  return check_choices(params);
}

Status check_bytes(std::size_t found, std::size_t expected, const char* name) {
  if (found == expected) return HOPPERFORGE_FA3_OK;
  return fail(HOPPERFORGE_FA3_WRONG_VERSION,
              "%s.size is %zu, and is %zu in interface %d, which this library has: fill it in with the _defaults "
              "function, and compile with the library's own header",
              name, found, expected, HOPPERFORGE_FA3_INTERFACE);
}

Status check_backward_limits(const Backward& params) {
  const Problem& problem = params.problem;
  if (!kBackward) return trimmed("the backward pass", "BACKWARD");
  if (problem.dtype == HOPPERFORGE_FA3_FLOAT8_E4M3) {
    return fail(HOPPERFORGE_FA3_UNSUPPORTED, "no profile has a backward pass for float8");
  }
  const int head_dim = std::max(problem.head_dim, problem.head_dim_v);
  if (compiled_head_dim(head_dim) == 0)
    return head_dim_too_large("the larger of head_dim and head_dim_v", head_dim, "full");
  if (params.deterministic != 0 && compiled_head_dim(head_dim) == 256) {
    return fail(HOPPERFORGE_FA3_UNSUPPORTED, "deterministic is for head dimensions up to 192, and this one is %d",
                head_dim);
  }
  if (problem.attention_chunk != 0) {
    return fail(HOPPERFORGE_FA3_UNSUPPORTED, "attention_chunk has no backward pass");
  }
  // the kernels look at seqused only where they look at cu_seqlens, and would give wrong gradients
  const bool packed = problem.cu_seqlens_q != nullptr || problem.cu_seqlens_k != nullptr;
  if (!packed && (problem.seqused_q != nullptr || problem.seqused_k != nullptr)) {
    return fail(HOPPERFORGE_FA3_UNSUPPORTED, "seqused has a backward pass with packed sequences (cu_seqlens) alone");
  }
  return HOPPERFORGE_FA3_OK;
}

}  // namespace

Status check_head_dims_on(const Problem& problem, bool hopper) { return check_forward_head_dims(problem, hopper); }

Status check_forward(const Forward* params) {
  HOPPERFORGE_TRY(require_pointer(params, "params"));
  HOPPERFORGE_TRY(check_bytes(params->size, sizeof(Forward), "params"));
  const Problem& problem = params->problem;
  HOPPERFORGE_TRY(check_problem(problem));
  HOPPERFORGE_TRY(check_forward_head_dims(problem, true));
  HOPPERFORGE_TRY(check_options(*params));
  const int bytes = element_bytes(problem);
  const bool appends = params->k_new.data != nullptr;
  HOPPERFORGE_TRY(check_tensor(params->q, query_extents(problem, problem.head_dim), bytes, false, "q"));
  HOPPERFORGE_TRY(check_tensor(params->k, cache_extents(*params, problem.head_dim), bytes, appends, "k"));
  HOPPERFORGE_TRY(check_tensor(params->v, cache_extents(*params, problem.head_dim_v), bytes, appends, "v"));
  return check_tensor(params->out, query_extents(problem, problem.head_dim_v), kOutputBytes, true, "out");
}

Status check_backward(const Backward* params) {
  HOPPERFORGE_TRY(require_pointer(params, "params"));
  HOPPERFORGE_TRY(check_bytes(params->size, sizeof(Backward), "params"));
  const Problem& problem = params->problem;
  HOPPERFORGE_TRY(check_problem(problem));
  HOPPERFORGE_TRY(check_backward_limits(*params));
  HOPPERFORGE_TRY(check_masks(backward_masks(problem)));
  HOPPERFORGE_TRY(require_pointer(params->softmax_lse, "softmax_lse"));
  const Extents queries = query_extents(problem, problem.head_dim);
  const Extents outputs = query_extents(problem, problem.head_dim_v);
  const Extents keys = key_extents(problem, problem.head_dim);
  const Extents values = key_extents(problem, problem.head_dim_v);
  HOPPERFORGE_TRY(check_tensor(params->q, queries, kOutputBytes, false, "q"));
  HOPPERFORGE_TRY(check_tensor(params->k, keys, kOutputBytes, false, "k"));
  HOPPERFORGE_TRY(check_tensor(params->v, values, kOutputBytes, false, "v"));
  HOPPERFORGE_TRY(check_tensor(params->out, outputs, kOutputBytes, false, "out"));
  HOPPERFORGE_TRY(check_tensor(params->dout, outputs, kOutputBytes, false, "dout"));
  HOPPERFORGE_TRY(check_tensor(params->dq, queries, kOutputBytes, true, "dq"));
  HOPPERFORGE_TRY(check_tensor(params->dk, keys, kOutputBytes, true, "dk"));
  return check_tensor(params->dv, values, kOutputBytes, true, "dv");
}

}  // namespace hopperforge::fa3
