// FlashAttention-3 for C++17 without a framework: names and defaults of C++ over flash_attention_c.h, and no code of
// its own beside them. Everything here is inline, so that no C++ name crosses the library's boundary; no function
// throws.
#ifndef HOPPERFORGE_FLASH_ATTENTION_H
#define HOPPERFORGE_FLASH_ATTENTION_H

#include <cstddef>
#include <cstdint>

#include "hopperforge/flash_attention_c.h"

namespace hopperforge::fa3 {

// What each field means stands beside it in flash_attention_c.h.
using Tensor = ::hopperforge_fa3_tensor;
using Scale = ::hopperforge_fa3_scale;
using Problem = ::hopperforge_fa3_problem;
using Build = ::hopperforge_fa3_build;
using Stream = ::hopperforge_fa3_stream;

enum class DType : int {
  float16 = HOPPERFORGE_FA3_FLOAT16,
  bfloat16 = HOPPERFORGE_FA3_BFLOAT16,
  float8_e4m3 = HOPPERFORGE_FA3_FLOAT8_E4M3,
};

enum class Code : int {
  ok = HOPPERFORGE_FA3_OK,
  invalid_argument = HOPPERFORGE_FA3_INVALID_ARGUMENT,
  misaligned = HOPPERFORGE_FA3_MISALIGNED,
  unsupported = HOPPERFORGE_FA3_UNSUPPORTED,
  trimmed = HOPPERFORGE_FA3_TRIMMED,
  workspace_too_small = HOPPERFORGE_FA3_WORKSPACE_TOO_SMALL,
  no_device = HOPPERFORGE_FA3_NO_DEVICE,
  wrong_device = HOPPERFORGE_FA3_WRONG_DEVICE,
  launch_failed = HOPPERFORGE_FA3_LAUNCH_FAILED,
  wrong_version = HOPPERFORGE_FA3_WRONG_VERSION,
  internal = HOPPERFORGE_FA3_INTERNAL,
};

// What a call came to. `message` is this thread's, and lives until its next call that fails.
class [[nodiscard]] Status {
 public:
  Status() noexcept = default;
  explicit Status(::hopperforge_fa3_status status) noexcept : code_(static_cast<Code>(status)) {}

  Code code() const noexcept { return code_; }
  bool ok() const noexcept { return code_ == Code::ok; }
  explicit operator bool() const noexcept { return ok(); }
  const char* name() const noexcept {
    return ::hopperforge_fa3_status_name(static_cast<::hopperforge_fa3_status>(code_));
  }
  const char* message() const noexcept { return ok() ? "" : ::hopperforge_fa3_message(); }

 private:
  Code code_ = Code::ok;
};

struct ForwardParams : ::hopperforge_fa3_forward_params {
  ForwardParams() noexcept { ::hopperforge_fa3_forward_defaults(this); }
};

struct BackwardParams : ::hopperforge_fa3_backward_params {
  BackwardParams() noexcept { ::hopperforge_fa3_backward_defaults(this); }
};

inline ::hopperforge_fa3_dtype c_dtype(DType dtype) noexcept { return static_cast<::hopperforge_fa3_dtype>(dtype); }

// A contiguous tensor of (batch, rows, heads, head_dim); with packed sequences the batch's stride is not read.
inline Tensor contiguous(void* data, std::int64_t rows, std::int64_t heads, std::int64_t head_dim) noexcept {
  return Tensor{data, rows * heads * head_dim, heads * head_dim, head_dim};
}

inline Build build() noexcept { return ::hopperforge_fa3_get_build(); }

inline Status check(const ForwardParams& params) noexcept { return Status(::hopperforge_fa3_forward_check(&params)); }
inline Status check(const BackwardParams& params) noexcept { return Status(::hopperforge_fa3_backward_check(&params)); }

inline Status workspace_size(const ForwardParams& params, std::size_t& bytes) noexcept {
  return Status(::hopperforge_fa3_forward_workspace(&params, &bytes));
}
inline Status workspace_size(const BackwardParams& params, std::size_t& bytes) noexcept {
  return Status(::hopperforge_fa3_backward_workspace(&params, &bytes));
}

inline Status forward(const ForwardParams& params, void* workspace, std::size_t workspace_bytes,
                      Stream stream) noexcept {
  return Status(::hopperforge_fa3_forward(&params, workspace, workspace_bytes, stream));
}
inline Status backward(const BackwardParams& params, void* workspace, std::size_t workspace_bytes,
                       Stream stream) noexcept {
  return Status(::hopperforge_fa3_backward(&params, workspace, workspace_bytes, stream));
}

}  // namespace hopperforge::fa3

#endif
