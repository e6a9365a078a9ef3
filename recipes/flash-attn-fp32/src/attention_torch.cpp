// The torch front: two operators over the kernels, by torch's stable ABI, so that one library serves every torch from
// 2.9 on. What torch knows of them beyond that (shapes, gradients, autocast) is said in Python: _operators.py.
//
// The checks here keep memory safe whoever calls; the sentences a user reads come from Python's checks before.

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cuda_runtime_api.h>

#include <climits>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "attention.h"

// torch declares it for its own CUDA builds only (shim.h, under USE_CUDA).
extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void **ret_stream);

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// What both operators are told beside their tensors; the order is that of the schema.
struct Call {
    std::optional<Tensor> cu_seqlens_q;
    std::optional<Tensor> cu_seqlens_k;
    int64_t max_seqlen_q;
    int64_t max_seqlen_k;
    std::optional<Tensor> bias;
    std::optional<Tensor> mask;
    double scale;
    bool causal;
    double dropout;
    std::optional<Tensor> seed;

    explicit Call(const StableIValue *arguments)
        : cu_seqlens_q(to<std::optional<Tensor>>(arguments[0])),
          cu_seqlens_k(to<std::optional<Tensor>>(arguments[1])),
          max_seqlen_q(to<int64_t>(arguments[2])),
          max_seqlen_k(to<int64_t>(arguments[3])),
          bias(to<std::optional<Tensor>>(arguments[4])),
          mask(to<std::optional<Tensor>>(arguments[5])),
          scale(to<double>(arguments[6])),
          causal(to<bool>(arguments[7])),
          dropout(to<double>(arguments[8])),
          seed(to<std::optional<Tensor>>(arguments[9])) {}

    bool packed() const { return cu_seqlens_q.has_value(); }
};

void require(bool holds, const char *sentence) { STD_TORCH_CHECK(holds, "flash_attention: ", sentence); }

void require_tensor(const Tensor &tensor, const Tensor &beside, ScalarType dtype, int64_t dims, const char *name) {
    STD_TORCH_CHECK(tensor.is_cuda() && tensor.get_device_index() == beside.get_device_index(),
                    "flash_attention: ", name, " is not on the GPU that q is on");
    STD_TORCH_CHECK(tensor.scalar_type() == dtype, "flash_attention: ", name, " has the wrong dtype");
    STD_TORCH_CHECK(tensor.dim() == dims, "flash_attention: ", name, " has ", tensor.dim(), " dimensions, not ", dims);
}

void require_shape(const Tensor &tensor, const std::vector<int64_t> &shape, const char *name) {
    for (size_t index = 0; index < shape.size(); ++index) {
        STD_TORCH_CHECK(tensor.size(index) == shape[index], "flash_attention: ", name, " has size ", tensor.size(index),
                        " in dimension ", index, ", not ", shape[index]);
    }
}

std::vector<int64_t> shape_of(const Tensor &tensor) {
    std::vector<int64_t> shape;
    for (int64_t index = 0; index < tensor.dim(); ++index) shape.push_back(tensor.size(index));
    return shape;
}

// The kernels read 16 bytes at a time: the last dimension is contiguous, everything begins at a multiple of 16 bytes.
// A tensor that is not so is copied.
Tensor readable(const Tensor &tensor) {
    bool fits = reinterpret_cast<uintptr_t>(tensor.data_ptr()) % 16 == 0;
    for (int64_t index = 0; index < tensor.dim(); ++index) {
        if (tensor.size(index) <= 1) continue;
        const int64_t stride = tensor.stride(index);
        fits = fits && (index == tensor.dim() - 1 ? stride == 1 : stride % 4 == 0 && stride <= INT_MAX);
    }
    if (fits) return tensor;
    const Tensor copy = torch::stable::new_empty(tensor, shape_of(tensor));
    TORCH_ERROR_CODE_CHECK(aoti_torch_copy_(copy.get(), tensor.get(), 0));
    return copy;
}

