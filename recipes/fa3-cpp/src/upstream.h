// Upstream's declarations of what the kernel pack holds.
#ifndef HOPPERFORGE_FA3_UPSTREAM_H
#define HOPPERFORGE_FA3_UPSTREAM_H

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>

#include "flash.h"
#include "heuristics.h"
#include "tile_size.h"

// They only name the kernels here. Their definitions would take CUTLASS's headers, for which g++ needs seconds.
namespace cutlass {
struct half_t;
struct bfloat16_t;
struct float_e4m3_t;
}  // namespace cutlass

#endif
