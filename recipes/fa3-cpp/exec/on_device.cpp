#include "on_device.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

using hopperforge::fa3::contiguous;
using hopperforge::fa3::DType;
using hopperforge::fa3::Status;

namespace {

DType output_dtype(DType dtype) { return dtype == DType::float8_e4m3 ? DType::bfloat16 : dtype; }

int pages_of_a_sequence(const Options& options) {
  return (options.seqlen_k + options.page_size - 1) / options.page_size;
}

void require_served(const Status& status) {
  if (status) return;
  std::fprintf(stderr, "refused: %s: %s\n", status.name(), status.message());
  std::exit(3);
}

std::vector<int> running_sums(const std::vector<int>& lengths) {
  std::vector<int> sums{0};
  for (const int length : lengths) sums.push_back(sums.back() + length);
  return sums;
}

Elements download(const Memory& memory, DType dtype, std::int64_t count) {
  Elements found(dtype, count);
  memory.download(found.data(), found.size_bytes());
  return found;
}

}  // namespace

void require(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "error: %s: %s (%s)\n", what, cudaGetErrorString(error), cudaGetErrorName(error));
  std::exit(4);
}

Memory::Memory(std::size_t bytes) : bytes_(bytes) {
  // all bits set is not a number in every type: what is read but was never written shows
  require(cudaMalloc(&data_, bytes == 0 ? 1 : bytes), "cudaMalloc");
  require(cudaMemset(data_, 0xff, bytes), "cudaMemset");
}

Memory::Memory(const void* source, std::size_t bytes) : Memory(bytes) {
  require(cudaMemcpy(data_, source, bytes, cudaMemcpyHostToDevice), "cudaMemcpy to the device");
}

Memory::Memory(Memory&& other) noexcept { *this = std::move(other); }

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

Memory::~Memory() { cudaFree(data_); }

void Memory::download(void* target, std::size_t bytes) const {
  require(cudaMemcpy(target, data_, bytes, cudaMemcpyDeviceToHost), "cudaMemcpy from the device");
}

Memory upload(const Elements& elements) { return Memory(elements.data(), elements.size_bytes()); }

Memory upload(const std::vector<int>& numbers) { return Memory(numbers.data(), numbers.size() * sizeof(int)); }

OnDevice::OnDevice(const Inputs& inputs) : inputs_(inputs) {
  const Options& options = inputs.options;
  packed_q_ = options.varlen;
  packed_k_ = options.varlen && options.page_size == 0 && options.append == 0;
  begin_q_ = running_sums(inputs.lengths_q);
  begin_k_ = running_sums(inputs.lengths_k);
  hopperforge_fa3_problem& problem = forward_.problem;
  problem.dtype = hopperforge::fa3::c_dtype(options.dtype);
  problem.batch = options.batch;
  problem.seqlen_q = options.seqlen_q;
  problem.seqlen_k = options.seqlen_k;
  problem.heads = options.heads;
  problem.heads_k = options.heads_k;
  problem.head_dim = options.head_dim;
  problem.head_dim_v = options.head_dim_v;
  problem.softmax_scale = inputs.scale;
  problem.softcap = static_cast<float>(options.softcap);
  problem.causal = options.causal ? 1 : 0;
  problem.window_left = options.window_left;
  problem.window_right = options.window_right;
  forward_.num_splits = options.splits;
  place_queries();
  if (options.append > 0) place_appended();
  place_keys();
  if (options.backward) place_gradients();
}

std::int64_t OnDevice::token_q(int batch, int row) const {
  return packed_q_ ? begin_q_[static_cast<std::size_t>(batch)] + row
                   : std::int64_t{batch} * inputs_.options.seqlen_q + row;
}

std::int64_t OnDevice::token_k(int batch, int row) const {
  return packed_k_ ? begin_k_[static_cast<std::size_t>(batch)] + row
                   : std::int64_t{batch} * inputs_.options.seqlen_k + row;
}

std::int64_t OnDevice::lse_place(int batch, int row, int head) const {
  const Options& options = inputs_.options;
  if (packed_q_) return std::int64_t{head} * begin_q_.back() + token_q(batch, row);
  return (std::int64_t{batch} * options.heads + head) * options.seqlen_q + row;
}

