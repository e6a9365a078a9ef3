#include "device.h"

#include <cuda_runtime_api.h>

#include "built.h"

namespace hopperforge::fa3 {
namespace {

Status no_device(cudaError_t error) {
  return fail(HOPPERFORGE_FA3_NO_DEVICE,
              "this library needs a GPU of compute capability 9.0 (H100, H200) and a driver for CUDA %s, and found "
              "none that it can use: %s (%s)",
              HOPPERFORGE_CUDA, cudaGetErrorString(error), cudaGetErrorName(error));
}

Status read(int ordinal, Device& device) {
  int major = 0;
  int minor = 0;
  int multiprocessors = 0;
  cudaError_t error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, ordinal);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, ordinal);
  if (error != cudaSuccess) return no_device(error);
  // The code is sm_90a, which runs on 9.0 alone, and sm_80, which runs on every 8.x.
  if (!(major == 9 && minor == 0) && !(major == 8 && kSM80)) {
    return fail(HOPPERFORGE_FA3_WRONG_DEVICE,
                "this library, of profile `%s`, needs a GPU of compute capability 9.0 (H100, H200)%s, and device %d "
                "has %d.%d",
                HOPPERFORGE_PROFILE, kSM80 ? " or 8.x" : "", ordinal, major, minor);
  }
  device = Device{ordinal, 10 * major + minor, multiprocessors};
  return HOPPERFORGE_FA3_OK;
}

}  // namespace

Status current_device(Device& device) {
  thread_local Device known;
  int ordinal = -1;
  const cudaError_t error = cudaGetDevice(&ordinal);
  if (error != cudaSuccess) return no_device(error);
  if (ordinal != known.ordinal) HOPPERFORGE_TRY(read(ordinal, known));
  device = known;
  return HOPPERFORGE_FA3_OK;
}

}  // namespace hopperforge::fa3
