// The checks that forward and backward share.
#ifndef HOPPERFORGE_FA3_CHECKS_COMMON_H
#define HOPPERFORGE_FA3_CHECKS_COMMON_H

#include <cstdint>

#include "status.h"

namespace hopperforge::fa3 {

using Problem = ::hopperforge_fa3_problem;
using Tensor = ::hopperforge_fa3_tensor;

// The extents that a tensor's strides belong to; `batch` is 1 where sequences are packed.
struct Extents {
  std::int64_t batch;
  std::int64_t rows;
  std::int64_t heads;
  std::int64_t head_dim;
};

int element_bytes(const Problem& problem);

Extents query_extents(const Problem& problem, int head_dim);
Extents key_extents(const Problem& problem, int head_dim);

// The kernel that combines splits takes seqused_q for a sign of packed queries, and would combine the first sequence's
// for every other.
inline bool can_split(const Problem& problem) {
  return problem.seqused_q == nullptr || problem.cu_seqlens_q != nullptr;
}

// Types, sizes, counts, and what this profile holds for them.
Status check_problem(const Problem& problem);

Status require_pointer(const void* pointer, const char* name);
Status require_aligned(const void* pointer, const char* name);

// A tensor is there, and its pointer and strides are aligned; `written` also asks that no two elements are one.
Status check_tensor(const Tensor& tensor, const Extents& extents, int element_bytes, bool written, const char* name);

Status require_positive(std::int64_t value, const char* name);

}  // namespace hopperforge::fa3

#endif