// The rows of (batch, sequence, heads, width) that count, one after the other.
Elements OnDevice::packed_queries(const Elements& source, int width) const {
  if (!packed_q_) return source;
  const Options& options = inputs_.options;
  const std::int64_t row = std::int64_t{options.heads} * width * element_bytes(options.dtype);
  Elements packed(options.dtype, std::int64_t{begin_q_.back()} * options.heads * width);
  for (int batch = 0; batch < options.batch; ++batch) {
    const auto index = static_cast<std::size_t>(batch);
    std::memcpy(static_cast<char*>(packed.data()) + begin_q_[index] * row,
                static_cast<const char*>(source.data()) + std::int64_t{batch} * options.seqlen_q * row,
                static_cast<std::size_t>(inputs_.lengths_q[index] * row));
  }
  return packed;
}

Elements OnDevice::packed_keys(const Elements& source, int width, float filler) const {
  const Options& options = inputs_.options;
  const std::int64_t row = std::int64_t{options.heads_k} * width * element_bytes(options.dtype);
  const bool paged = options.page_size > 0;
  const int rows = paged ? pages_of_a_sequence(options) * options.page_size : options.seqlen_k;
  const std::int64_t tokens = packed_k_ ? begin_k_.back() : std::int64_t{options.batch} * rows;
  Elements placed(options.dtype, tokens * options.heads_k * width);
  // what lies beyond a sequence must not matter: keys may be anything, values anything but infinite
  for (std::int64_t index = 0; index < placed.count(); ++index) placed.set(index, filler);
  for (int batch = 0; batch < options.batch; ++batch) {
    const int keys = inputs_.lengths_k[static_cast<std::size_t>(batch)] - options.append;
    for (int key = 0; key < keys; ++key) {
      const std::int64_t page = paged ? key / options.page_size : 0;
      const std::int64_t target =
          paged ? (page * options.batch + (options.batch - 1 - batch)) * options.page_size + key % options.page_size
                : token_k(batch, key);
      std::memcpy(static_cast<char*>(placed.data()) + target * row,
                  static_cast<const char*>(source.data()) + (std::int64_t{batch} * options.seqlen_k + key) * row,
                  static_cast<std::size_t>(row));
    }
  }
  return placed;
}

void OnDevice::place_queries() {
  const Options& options = inputs_.options;
  q_ = upload(packed_queries(inputs_.q, options.head_dim));
  const std::int64_t rows = inputs_.q.count() / options.head_dim;
  out_ = Memory(static_cast<std::size_t>(rows * options.head_dim_v * 2));
  forward_.q = contiguous(q_.data(), options.seqlen_q, options.heads, options.head_dim);
  forward_.out = contiguous(out_.data(), options.seqlen_q, options.heads, options.head_dim_v);
  if (options.lse) {
    lse_ = Memory(static_cast<std::size_t>(rows) * sizeof(float));
    forward_.softmax_lse = static_cast<float*>(lse_.data());
  }
  if (packed_q_) {
    cu_q_ = upload(begin_q_);
    forward_.problem.cu_seqlens_q = static_cast<const int*>(cu_q_.data());
    forward_.problem.total_q = begin_q_.back();
  }
}

void OnDevice::place_keys() {
  const Options& options = inputs_.options;
  k_ = upload(packed_keys(inputs_.k, options.head_dim, NAN));
  v_ = upload(packed_keys(inputs_.v, options.head_dim_v, 400.0f));
  const int rows = options.page_size > 0 ? options.page_size : options.seqlen_k;
  forward_.k = contiguous(k_.data(), rows, options.heads_k, options.head_dim);
  forward_.v = contiguous(v_.data(), rows, options.heads_k, options.head_dim_v);
  if (packed_k_) {
    cu_k_ = upload(begin_k_);
    forward_.problem.cu_seqlens_k = static_cast<const int*>(cu_k_.data());
    forward_.problem.total_k = begin_k_.back();
  } else if (options.page_size > 0 || options.append > 0) {
    std::vector<int> used = inputs_.lengths_k;
    for (int& length : used) length -= options.append;
    used_k_ = upload(used);
    forward_.problem.seqused_k = static_cast<const int*>(used_k_.data());
  }
  if (options.page_size > 0) place_pages();
}

