// The library's whole interface; nothing else of it is exported (exports.map).
#include <cuda_runtime_api.h>

#include <cstdint>

#include "backward.h"
#include "built.h"
#include "checks.h"
#include "device.h"
#include "forward.h"
#include "launching.h"
#include "status.h"
#include "workspace.h"

namespace hopperforge::fa3 {
namespace {

using Forward = ::hopperforge_fa3_forward_params;
using Backward = ::hopperforge_fa3_backward_params;

Status check_workspace(const void* workspace, std::size_t given, std::size_t needed) {
  if (given < needed || (needed > 0 && workspace == nullptr)) {
    return fail(HOPPERFORGE_FA3_WORKSPACE_TOO_SMALL, "the call needs a workspace of %zu bytes, and %s", needed,
                workspace == nullptr ? "it is null" : "it is smaller");
  }
  if (reinterpret_cast<std::uintptr_t>(workspace) % Workspace::kAlignment != 0) {
    return fail(HOPPERFORGE_FA3_MISALIGNED, "the workspace is at %p, which is no multiple of %zu bytes", workspace,
                Workspace::kAlignment);
  }
  return HOPPERFORGE_FA3_OK;
}

Status clear(void* memory, std::size_t bytes, cudaStream_t stream) {
  const cudaError_t error = cudaMemsetAsync(memory, 0, bytes, stream);
  if (error == cudaSuccess) return HOPPERFORGE_FA3_OK;
  return fail(HOPPERFORGE_FA3_LAUNCH_FAILED, "clearing the workspace did not start: %s (%s)", cudaGetErrorString(error),
              cudaGetErrorName(error));
}

Status plan(const Forward* params, void* workspace, ForwardPlan& made) {
  HOPPERFORGE_TRY(check_forward(params));
  Device device;
  HOPPERFORGE_TRY(current_device(device));
  return plan_forward(*params, device, workspace, made);
}

Status plan(const Backward* params, void* workspace, BackwardPlan& made) {
  HOPPERFORGE_TRY(check_backward(params));
  Device device;
  HOPPERFORGE_TRY(current_device(device));
  return plan_backward(*params, device, workspace, made);
}

// The sizes of a call, found in the same way as the call itself finds them.
template <typename Plan, typename Params>
Status workspace_bytes(const Params* params, std::size_t* bytes) {
  if (bytes == nullptr) return fail(HOPPERFORGE_FA3_INVALID_ARGUMENT, "bytes is null");
  Plan made;
  HOPPERFORGE_TRY(plan(params, nullptr, made));
  *bytes = made.workspace_bytes;
  return HOPPERFORGE_FA3_OK;
}

Status forward(const Forward* params, void* workspace, std::size_t bytes, cudaStream_t stream) {
  ForwardPlan made;
  HOPPERFORGE_TRY(plan(params, workspace, made));
  HOPPERFORGE_TRY(check_workspace(workspace, bytes, made.workspace_bytes));
  if (made.clears_semaphore) HOPPERFORGE_TRY(clear(made.kernel.tile_count_semaphore, sizeof(int), stream));
  return guarded([&] { launch_forward(made, stream); });
}

Status backward(const Backward* params, void* workspace, std::size_t bytes, cudaStream_t stream) {
  BackwardPlan made;
  HOPPERFORGE_TRY(plan(params, workspace, made));
  HOPPERFORGE_TRY(check_workspace(workspace, bytes, made.workspace_bytes));
  if (made.cleared_bytes > 0) HOPPERFORGE_TRY(clear(made.cleared, made.cleared_bytes, stream));
  return guarded([&] { launch_backward(made, stream); });
}

// No exception may cross a C interface; upstream's choice of splits allocates a little memory of the host.
template <typename Call>
Status at_boundary(const Call& call) {
  try {
    return call();
  } catch (...) {
    return fail(HOPPERFORGE_FA3_INTERNAL, "the library ran out of the host's memory");
  }
}

}  // namespace
}  // namespace hopperforge::fa3

