// Everything about a call that can be judged without a device.
#ifndef HOPPERFORGE_FA3_CHECKS_H
#define HOPPERFORGE_FA3_CHECKS_H

#include "status.h"

namespace hopperforge::fa3 {

Status check_forward(const hopperforge_fa3_forward_params* params);
Status check_backward(const hopperforge_fa3_backward_params* params);

// Head dimensions whose kernels are for Hopper alone, on another device.
Status check_head_dims_on(const hopperforge_fa3_problem& problem, bool hopper);

}  // namespace hopperforge::fa3

#endif
