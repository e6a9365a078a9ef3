// The parameters that forward and backward kernels share.
#ifndef HOPPERFORGE_FA3_KERNEL_PARAMS_H
#define HOPPERFORGE_FA3_KERNEL_PARAMS_H

#include <cstdint>

#include "checks_common.h"
#include "device.h"
#include "masks.h"
#include "upstream.h"

namespace hopperforge::fa3 {

// A stride is read where the extent is more than one; elsewhere it may be anything, and TMA must not see that.
inline std::int64_t stride(std::int64_t extent, std::int64_t given) { return extent > 1 ? given : 0; }

void fill_problem(const Problem& problem, const Masks& masks, const Device& device, Flash_fwd_params& kernel);

void fill_inputs(const Tensor& q, const Extents& queries, const Tensor& k, const Extents& keys, const Tensor& v,
                 const Extents& values, Qkv_params& kernel);

void fill_output(const Tensor& out, const Extents& extents, Flash_fwd_params& kernel);

inline std::int64_t ceil_div(std::int64_t value, std::int64_t divisor) { return (value + divisor - 1) / divisor; }
inline std::int64_t round_up(std::int64_t value, std::int64_t multiple) { return ceil_div(value, multiple) * multiple; }

}  // namespace hopperforge::fa3

#endif