Tensor without_gaps(const Tensor &tensor) {
    if (tensor.is_contiguous()) return tensor;
    const Tensor copy = torch::stable::new_empty(tensor, shape_of(tensor));
    TORCH_ERROR_CODE_CHECK(aoti_torch_copy_(copy.get(), tensor.get(), 0));
    return copy;
}

// (batch, row, head, head_dim), or (row, head, head_dim) where sequences are packed.
AttentionTensor describe(const Tensor &tensor, bool packed) {
    const int64_t first = packed ? 0 : 1;
    return AttentionTensor{static_cast<float *>(tensor.data_ptr()), packed ? 0 : tensor.stride(0), tensor.stride(first),
                           tensor.stride(first + 1)};
}

int narrow(int64_t value, const char *what) {
    STD_TORCH_CHECK(value >= 0 && value <= INT_MAX / 2, "flash_attention: ", what, " is out of range: ", value);
    return static_cast<int>(value);
}

// Of a tensor that is broadcast along dimensions of size 1.
int64_t broadcast_stride(const Tensor &tensor, int64_t dim, int64_t size, const char *name) {
    STD_TORCH_CHECK(tensor.size(dim) == size || tensor.size(dim) == 1, "flash_attention: ", name, " has size ",
                    tensor.size(dim), " in dimension ", dim, ", neither 1 nor ", size);
    return tensor.size(dim) == 1 ? 0 : tensor.stride(dim);
}

void set_added(AttentionParams &params, const Call &call, const Tensor &q) {
    if (!call.bias.has_value() && !call.mask.has_value()) return;
    require(!(call.bias.has_value() && call.mask.has_value()), "bias and mask are both given");
    require(!call.packed(), "packed sequences take neither bias nor mask");
    const bool is_bias = call.bias.has_value();
    const char *name = is_bias ? "bias" : "mask";
    const Tensor &added = is_bias ? *call.bias : *call.mask;
    require_tensor(added, q, is_bias ? ScalarType::Float : ScalarType::Bool, 4, name);
    if (is_bias) params.bias = static_cast<const float *>(added.data_ptr());
    else params.mask = static_cast<const uint8_t *>(added.data_ptr());
    params.bias_batch = broadcast_stride(added, 0, params.batch, name);
    params.bias_head = broadcast_stride(added, 1, params.heads, name);
    params.bias_row = broadcast_stride(added, 2, params.seqlen_q, name);
    params.bias_column = broadcast_stride(added, 3, params.seqlen_k, name);
}

void set_packed(AttentionParams &params, const Call &call, const Tensor &q) {
    require(call.cu_seqlens_q.has_value() == call.cu_seqlens_k.has_value(), "cu_seqlens_q and cu_seqlens_k go together");
    if (!call.packed()) return;
    for (const Tensor *sums : {&*call.cu_seqlens_q, &*call.cu_seqlens_k}) {
        require_tensor(*sums, q, ScalarType::Int, 1, "cu_seqlens");
        require(sums->is_contiguous() && sums->size(0) == params.batch + 1, "cu_seqlens must be contiguous and of one size");
    }
    params.cu_seqlens_q = static_cast<const int32_t *>(call.cu_seqlens_q->data_ptr());
    params.cu_seqlens_k = static_cast<const int32_t *>(call.cu_seqlens_k->data_ptr());
    params.total_q = q.size(0);
}