using namespace hopperforge::fa3;

extern "C" {

hopperforge_fa3_build hopperforge_fa3_get_build(void) {
  return {HOPPERFORGE_FA3_INTERFACE, HOPPERFORGE_VERSION, HOPPERFORGE_PROFILE, switches(), HOPPERFORGE_CUDA};
}

const char* hopperforge_fa3_status_name(hopperforge_fa3_status status) {
  switch (status) {
    case HOPPERFORGE_FA3_OK:
      return "OK";
    case HOPPERFORGE_FA3_INVALID_ARGUMENT:
      return "INVALID_ARGUMENT";
    case HOPPERFORGE_FA3_MISALIGNED:
      return "MISALIGNED";
    case HOPPERFORGE_FA3_UNSUPPORTED:
      return "UNSUPPORTED";
    case HOPPERFORGE_FA3_TRIMMED:
      return "TRIMMED";
    case HOPPERFORGE_FA3_WORKSPACE_TOO_SMALL:
      return "WORKSPACE_TOO_SMALL";
    case HOPPERFORGE_FA3_NO_DEVICE:
      return "NO_DEVICE";
    case HOPPERFORGE_FA3_WRONG_DEVICE:
      return "WRONG_DEVICE";
    case HOPPERFORGE_FA3_LAUNCH_FAILED:
      return "LAUNCH_FAILED";
    case HOPPERFORGE_FA3_WRONG_VERSION:
      return "WRONG_VERSION";
    case HOPPERFORGE_FA3_INTERNAL:
      return "INTERNAL";
  }
  return "UNKNOWN";
}

const char* hopperforge_fa3_message(void) { return message(); }

void hopperforge_fa3_forward_defaults(hopperforge_fa3_forward_params* params) {
  if (params == nullptr) return;
  *params = hopperforge_fa3_forward_params{};
  params->size = sizeof *params;
  params->problem.dtype = HOPPERFORGE_FA3_BFLOAT16;
  params->problem.window_left = -1;
  params->problem.window_right = -1;
  params->pack_gqa = -1;
}

void hopperforge_fa3_backward_defaults(hopperforge_fa3_backward_params* params) {
  if (params == nullptr) return;
  *params = hopperforge_fa3_backward_params{};
  params->size = sizeof *params;
  params->problem.dtype = HOPPERFORGE_FA3_BFLOAT16;
  params->problem.window_left = -1;
  params->problem.window_right = -1;
}

hopperforge_fa3_status hopperforge_fa3_forward_check(const hopperforge_fa3_forward_params* params) {
  return check_forward(params);
}

hopperforge_fa3_status hopperforge_fa3_backward_check(const hopperforge_fa3_backward_params* params) {
  return check_backward(params);
}

hopperforge_fa3_status hopperforge_fa3_forward_workspace(const hopperforge_fa3_forward_params* params, size_t* bytes) {
  return at_boundary([&] { return workspace_bytes<ForwardPlan>(params, bytes); });
}

hopperforge_fa3_status hopperforge_fa3_backward_workspace(const hopperforge_fa3_backward_params* params,
                                                          size_t* bytes) {
  return at_boundary([&] { return workspace_bytes<BackwardPlan>(params, bytes); });
}

hopperforge_fa3_status hopperforge_fa3_forward(const hopperforge_fa3_forward_params* params, void* workspace,
                                               size_t workspace_bytes, hopperforge_fa3_stream stream) {
  return at_boundary([&] { return forward(params, workspace, workspace_bytes, stream); });
}

hopperforge_fa3_status hopperforge_fa3_backward(const hopperforge_fa3_backward_params* params, void* workspace,
                                                size_t workspace_bytes, hopperforge_fa3_stream stream) {
  return at_boundary([&] { return backward(params, workspace, workspace_bytes, stream); });
}

}  // extern "C"
