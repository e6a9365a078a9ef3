#include "checks_common.h"

#include <cinttypes>

#include "built.h"
#include "head_dims.h"

namespace hopperforge::fa3 {
namespace {

constexpr std::uintptr_t kAlignment = 16;                       // bytes; of TMA and of vector accesses
constexpr std::int64_t kLargestStride = std::int64_t{1} << 40;  // bytes; of TMA
constexpr std::int64_t kLargestCount = 2147483647;              // the kernels count rows in 32 bits

bool is_float8(const Problem& problem) { return problem.dtype == HOPPERFORGE_FA3_FLOAT8_E4M3; }

Status check_dtype(const Problem& problem) {
  switch (problem.dtype) {
    case HOPPERFORGE_FA3_BFLOAT16:
      return HOPPERFORGE_FA3_OK;
    case HOPPERFORGE_FA3_FLOAT16:
      return kFP16 ? HOPPERFORGE_FA3_OK : trimmed("float16", "FP16");
    case HOPPERFORGE_FA3_FLOAT8_E4M3:
      return kFP8 ? HOPPERFORGE_FA3_OK : trimmed("float8", "FP8");
  }
  return fail(HOPPERFORGE_FA3_UNSUPPORTED,
              "dtype is %d, and the kernels know float16 (0), bfloat16 (1) and float8_e4m3 (2)",
              static_cast<int>(problem.dtype));
}

Status check_sizes(const Problem& problem) {
  HOPPERFORGE_TRY(require_positive(problem.batch, "batch"));
  HOPPERFORGE_TRY(require_positive(problem.seqlen_q, "seqlen_q"));
  HOPPERFORGE_TRY(require_positive(problem.seqlen_k, "seqlen_k"));
  HOPPERFORGE_TRY(require_positive(problem.heads, "heads"));
  HOPPERFORGE_TRY(require_positive(problem.heads_k, "heads_k"));
  HOPPERFORGE_TRY(require_positive(problem.head_dim, "head_dim"));
  HOPPERFORGE_TRY(require_positive(problem.head_dim_v, "head_dim_v"));
  if (problem.cu_seqlens_q != nullptr) HOPPERFORGE_TRY(require_positive(problem.total_q, "total_q"));
  if (problem.cu_seqlens_k != nullptr) HOPPERFORGE_TRY(require_positive(problem.total_k, "total_k"));
  if (problem.heads % problem.heads_k != 0) {
    return fail(HOPPERFORGE_FA3_INVALID_ARGUMENT, "heads_k is %d, which does not divide heads, %d", problem.heads_k,
                problem.heads);
  }
  const Extents queries = query_extents(problem, problem.head_dim);
  // forward lays out a row for each (batch, head, query), and packed heads make a row of each of theirs
  if (queries.batch * queries.rows * queries.heads > kLargestCount ||
      std::int64_t{problem.seqlen_q} * problem.heads > kLargestCount) {
    return fail(HOPPERFORGE_FA3_UNSUPPORTED, "queries times heads are more than the kernels can count (%" PRId64 ")",
                kLargestCount);
  }
  return HOPPERFORGE_FA3_OK;
}

Status check_multiple(const Problem& problem, int head_dim, const char* name) {
  const int multiple = is_float8(problem) ? 16 : 8;
  if (head_dim % multiple != 0) {
    return fail(HOPPERFORGE_FA3_UNSUPPORTED, "%s is %d, and must be a multiple of %d for this dtype", name, head_dim,
                multiple);
  }
  return HOPPERFORGE_FA3_OK;
}

Status check_scales(const Problem& problem) {
  if (!(problem.softcap >= 0.0f) || problem.softmax_scale != problem.softmax_scale) {
    return fail(HOPPERFORGE_FA3_INVALID_ARGUMENT,
                "softcap is %g and softmax_scale %g: softcap is 0 or larger, and both are numbers",
                static_cast<double>(problem.softcap), static_cast<double>(problem.softmax_scale));
  }
  return !kSoftcap && problem.softcap > 0.0f ? trimmed("softcap", "SOFTCAP") : HOPPERFORGE_FA3_OK;
}

Status check_stride(std::int64_t extent, std::int64_t stride, int bytes, bool written, const char* name,
                    const char* which) {
  if (extent <= 1) return HOPPERFORGE_FA3_OK;
  if (stride < (written ? 1 : 0) || stride > kLargestStride / bytes) {
    return fail(HOPPERFORGE_FA3_INVALID_ARGUMENT, "the %s stride of %s is %" PRId64 " elements", which, name, stride);
  }
  if (stride * bytes % static_cast<std::int64_t>(kAlignment) != 0) {
    return fail(HOPPERFORGE_FA3_MISALIGNED,
                "the %s stride of %s is %" PRId64 " elements of %d bytes, which is no multiple of %d bytes", which,
                name, stride, bytes, static_cast<int>(kAlignment));
  }
  return HOPPERFORGE_FA3_OK;
}

}  // namespace

int element_bytes(const Problem& problem) { return is_float8(problem) ? 1 : 2; }

Extents query_extents(const Problem& problem, int head_dim) {
  if (problem.cu_seqlens_q != nullptr) return {1, problem.total_q, problem.heads, head_dim};
  return {problem.batch, problem.seqlen_q, problem.heads, head_dim};
}

Extents key_extents(const Problem& problem, int head_dim) {
  if (problem.cu_seqlens_k != nullptr) return {1, problem.total_k, problem.heads_k, head_dim};
  return {problem.batch, problem.seqlen_k, problem.heads_k, head_dim};
}

Status require_pointer(const void* pointer, const char* name) {
  return pointer == nullptr ? fail(HOPPERFORGE_FA3_INVALID_ARGUMENT, "%s is null", name) : HOPPERFORGE_FA3_OK;
}

Status require_aligned(const void* pointer, const char* name) {
  if (reinterpret_cast<std::uintptr_t>(pointer) % kAlignment == 0) return HOPPERFORGE_FA3_OK;
  return fail(HOPPERFORGE_FA3_MISALIGNED, "%s is at %p, which is no multiple of %d bytes", name, pointer,
              static_cast<int>(kAlignment));
}

Status require_positive(std::int64_t value, const char* name) {
  return value > 0 ? HOPPERFORGE_FA3_OK
                   : fail(HOPPERFORGE_FA3_INVALID_ARGUMENT, "%s is %" PRId64 ", and must be at least 1", name, value);
}

Status check_tensor(const Tensor& tensor, const Extents& extents, int bytes, bool written, const char* name) {
  HOPPERFORGE_TRY(require_pointer(tensor.data, name));
  HOPPERFORGE_TRY(require_aligned(tensor.data, name));
  HOPPERFORGE_TRY(check_stride(extents.batch, tensor.batch_stride, bytes, written, name, "batch"));
  HOPPERFORGE_TRY(check_stride(extents.rows, tensor.row_stride, bytes, written, name, "row"));
  return check_stride(extents.heads, tensor.head_stride, bytes, written, name, "head");
}

Status check_problem(const Problem& problem) {
  HOPPERFORGE_TRY(check_dtype(problem));
  HOPPERFORGE_TRY(check_sizes(problem));
  HOPPERFORGE_TRY(check_multiple(problem, problem.head_dim, "head_dim"));
  HOPPERFORGE_TRY(check_multiple(problem, problem.head_dim_v, "head_dim_v"));
  HOPPERFORGE_TRY(check_scales(problem));
  const bool varlen = problem.cu_seqlens_q != nullptr || problem.cu_seqlens_k != nullptr ||
                      problem.seqused_q != nullptr || problem.seqused_k != nullptr;
  if (!kVarlen && varlen) return trimmed("sequences of different lengths", "VARLEN");
  if (problem.window_left < -1 || problem.window_right < -1) {
    return fail(HOPPERFORGE_FA3_INVALID_ARGUMENT, "the window is (%d, %d); -1 is no limit, and less means nothing",
                problem.window_left, problem.window_right);
  }
  if (problem.sm_margin < 0) return fail(HOPPERFORGE_FA3_INVALID_ARGUMENT, "sm_margin is %d", problem.sm_margin);
  return HOPPERFORGE_FA3_OK;
}

}  // namespace hopperforge::fa3