// Everything but the outputs. The tensors must outlive the launch call alone: freed memory is reused in stream order.
AttentionParams describe_call(const Tensor &q, const Tensor &k, const Tensor &v, const Call &call) {
    const bool packed = call.packed();
    const int64_t dims = packed ? 3 : 4, row = packed ? 0 : 1;
    require(q.is_cuda(), "q is not on a GPU");
    require_tensor(q, q, ScalarType::Float, dims, "q");
    require_tensor(k, q, ScalarType::Float, dims, "k");
    require_tensor(v, q, ScalarType::Float, dims, "v");
    AttentionParams params{};
    params.batch = narrow(packed ? call.cu_seqlens_q->size(0) - 1 : q.size(0), "the batch size");
    params.heads = narrow(q.size(row + 1), "the number of heads");
    params.heads_k = narrow(k.size(row + 1), "the number of heads of k");
    params.head_dim = narrow(q.size(row + 2), "the head dimension");
    params.seqlen_q = narrow(packed ? call.max_seqlen_q : q.size(1), "the length of q");
    params.seqlen_k = narrow(packed ? call.max_seqlen_k : k.size(1), "the length of k");
    require(params.heads_k > 0 && params.heads % params.heads_k == 0, "q has no multiple of the heads of k");
    require(params.head_dim % 32 == 0 && params.head_dim >= 32 && params.head_dim <= 128, "head_dim is none of 32, 64, 96, 128");
    require(packed || k.size(0) == params.batch, "q and k differ in batch size");
    require(k.size(row + 2) == params.head_dim, "q and k differ in head_dim");
    require_shape(v, shape_of(k), "v");
    require(call.dropout >= 0 && call.dropout <= 1, "dropout is not between 0 and 1");
    if (call.dropout > 0) {
        require(call.seed.has_value(), "dropout needs a seed");
        require_tensor(*call.seed, q, ScalarType::Long, 1, "seed");
        require(call.seed->size(0) == 1, "seed is not one number");
        params.seed = static_cast<const uint64_t *>(call.seed->data_ptr());
    }
    params.scale = static_cast<float>(call.scale);
    params.causal = call.causal;
    params.dropout = static_cast<float>(call.dropout);
    set_packed(params, call, q);
    set_added(params, call, q);
    params.q = describe(q, packed);
    params.k = describe(k, packed);
    params.v = describe(v, packed);
    return params;
}

// Kernels write the rows of sequences; where sequences are packed, others may lie behind the last one, which are zeros.
Tensor output_like(const Tensor &tensor, bool zeros) {
    return zeros ? torch::stable::new_zeros(tensor, shape_of(tensor)) : torch::stable::new_empty(tensor, shape_of(tensor));
}

std::vector<int64_t> lse_shape(const Tensor &q, bool packed) {
    return packed ? std::vector<int64_t>{q.size(1), q.size(0)} : std::vector<int64_t>{q.size(0), q.size(2), q.size(1)};
}

void set_lse(AttentionParams &params, const Tensor &lse, bool packed) {
    params.lse = static_cast<float *>(lse.data_ptr());
    params.lse_batch = packed ? 0 : lse.stride(0);
    params.lse_head = lse.stride(packed ? 0 : 1);
}

cudaStream_t stream_of(const Tensor &tensor) {
    void *stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
    return static_cast<cudaStream_t>(stream);
}

void check(cudaError_t status) {
    const char *hint = "";
    if (status == cudaErrorInsufficientDriver) hint = ": the driver is older than the CUDA runtime in this package";
    if (status == cudaErrorNoKernelImageForDevice) hint = ": this package has no code for this GPU, which is too old";
    STD_TORCH_CHECK(status == cudaSuccess, "flash_attention: CUDA says ", cudaGetErrorString(status), hint);
}

// (q, k, v, call...) -> (out, lse)
void forward(StableIValue *stack, uint64_t, uint64_t) {
    const Tensor q = readable(to<Tensor>(stack[0])), k = readable(to<Tensor>(stack[1])), v = readable(to<Tensor>(stack[2]));
    const Call call(stack + 3);
    AttentionParams params = describe_call(q, k, v, call);
    const torch::stable::accelerator::DeviceGuard guard(q.get_device_index());
    const Tensor out = output_like(q, call.packed());
    const Tensor lse = torch::stable::new_empty(q, lse_shape(q, call.packed()));
    if (call.packed()) torch::stable::fill_(lse, -INFINITY);  // a row of no sequence sees no key
    params.out = describe(out, call.packed());
    set_lse(params, lse, call.packed());
    check(flash_attention_fp32_forward(&params, stream_of(q)));
    stack[0] = from(out);
    stack[1] = from(lse);
}

