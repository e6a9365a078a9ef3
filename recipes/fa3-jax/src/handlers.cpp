// The handlers that XLA calls: they read shapes and attributes, and hand the arrays on with XLA's stream.
//
// They allocate nothing and wait for nothing, and the workspace is a result of the call, placed when XLA compiles. So
// they may be captured into a command buffer (CUDA graph), and say so by their trait.
//
// XLA's headers write messages with string streams. Their constructor in libstdc++ asks for GLIBCXX_3.4.26, newer than
// manylinux_2_28 has; instantiated here (the macro) it asks for nothing.
#define _GLIBCXX_EXTERN_TEMPLATE 0

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>

#include "request.h"
#include "workspace.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace hopperforge::fa3_jax {
namespace {

using Buffer = ffi::AnyBuffer;
using Result = ffi::Result<ffi::AnyBuffer>;

struct Masks {
  double softmax_scale;
  double softcap;
  bool causal;
  std::int64_t window_left;
  std::int64_t window_right;
  bool packed;
  std::int64_t max_seqlen_q;
  std::int64_t max_seqlen_k;
};

ffi::ErrorCode code(Status status) {
  switch (status) {
    case HOPPERFORGE_FA3_UNSUPPORTED:
    case HOPPERFORGE_FA3_TRIMMED:
      return ffi::ErrorCode::kUnimplemented;
    case HOPPERFORGE_FA3_NO_DEVICE:
    case HOPPERFORGE_FA3_WRONG_DEVICE:
      return ffi::ErrorCode::kFailedPrecondition;
    case HOPPERFORGE_FA3_LAUNCH_FAILED:
    case HOPPERFORGE_FA3_INTERNAL:
      return ffi::ErrorCode::kInternal;
    default:
      return ffi::ErrorCode::kInvalidArgument;
  }
}

ffi::Error answer(Status status) {
  if (status == HOPPERFORGE_FA3_OK) return ffi::Error::Success();
  return ffi::Error(code(status), std::string("fa3_jax: ") + fa3::message());
}

Status dtype_of(const Buffer &array, std::int64_t &dtype) {
  switch (array.element_type()) {
    case ffi::DataType::F16:
      dtype = HOPPERFORGE_FA3_FLOAT16;
      return HOPPERFORGE_FA3_OK;
    case ffi::DataType::BF16:
      dtype = HOPPERFORGE_FA3_BFLOAT16;
      return HOPPERFORGE_FA3_OK;
    case ffi::DataType::F8E4M3FN:
      dtype = HOPPERFORGE_FA3_FLOAT8_E4M3;
      return HOPPERFORGE_FA3_OK;
    default:
      return fa3::fail(HOPPERFORGE_FA3_UNSUPPORTED, "query is of a dtype that no kernel takes");
  }
}

// The request of Python's call, as this device's part of it has it.
Status read_request(const Buffer &q, const Buffer &k, const Buffer &v, const Masks &masks, std::int64_t sequences,
                    Request &request) {
  const auto query = q.dimensions();
  const auto key = k.dimensions();
  const std::size_t rank = masks.packed ? 3 : 4;
  if (query.size() != rank || key.size() != rank || v.dimensions().size() != rank) {
    return fa3::fail(HOPPERFORGE_FA3_INVALID_ARGUMENT, "query, key and value must have %zu dimensions", rank);
  }
  HOPPERFORGE_TRY(dtype_of(q, request.dtype));
  request.batch = masks.packed ? sequences : query[0];
  request.seqlen_q = masks.packed ? masks.max_seqlen_q : query[1];
  request.seqlen_k = masks.packed ? masks.max_seqlen_k : key[1];
  request.total_q = masks.packed ? query[0] : query[0] * query[1];
  request.total_k = masks.packed ? key[0] : key[0] * key[1];
  request.heads = query[rank - 2];
  request.heads_k = key[rank - 2];
  request.head_dim = query[rank - 1];
  request.head_dim_v = v.dimensions()[rank - 1];
  request.causal = masks.causal;
  request.window_left = masks.window_left;
  request.window_right = masks.window_right;
  request.packed = masks.packed;
  request.softmax_scale = masks.softmax_scale;
  request.softcap = masks.softcap;
  return HOPPERFORGE_FA3_OK;
}

// The arguments behind the named ones: offsets of packed sequences, then descales.
struct Others {
  const std::int32_t *offsets[2] = {};
  std::int64_t sequences = 0;
  const float *descales[3] = {};
};

Status read_others(const ffi::RemainingArgs &arguments, bool packed, bool descaled, Others &others) {
  const std::size_t expected = (packed ? 2 : 0) + (descaled ? 3 : 0);
  if (arguments.size() != expected) {
    return fa3::fail(HOPPERFORGE_FA3_INVALID_ARGUMENT, "the call has %zu arguments behind its arrays, and must have %zu",
                     arguments.size(), expected);
  }
  std::size_t next = 0;
  for (std::size_t index = 0; packed && index < 2; ++index) {
    const auto array = arguments.get<Buffer>(next++);
    if (!array.has_value()) return fa3::fail(HOPPERFORGE_FA3_INVALID_ARGUMENT, "cu_seqlens is no array");
    others.offsets[index] = static_cast<const std::int32_t *>(array->untyped_data());
    others.sequences = array->dimensions()[0] - 1;
  }
  for (std::size_t index = 0; descaled && index < 3; ++index) {
    const auto array = arguments.get<Buffer>(next++);
    if (!array.has_value()) return fa3::fail(HOPPERFORGE_FA3_INVALID_ARGUMENT, "a descale is no array");
    others.descales[index] = static_cast<const float *>(array->untyped_data());
  }
  return HOPPERFORGE_FA3_OK;
}

struct Memory {
  void *begin;
  std::size_t bytes;
};

// The part of the workspace that is aligned as the library wants it.
Memory aligned(const Buffer &workspace) {
  constexpr std::uintptr_t alignment = fa3::Workspace::kAlignment;
  const auto begin = reinterpret_cast<std::uintptr_t>(workspace.untyped_data());
  const std::uintptr_t first = (begin + alignment - 1) / alignment * alignment;
  const std::size_t lost = first - begin;
  const std::size_t bytes = workspace.size_bytes();
  return {reinterpret_cast<void *>(first), bytes > lost ? bytes - lost : 0};
}

// Rows behind the last of packed sequences are reached by no kernel.
Status clear(const Buffer &array, cudaStream_t stream) {
  const cudaError_t error = cudaMemsetAsync(array.untyped_data(), 0, array.size_bytes(), stream);
  if (error == cudaSuccess) return HOPPERFORGE_FA3_OK;
  return fa3::fail(HOPPERFORGE_FA3_LAUNCH_FAILED, "clearing a result did not start: %s", cudaGetErrorString(error));
}

Status attend(cudaStream_t stream, const Buffer &q, const Buffer &k, const Buffer &v, const ffi::RemainingArgs &rest,
              const Buffer &out, const Buffer &lse, const Buffer &workspace, const Masks &masks,
              std::int64_t num_splits, bool descaled) {
  Others others;
  Request request{};
  HOPPERFORGE_TRY(read_others(rest, masks.packed, descaled, others));
  HOPPERFORGE_TRY(read_request(q, k, v, masks, others.sequences, request));
  request.num_splits = num_splits;
  request.descaled = descaled;
  Arrays arrays;
  arrays.q = q.untyped_data();
  arrays.k = k.untyped_data();
  arrays.v = v.untyped_data();
  arrays.out = out.untyped_data();
  arrays.lse = static_cast<float *>(lse.untyped_data());
  arrays.cu_seqlens_q = others.offsets[0];
  arrays.cu_seqlens_k = others.offsets[1];
  for (int index = 0; index < 3; ++index) arrays.descales[index] = others.descales[index];
  hopperforge_fa3_forward_params params;
  HOPPERFORGE_TRY(forward_params(request, arrays, params));
  if (masks.packed) {
    HOPPERFORGE_TRY(clear(out, stream));
    HOPPERFORGE_TRY(clear(lse, stream));
  }
  const Memory memory = aligned(workspace);
  return hopperforge_fa3_forward(&params, memory.begin, memory.bytes, stream);
}

ffi::Error forward(cudaStream_t stream, Buffer q, Buffer k, Buffer v, ffi::RemainingArgs rest, Result out, Result lse,
                   Result workspace, double softmax_scale, double softcap, bool causal, std::int64_t window_left,
                   std::int64_t window_right, bool packed, std::int64_t max_seqlen_q, std::int64_t max_seqlen_k,
                   std::int64_t num_splits, bool descaled) {
  const Masks masks{softmax_scale, softcap, causal, window_left, window_right, packed, max_seqlen_q, max_seqlen_k};
  return answer(attend(stream, q, k, v, rest, *out, *lse, *workspace, masks, num_splits, descaled));
}

struct Gradients {
  const Buffer &dq;
  const Buffer &dk;
  const Buffer &dv;
};

Status derive(cudaStream_t stream, const Buffer &q, const Buffer &k, const Buffer &v, const Buffer &out,
              const Buffer &lse, const Buffer &dout, const ffi::RemainingArgs &rest, const Gradients &gradients,
              const Buffer &workspace, const Masks &masks, bool deterministic) {
  Others others;
  Request request{};
  HOPPERFORGE_TRY(read_others(rest, masks.packed, false, others));
  HOPPERFORGE_TRY(read_request(q, k, v, masks, others.sequences, request));
  request.deterministic = deterministic;
  Arrays arrays;
  arrays.q = q.untyped_data();
  arrays.k = k.untyped_data();
  arrays.v = v.untyped_data();
  arrays.out = out.untyped_data();
  arrays.lse = static_cast<float *>(lse.untyped_data());
  arrays.dout = dout.untyped_data();
  arrays.dq = gradients.dq.untyped_data();
  arrays.dk = gradients.dk.untyped_data();
  arrays.dv = gradients.dv.untyped_data();
  arrays.cu_seqlens_q = others.offsets[0];
  arrays.cu_seqlens_k = others.offsets[1];
  hopperforge_fa3_backward_params params;
  HOPPERFORGE_TRY(backward_params(request, arrays, params));
  for (const Buffer *array : {&gradients.dq, &gradients.dk, &gradients.dv}) {
    if (masks.packed) HOPPERFORGE_TRY(clear(*array, stream));
  }
  const Memory memory = aligned(workspace);
  return hopperforge_fa3_backward(&params, memory.begin, memory.bytes, stream);
}

ffi::Error backward(cudaStream_t stream, Buffer q, Buffer k, Buffer v, Buffer out, Buffer lse, Buffer dout,
                    ffi::RemainingArgs rest, Result dq, Result dk, Result dv, Result workspace, double softmax_scale,
                    double softcap, bool causal, std::int64_t window_left, std::int64_t window_right, bool packed,
                    std::int64_t max_seqlen_q, std::int64_t max_seqlen_k, bool deterministic) {
  const Masks masks{softmax_scale, softcap, causal, window_left, window_right, packed, max_seqlen_q, max_seqlen_k};
  return answer(
      derive(stream, q, k, v, out, lse, dout, rest, {*dq, *dk, *dv}, *workspace, masks, deterministic));
}

// JAX places computations on the CPU where it finds no GPU, and where it is told to.
ffi::Error refuse(ffi::RemainingArgs, ffi::RemainingRets, ffi::Dictionary) {
  return ffi::Error(ffi::ErrorCode::kFailedPrecondition,
                    "fa3_jax needs a GPU of compute capability 9.0 (H100, H200), and JAX placed this computation on the "
                    "CPU: run on a node with such a GPU and its driver, with JAX's CUDA plugin installed (jax[cuda12] or "
                    "jax[cuda13]), and place the arrays there");
}

}  // namespace
}  // namespace hopperforge::fa3_jax

