#include "masks.h"

#include <algorithm>

namespace hopperforge::fa3 {
namespace {

Masks bring_to_form(const hopperforge_fa3_problem& problem, bool single_query_needs_no_mask, int chunk) {
  // a window that reaches past every key or query limits nothing
  int left = problem.window_left >= problem.seqlen_k - 1 ? -1 : problem.window_left;
  int right = problem.window_right >= problem.seqlen_q - 1 ? -1 : problem.window_right;
  const bool unlimited = left < 0 && right < 0 && chunk == 0;
  if (problem.causal != 0 && !(single_query_needs_no_mask && unlimited && problem.seqlen_q == 1)) right = 0;

  Masks masks;
  masks.causal = left < 0 && right == 0 && chunk == 0;
  masks.local = !masks.causal && (left >= 0 || right >= 0 || chunk > 0);
  masks.left = left < 0 ? problem.seqlen_k - 1 : left;
  masks.right = right < 0 ? problem.seqlen_q - 1 : right;
  masks.chunk = chunk;
  if (chunk > 0) {
    masks.left = std::min(masks.left, chunk - 1);
    masks.right = std::min(masks.right, chunk - 1);
  }
  return masks;
}

}  // namespace

Masks forward_masks(const hopperforge_fa3_problem& problem, bool paged) {
  const bool tiles_suit_pages = paged && problem.head_dim > 64 && problem.head_dim <= 128;
  return bring_to_form(problem, !tiles_suit_pages, problem.attention_chunk);
}

Masks backward_masks(const hopperforge_fa3_problem& problem) { return bring_to_form(problem, false, 0); }

}  // namespace hopperforge::fa3