// (dout, dlse, q, k, v, out, lse, call...) -> (dq, dk, dv)
void backward(StableIValue *stack, uint64_t, uint64_t) {
    const Tensor dout = readable(to<Tensor>(stack[0]));
    const std::optional<Tensor> given_dlse = to<std::optional<Tensor>>(stack[1]);
    const Tensor q = readable(to<Tensor>(stack[2])), k = readable(to<Tensor>(stack[3])), v = readable(to<Tensor>(stack[4]));
    const Tensor out = readable(to<Tensor>(stack[5])), lse = without_gaps(to<Tensor>(stack[6]));
    const Call call(stack + 7);
    const bool packed = call.packed();
    AttentionParams params = describe_call(q, k, v, call);
    require_tensor(dout, q, ScalarType::Float, q.dim(), "dout");
    require_shape(dout, shape_of(q), "dout");
    require_tensor(out, q, ScalarType::Float, q.dim(), "out");
    require_shape(out, shape_of(q), "out");
    require_tensor(lse, q, ScalarType::Float, packed ? 2 : 3, "lse");
    require_shape(lse, lse_shape(q, packed), "lse");
    const torch::stable::accelerator::DeviceGuard guard(q.get_device_index());
    std::optional<Tensor> dlse;
    if (given_dlse.has_value()) {
        require_tensor(*given_dlse, q, ScalarType::Float, lse.dim(), "dlse");
        require_shape(*given_dlse, lse_shape(q, packed), "dlse");
        dlse = without_gaps(*given_dlse);
        params.dlse = static_cast<const float *>(dlse->data_ptr());
    }
    const Tensor delta = torch::stable::new_empty(q, lse_shape(q, packed));
    int64_t turns_count = 0;
    check(flash_attention_fp32_turns(&params, &turns_count));
    std::optional<Tensor> turns;
    if (turns_count > 0) {
        turns = torch::stable::new_zeros(q, {turns_count}, ScalarType::Int);
        params.turns = static_cast<int *>(turns->data_ptr());
    }
    const Tensor dq = output_like(q, turns.has_value() || packed);
    const Tensor dk = output_like(k, packed), dv = output_like(v, packed);
    params.out = describe(out, packed);
    params.dout = describe(dout, packed);
    params.dq = describe(dq, packed);
    params.dk = describe(dk, packed);
    params.dv = describe(dv, packed);
    params.delta = static_cast<float *>(delta.data_ptr());
    set_lse(params, lse, packed);
    check(flash_attention_fp32_backward(&params, stream_of(q)));
    stack[0] = from(dq);
    stack[1] = from(dk);
    stack[2] = from(dv);
}

}  // namespace

STABLE_TORCH_LIBRARY(flash_attention, library) {
    library.def(
        "forward(Tensor q, Tensor k, Tensor v, Tensor? cu_seqlens_q, Tensor? cu_seqlens_k, SymInt max_seqlen_q, "
        "SymInt max_seqlen_k, Tensor? bias, Tensor? mask, float scale, bool causal, float dropout, Tensor? seed) "
        "-> (Tensor, Tensor)");
    library.def(
        "backward(Tensor dout, Tensor? dlse, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, "
        "Tensor? cu_seqlens_q, Tensor? cu_seqlens_k, SymInt max_seqlen_q, SymInt max_seqlen_k, Tensor? bias, "
        "Tensor? mask, float scale, bool causal, float dropout, Tensor? seed) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(flash_attention, CUDA, library) {
    library.impl("forward", &forward);
    library.impl("backward", &backward);
}
