#include "built.h"
#include "choose.h"
#include "forward.h"

namespace hopperforge::fa3 {
namespace {

template <int Architecture, bool Split, bool PagesWithoutTma, bool Softcap, bool PackGQA>
struct Kernels {
  Flash_fwd_params& kernel;
  cudaStream_t stream;

  template <typename Element, int HeadDim, int HeadDimV>
  void run() const {
    run_mha_fwd_<Architecture, Element, HeadDim, HeadDimV, Split, PagesWithoutTma, Softcap, PackGQA>(kernel, stream);
  }

  // The kernel that plan_forward decided on, one branch for each that was compiled.
  template <typename Element, bool Float8>
  void run() const {
    const int qk = kernel.d_rounded;
    const int v = kernel.dv_rounded;
    if constexpr (kHDim64 && kHDimDiff64 && Architecture == 90 && !Float8) {
      if (qk == 64 && v == 512) return run<Element, 64, 512>();
      if (qk == 64 && v == 256) return run<Element, 64, 256>();
    }
    if constexpr (kHDim192 && kHDimDiff192 && Architecture == 90) {
      if (qk == 192 && v == 128) return run<Element, 192, 128>();
    }
    if constexpr (kHDim64) {
      if (qk == 64) return run<Element, 64, 64>();
    }
    if constexpr (kHDim96) {
      if (qk == 96) return run<Element, 96, 96>();
    }
    if constexpr (kHDim128) {
      if (qk == 128) return run<Element, 128, 128>();
    }
    if constexpr (kHDim192) {
      if (qk == 192) return run<Element, 192, 192>();
    }
    if constexpr (kHDim256) {
      if (qk == 256) return run<Element, 256, 256>();
    }
  }

  void run() const {
    if constexpr (kFP8 && Architecture == 90) {
      if (kernel.is_e4m3) return run<cutlass::float_e4m3_t, true>();
    }
    if constexpr (kFP16) {
      if (!kernel.is_bf16 && !kernel.is_e4m3) return run<cutlass::half_t, false>();
    }
    if (kernel.is_bf16) run<cutlass::bfloat16_t, false>();
  }
};

void attend(Flash_fwd_params& kernel, cudaStream_t stream) {
  choose_architecture(kernel.arch, [&](auto architecture) {
    choose<kSplit>(kernel.num_splits > 1, [&](auto split) {
      choose<kPagedKV>(kernel.page_table != nullptr && !kernel.pagedkv_tma, [&](auto pages) {
        choose<kSoftcap>(kernel.softcap > 0.0f, [&](auto softcap) {
          choose<kPackGQA>(kernel.pack_gqa, [&](auto pack) {
            // these have packed heads alone, which keeps the number of kernels down
            constexpr bool always =
                decltype(architecture)::value < 90 || decltype(split)::value || decltype(pages)::value;
            Kernels<decltype(architecture)::value, decltype(split)::value, decltype(pages)::value,
                    decltype(softcap)::value, decltype(pack)::value || always>{kernel, stream}
                .run();
          });
        });
      });
    });
  });
}

template <typename Element>
void combine_into(Flash_fwd_params& kernel, cudaStream_t stream) {
  // larger tiles of the head dimension would leave thread blocks without work
  if (kernel.dv <= 64) {
    run_mha_fwd_combine_<Element, float, 64>(kernel, stream, true);
  } else {
    run_mha_fwd_combine_<Element, float, 128>(kernel, stream, true);
  }
}

void combine(Flash_fwd_params& kernel, cudaStream_t stream) {
  if constexpr (kSplit) {
    if (kernel.is_bf16 || kernel.is_e4m3) {  // float8 gives bfloat16
      combine_into<cutlass::bfloat16_t>(kernel, stream);
    } else {
      combine_into<cutlass::half_t>(kernel, stream);
    }
  }
}

}  // namespace

void launch_forward(ForwardPlan& plan, cudaStream_t stream) {
  attend(plan.kernel, stream);
  if (plan.kernel.num_splits > 1) combine(plan.kernel, stream);
}

}  // namespace hopperforge::fa3
