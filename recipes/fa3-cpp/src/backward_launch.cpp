#include "backward.h"
#include "built.h"
#include "choose.h"

namespace hopperforge::fa3 {
namespace {

template <int Architecture, typename Element, bool Softcap>
void run(Flash_bwd_params& kernel, cudaStream_t stream) {
  if constexpr (kHDim64) {
    if (kernel.d_rounded == 64) return run_mha_bwd_<Architecture, Element, 64, Softcap>(kernel, stream);
  }
  if constexpr (kHDim96) {
    if (kernel.d_rounded == 96) return run_mha_bwd_<Architecture, Element, 96, Softcap>(kernel, stream);
  }
  if constexpr (kHDim128) {
    if (kernel.d_rounded == 128) return run_mha_bwd_<Architecture, Element, 128, Softcap>(kernel, stream);
  }
  if constexpr (kHDim192) {
    if (kernel.d_rounded == 192) return run_mha_bwd_<Architecture, Element, 192, Softcap>(kernel, stream);
  }
  if constexpr (kHDim256) {
    if (kernel.d_rounded == 256) return run_mha_bwd_<Architecture, Element, 256, Softcap>(kernel, stream);
  }
}

}  // namespace

void launch_backward(BackwardPlan& plan, cudaStream_t stream) {
  if constexpr (kBackward) {
    Flash_bwd_params& kernel = plan.kernel;
    choose_architecture(kernel.arch, [&](auto architecture) {
      choose<kSoftcap>(kernel.softcap > 0.0f, [&](auto softcap) {
        if constexpr (kFP16) {
          if (!kernel.is_bf16) {
            return run<decltype(architecture)::value, cutlass::half_t, decltype(softcap)::value>(kernel, stream);
          }
        }
        run<decltype(architecture)::value, cutlass::bfloat16_t, decltype(softcap)::value>(kernel, stream);
      });
    });
  }
}

}  // namespace hopperforge::fa3
