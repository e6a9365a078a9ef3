// Which compiled kernel serves which head dimensions.
#ifndef HOPPERFORGE_FA3_HEAD_DIMS_H
#define HOPPERFORGE_FA3_HEAD_DIMS_H

#include "built.h"

namespace hopperforge::fa3 {

struct HeadDims {
  int qk = 0;  // 0: none
  int v = 0;
};

// The smallest compiled head dimension that holds `head_dim`; 0 where there is none.
constexpr int compiled_head_dim(int head_dim) {
  if (kHDim64 && head_dim <= 64) return 64;
  if (kHDim96 && head_dim <= 96) return 96;
  if (kHDim128 && head_dim <= 128) return 128;
  if (kHDim192 && head_dim <= 192) return 192;
  if (kHDim256 && head_dim <= 256) return 256;
  return 0;
}

constexpr int largest_head_dim() {
  return kHDim256 ? 256 : kHDim192 ? 192 : kHDim128 ? 128 : kHDim96 ? 96 : kHDim64 ? 64 : 0;
}

// The kernel that forward runs. Those with another dimension for values are for Hopper alone:
//
//     qk      v          kernel       condition
//     64      > 256      (64, 512)    HDIMDIFF64, no float8
//     64      65..256    (64, 256)    HDIMDIFF64, no float8
//     192     <= 128     (192, 128)   HDIMDIFF192
//     any     any        (qk, qk)     otherwise; its v may be too small, which checks refuse
constexpr HeadDims forward_kernel(int head_dim, int head_dim_v, bool float8, bool hopper) {
  const int qk = compiled_head_dim(head_dim);
  if (hopper && kHDimDiff64 && !float8 && qk == 64 && head_dim_v > 64) return {64, head_dim_v > 256 ? 512 : 256};
  if (hopper && kHDimDiff192 && qk == 192 && head_dim_v <= 128) return {192, 128};
  return {qk, qk};
}

}  // namespace hopperforge::fa3

#endif
