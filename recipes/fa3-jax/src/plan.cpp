// What Python asks while it traces, where there may be no GPU: whether a call can be served, and its workspace.
#include "backward.h"
#include "checks.h"
#include "forward.h"
#include "request.h"
#include "workspace.h"

namespace hopperforge::fa3_jax {
namespace {

// No workspace depends on the number of multiprocessors, for the number of splits is given; an H100 has so many.
constexpr fa3::Device kHopper{-1, 90, 132};
// XLA aligns results to less than the library asks for.
constexpr std::int64_t kRoomToAlign = fa3::Workspace::kAlignment;

// Stands for every array: checks want pointers that are there and aligned, and read nothing.
Arrays no_arrays(const Request &request) {
  void *somewhere = reinterpret_cast<void *>(fa3::Workspace::kAlignment);
  auto *numbers = static_cast<float *>(somewhere);
  Arrays arrays{somewhere, somewhere, somewhere, somewhere, numbers, somewhere, somewhere, somewhere, somewhere};
  if (request.packed != 0) {
    arrays.cu_seqlens_q = static_cast<const std::int32_t *>(somewhere);
    arrays.cu_seqlens_k = arrays.cu_seqlens_q;
  }
  return arrays;
}

Status plan_forward(const Request &request, std::int64_t &bytes) {
  hopperforge_fa3_forward_params params;
  HOPPERFORGE_TRY(forward_params(request, no_arrays(request), params));
  HOPPERFORGE_TRY(fa3::check_forward(&params));
  fa3::ForwardPlan plan;
  HOPPERFORGE_TRY(fa3::plan_forward(params, kHopper, nullptr, plan));
  bytes = static_cast<std::int64_t>(plan.workspace_bytes) + kRoomToAlign;
  return HOPPERFORGE_FA3_OK;
}

Status plan_backward(const Request &request, std::int64_t &bytes) {
  hopperforge_fa3_backward_params params;
  HOPPERFORGE_TRY(backward_params(request, no_arrays(request), params));
  HOPPERFORGE_TRY(fa3::check_backward(&params));
  fa3::BackwardPlan plan;
  HOPPERFORGE_TRY(fa3::plan_backward(params, kHopper, nullptr, plan));
  bytes = static_cast<std::int64_t>(plan.workspace_bytes) + kRoomToAlign;
  return HOPPERFORGE_FA3_OK;
}

}  // namespace
}  // namespace hopperforge::fa3_jax

extern "C" {

// The status of a call: 0, and the bytes its workspace needs on any GPU of compute capability 9.0; or another, and
// fa3_jax_message() says what is wrong.
__attribute__((visibility("default"))) int fa3_jax_plan(const fa3_jax_request *request, int backward,
                                                        std::int64_t *bytes) {
  using namespace hopperforge::fa3_jax;
  return backward != 0 ? plan_backward(*request, *bytes) : plan_forward(*request, *bytes);
}

__attribute__((visibility("default"))) const char *fa3_jax_message(void) { return hopperforge::fa3::message(); }

}  // extern "C"
