// Forward attention: what a call comes to on a device, and its launch.
#ifndef HOPPERFORGE_FA3_FORWARD_H
#define HOPPERFORGE_FA3_FORWARD_H

#include <cstddef>

#include "device.h"
#include "status.h"
#include "upstream.h"

namespace hopperforge::fa3 {

struct ForwardPlan {
  Flash_fwd_params kernel = {};
  std::size_t workspace_bytes = 0;
  bool clears_semaphore = false;  // else a kernel does, or none is used
};

// Plan checked parameters. Pointers into the workspace are right for the one given; null only counts its bytes.
Status plan_forward(const hopperforge_fa3_forward_params& params, const Device& device, void* workspace,
                    ForwardPlan& plan);

// Put the kernels on the stream; throws nothing, and ends the process where a launch fails (see launching.h).
void launch_forward(ForwardPlan& plan, cudaStream_t stream);

}  // namespace hopperforge::fa3

#endif
