// Backward attention: what a call comes to on a device, and its launch.
#ifndef HOPPERFORGE_FA3_BACKWARD_H
#define HOPPERFORGE_FA3_BACKWARD_H

#include <cstddef>

#include "device.h"
#include "status.h"
#include "upstream.h"

namespace hopperforge::fa3 {

struct BackwardPlan {
  Flash_bwd_params kernel = {};
  std::size_t workspace_bytes = 0;
  void* cleared = nullptr;  // what must be zero before the kernels run
  std::size_t cleared_bytes = 0;
};

// As plan_forward and launch_forward.
Status plan_backward(const hopperforge_fa3_backward_params& params, const Device& device, void* workspace,
                     BackwardPlan& plan);
void launch_backward(BackwardPlan& plan, cudaStream_t stream);

}  // namespace hopperforge::fa3

#endif
