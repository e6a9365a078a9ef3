// The caller's current device: what the kernels' launch depends on.
#ifndef HOPPERFORGE_FA3_DEVICE_H
#define HOPPERFORGE_FA3_DEVICE_H

#include "status.h"

namespace hopperforge::fa3 {

struct Device {
  int ordinal = -1;
  int architecture = 0;  // 90 for compute capability 9.0
  int multiprocessors = 0;

  bool hopper() const { return architecture == 90; }
};

// Look at the current device, or say why it cannot run these kernels. Asks the driver once for each device and thread.
Status current_device(Device& device);

}  // namespace hopperforge::fa3

#endif
