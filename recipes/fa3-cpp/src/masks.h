// What of the scores is masked, brought to the one form that the kernels and the choice of their tiles rely on.
#ifndef HOPPERFORGE_FA3_MASKS_H
#define HOPPERFORGE_FA3_MASKS_H

#include "hopperforge/flash_attention_c.h"

namespace hopperforge::fa3 {

struct Masks {
  bool causal = false;
  bool local = false;
  int left = 0;  // keys to the left and right, without limit as many as there are
  int right = 0;
  int chunk = 0;
};

// Forward: a single query is causal by itself, and its kernel without the mask is as good, but for head dimension 128
// over pages, where the causal kernel has the tiles that suit pages.
Masks forward_masks(const hopperforge_fa3_problem& problem, bool paged);

Masks backward_masks(const hopperforge_fa3_problem& problem);

}  // namespace hopperforge::fa3

#endif