// Page p of sequence b is p * batch + (batch - 1 - b): no sequence has two pages in a row.
void OnDevice::place_pages() {
  const Options& options = inputs_.options;
  const int each = pages_of_a_sequence(options);
  std::vector<int> table;
  for (int batch = 0; batch < options.batch; ++batch) {
    for (int page = 0; page < each; ++page) table.push_back(page * options.batch + options.batch - 1 - batch);
  }
  pages_ = upload(table);
  forward_.page_table = static_cast<const int*>(pages_.data());
  forward_.page_table_stride = each;
  forward_.page_size = options.page_size;
  forward_.pages = each * options.batch;
  forward_.problem.seqlen_k = each * options.page_size;
}

void OnDevice::place_appended() {
  const Options& options = inputs_.options;
  const auto last = [&](const Elements& source, int width) {
    const std::int64_t row = std::int64_t{options.heads_k} * width * element_bytes(options.dtype);
    Elements found(options.dtype, std::int64_t{options.batch} * options.append * options.heads_k * width);
    for (int batch = 0; batch < options.batch; ++batch) {
      const int first = inputs_.lengths_k[static_cast<std::size_t>(batch)] - options.append;
      std::memcpy(static_cast<char*>(found.data()) + std::int64_t{batch} * options.append * row,
                  static_cast<const char*>(source.data()) + (std::int64_t{batch} * options.seqlen_k + first) * row,
                  static_cast<std::size_t>(options.append * row));
    }
    return upload(found);
  };
  new_k_ = last(inputs_.k, options.head_dim);
  new_v_ = last(inputs_.v, options.head_dim_v);
  forward_.k_new = contiguous(new_k_.data(), options.append, options.heads_k, options.head_dim);
  forward_.v_new = contiguous(new_v_.data(), options.append, options.heads_k, options.head_dim_v);
  forward_.seqlen_k_new = options.append;
}

void OnDevice::place_gradients() {
  const Options& options = inputs_.options;
  dout_ = upload(packed_queries(inputs_.dout, options.head_dim_v));
  dq_ = Memory(inputs_.q.size_bytes());
  dk_ = Memory(inputs_.k.size_bytes());
  dv_ = Memory(inputs_.v.size_bytes());
  backward_.problem = forward_.problem;
  backward_.q = forward_.q;
  backward_.k = forward_.k;
  backward_.v = forward_.v;
  backward_.out = forward_.out;
  backward_.softmax_lse = forward_.softmax_lse;
  backward_.dout = contiguous(dout_.data(), options.seqlen_q, options.heads, options.head_dim_v);
  backward_.dq = contiguous(dq_.data(), options.seqlen_q, options.heads, options.head_dim);
  backward_.dk = contiguous(dk_.data(), options.seqlen_k, options.heads_k, options.head_dim);
  backward_.dv = contiguous(dv_.data(), options.seqlen_k, options.heads_k, options.head_dim_v);
  backward_.deterministic = options.deterministic ? 1 : 0;
}

void OnDevice::prepare() {
  std::size_t bytes = 0;
  require_served(hopperforge::fa3::workspace_size(forward_, bytes));
  workspace_ = Memory(bytes);
  if (!inputs_.options.backward) return;
  require_served(hopperforge::fa3::workspace_size(backward_, bytes));
  backward_workspace_ = Memory(bytes);
}

Status OnDevice::forward(cudaStream_t stream) const {
  return hopperforge::fa3::forward(forward_, workspace_.data(), workspace_.size(), stream);
}

Status OnDevice::backward(cudaStream_t stream) const {
  return hopperforge::fa3::backward(backward_, backward_workspace_.data(), backward_workspace_.size(), stream);
}

Elements OnDevice::out() const {
  const Options& options = inputs_.options;
  return download(out_, output_dtype(options.dtype), inputs_.q.count() / options.head_dim * options.head_dim_v);
}

std::vector<float> OnDevice::lse() const {
  std::vector<float> found(lse_.size() / sizeof(float));
  lse_.download(found.data(), lse_.size());
  return found;
}

Elements OnDevice::dq() const { return download(dq_, inputs_.options.dtype, inputs_.q.count()); }
Elements OnDevice::dk() const { return download(dk_, inputs_.options.dtype, inputs_.k.count()); }
Elements OnDevice::dv() const { return download(dv_, inputs_.options.dtype, inputs_.v.count()); }