// The attributes that both passes read, in the order of their functions' arguments.
#define FA3_JAX_MASKS()              \
  Attr<double>("softmax_scale")      \
      .Attr<double>("softcap")       \
      .Attr<bool>("causal")          \
      .Attr<std::int64_t>("window_left")  \
      .Attr<std::int64_t>("window_right") \
      .Attr<bool>("packed")          \
      .Attr<std::int64_t>("max_seqlen_q") \
      .Attr<std::int64_t>("max_seqlen_k")

#pragma GCC visibility push(default)

XLA_FFI_DEFINE_HANDLER_SYMBOL(fa3_jax_forward, hopperforge::fa3_jax::forward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::PlatformStream<cudaStream_t>>()
                                  .Arg<ffi::AnyBuffer>()  // query
                                  .Arg<ffi::AnyBuffer>()  // key
                                  .Arg<ffi::AnyBuffer>()  // value
                                  .RemainingArgs()        // offsets, descales
                                  .Ret<ffi::AnyBuffer>()  // output
                                  .Ret<ffi::AnyBuffer>()  // LSE
                                  .Ret<ffi::AnyBuffer>()  // workspace
                                  .FA3_JAX_MASKS()
                                  .Attr<std::int64_t>("num_splits")
                                  .Attr<bool>("descaled"),
                              {ffi::Traits::kCmdBufferCompatible});

XLA_FFI_DEFINE_HANDLER_SYMBOL(fa3_jax_backward, hopperforge::fa3_jax::backward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::PlatformStream<cudaStream_t>>()
                                  .Arg<ffi::AnyBuffer>()  // query
                                  .Arg<ffi::AnyBuffer>()  // key
                                  .Arg<ffi::AnyBuffer>()  // value
                                  .Arg<ffi::AnyBuffer>()  // output
                                  .Arg<ffi::AnyBuffer>()  // LSE
                                  .Arg<ffi::AnyBuffer>()  // gradient of the output
                                  .RemainingArgs()        // offsets
                                  .Ret<ffi::AnyBuffer>()  // gradient of query
                                  .Ret<ffi::AnyBuffer>()  // gradient of key
                                  .Ret<ffi::AnyBuffer>()  // gradient of value
                                  .Ret<ffi::AnyBuffer>()  // workspace
                                  .FA3_JAX_MASKS()
                                  .Attr<bool>("deterministic"),
                              {ffi::Traits::kCmdBufferCompatible});

XLA_FFI_DEFINE_HANDLER_SYMBOL(fa3_jax_refuse, hopperforge::fa3_jax::refuse,
                              ffi::Ffi::Bind().RemainingArgs().RemainingRets().Attrs());

#pragma GCC visibility pop
