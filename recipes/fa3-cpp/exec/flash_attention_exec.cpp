// Runs FlashAttention-3 through the library's C++ interface, judges what it gives, and times it.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <vector>

#include "hopperforge/flash_attention.h"
#include "on_device.h"
#include "options.h"
#include "reference.h"

using hopperforge::fa3::Status;

namespace {

constexpr double kLseTolerance = 1e-3;
constexpr double kLseToleranceFloat8 = 2e-2;  // tensor cores add products of float8 in fewer bits
constexpr double kBackwardFactor = 3.0;       // gradients pass through one more rounded matrix than outputs do
constexpr std::int64_t kLargestBackward = std::int64_t{1} << 31;  // products that the reference does in seconds

using Call = std::function<Status(cudaStream_t)>;

// Norm of the differences over the norm of what was expected.
struct Error {
  double difference = 0.0;
  double expected = 0.0;

  void add(double found, double wanted) {
    // not a number counts as far off
    difference += std::isfinite(found) ? (found - wanted) * (found - wanted) : INFINITY;
    expected += wanted * wanted;
  }
  double relative() const { return difference == 0.0 ? 0.0 : std::sqrt(difference / expected); }
};

bool judge(const char* what, double error, double tolerance) {
  const bool right = error <= tolerance;
  std::printf("%-8s %s %.2e (at most %.0e)\n", what, right ? "right" : "WRONG", error, tolerance);
  return right;
}

void require_started(const Status& status) {
  if (status) return;
  std::fprintf(stderr, "refused: %s: %s\n", status.name(), status.message());
  std::exit(3);
}

struct Place {
  int batch;
  int row;
  int head;
};

std::vector<Place> places_to_check(const Inputs& inputs) {
  std::vector<Place> all;
  for (int batch = 0; batch < inputs.options.batch; ++batch) {
    for (int row = 0; row < inputs.lengths_q[static_cast<std::size_t>(batch)]; ++row) {
      for (int head = 0; head < inputs.options.heads; ++head) all.push_back({batch, row, head});
    }
  }
  const auto count = static_cast<std::int64_t>(all.size());
  if (count <= inputs.options.rows) return all;
  std::vector<Place> some;
  for (std::int64_t index = 0; index < inputs.options.rows; ++index) {
    some.push_back(
        all[static_cast<std::size_t>(index * (count - 1) / std::max<std::int64_t>(inputs.options.rows - 1, 1))]);
  }
  return some;
}

double lse_error(double found, double expected) {
  if (std::isinf(expected)) return std::isinf(found) && found < 0 ? 0.0 : INFINITY;
  return std::isfinite(found) ? std::abs(found - expected) : INFINITY;
}

bool check_forward(const Inputs& inputs, const OnDevice& device) {
  const std::vector<Place> places = places_to_check(inputs);
  if (places.empty()) return true;
  const Elements out = device.out();
  const std::vector<float> lse = inputs.options.lse ? device.lse() : std::vector<float>{};
  std::vector<Error> errors(places.size());
  std::vector<double> lse_errors(places.size());
  in_parallel(static_cast<std::int64_t>(places.size()), [&](std::int64_t number) {
    const auto index = static_cast<std::size_t>(number);
    const Place& place = places[index];
    const Row expected = attend(inputs, place.batch, place.row, place.head);
    const std::int64_t begin =
        (device.token_q(place.batch, place.row) * inputs.options.heads + place.head) * inputs.options.head_dim_v;
    for (std::size_t item = 0; item < expected.out.size(); ++item) {
      errors[index].add(out[begin + static_cast<std::int64_t>(item)], expected.out[item]);
    }
    if (!lse.empty()) {
      const auto at = static_cast<std::size_t>(device.lse_place(place.batch, place.row, place.head));
      lse_errors[index] = lse_error(static_cast<double>(lse[at]), expected.lse);
    }
  });
  Error sum;
  for (const Error& error : errors) {
    sum.difference += error.difference;
    sum.expected += error.expected;
  }
  bool right = judge("out", sum.relative(), inputs.options.tolerance);
  if (!lse.empty()) {
    const bool float8 = inputs.options.dtype == hopperforge::fa3::DType::float8_e4m3;
    right &= judge("lse", *std::max_element(lse_errors.begin(), lse_errors.end()),
                   float8 ? kLseToleranceFloat8 : kLseTolerance);
  }
  return right;
}

using Token = std::int64_t (OnDevice::*)(int, int) const;

double gradient_error(const OnDevice& device, Token token, const Elements& found, const std::vector<double>& expected,
                      const std::vector<int>& lengths, int seqlen, int heads, int width) {
  Error error;
  const std::int64_t row_width = std::int64_t{heads} * width;
  for (std::size_t batch = 0; batch < lengths.size(); ++batch) {
    for (int row = 0; row < lengths[batch]; ++row) {
      const std::int64_t at = (device.*token)(static_cast<int>(batch), row) * row_width;
      const std::int64_t wanted = (static_cast<std::int64_t>(batch) * seqlen + row) * row_width;
      for (std::int64_t item = 0; item < row_width; ++item) {
        error.add(found[at + item], expected[static_cast<std::size_t>(wanted + item)]);
      }
    }
  }
  return error.relative();
}

bool check_backward(const Inputs& inputs, const OnDevice& device) {
  const Options& options = inputs.options;
  const std::int64_t products =
      std::int64_t{options.batch} * options.heads * options.seqlen_q * options.seqlen_k * options.head_dim;
  if (products > kLargestBackward || options.rows == 0) {
    std::printf("gradients were not checked: the reference would take too long\n");
    return true;
  }
  const Gradients expected = gradients(inputs);
  const double tolerance = kBackwardFactor * options.tolerance;
  bool right = judge("dq",
                     gradient_error(device, &OnDevice::token_q, device.dq(), expected.dq, inputs.lengths_q,
                                    options.seqlen_q, options.heads, options.head_dim),
                     tolerance);
  right &= judge("dk",
                 gradient_error(device, &OnDevice::token_k, device.dk(), expected.dk, inputs.lengths_k,
                                options.seqlen_k, options.heads_k, options.head_dim),
                 tolerance);
  right &= judge("dv",
                 gradient_error(device, &OnDevice::token_k, device.dv(), expected.dv, inputs.lengths_k,
                                options.seqlen_k, options.heads_k, options.head_dim_v),
                 tolerance);
  return right;
}

// Two operations for each product of the two matrices; of masked scores only what is seen counts.
double forward_operations(const Inputs& inputs) {
  double pairs = 0.0;
  for (int batch = 0; batch < inputs.options.batch; ++batch) {
    for (int row = 0; row < inputs.lengths_q[static_cast<std::size_t>(batch)]; ++row) {
      const Seen seen = seen_keys(inputs, batch, row);
      pairs += seen.end - seen.begin;
    }
  }
  return 2.0 * pairs * inputs.options.heads * (inputs.options.head_dim + inputs.options.head_dim_v);
}

// Median milliseconds of a call.
double time_calls(const Call& call, int repeat, cudaStream_t stream) {
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  require(cudaEventCreate(&begin), "cudaEventCreate");
  require(cudaEventCreate(&end), "cudaEventCreate");
  std::vector<float> times;
  for (int round = -3; round < repeat; ++round) {  // the first three warm up
    require(cudaEventRecord(begin, stream), "cudaEventRecord");
    require_started(call(stream));
    require(cudaEventRecord(end, stream), "cudaEventRecord");
    require(cudaEventSynchronize(end), "cudaEventSynchronize");
    float milliseconds = 0.0f;
    require(cudaEventElapsedTime(&milliseconds, begin, end), "cudaEventElapsedTime");
    if (round >= 0) times.push_back(milliseconds);
  }
  require(cudaEventDestroy(begin), "cudaEventDestroy");
  require(cudaEventDestroy(end), "cudaEventDestroy");
  std::sort(times.begin(), times.end());
  return static_cast<double>(times[times.size() / 2]);
}

void print_speed(const char* what, const Call& call, double operations, int repeat, cudaStream_t stream) {
  const double milliseconds = time_calls(call, repeat, stream);
  std::printf("%-8s %.4f ms, %.1f TFLOP/s\n", what, milliseconds, operations / milliseconds * 1e-9);
}

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// The fastest of several rounds, in microseconds for each of `count` calls.
double fastest(int count, const std::function<double()>& round) {
  double best = INFINITY;
  for (int number = 0; number < 7; ++number) best = std::min(best, round());
  return best / count * 1e6;
}

// What a call costs: the processor's time to make it, and the time of many in a row against a graph of as many, which
// holds the same kernels and leaves the library out.
void print_overhead(const Call& call, cudaStream_t stream) {
  constexpr int kCalls = 200;  // the driver queues about a thousand launches before it makes the caller wait
  const auto in_a_row = [&] {
    for (int number = 0; number < kCalls; ++number) require_started(call(stream));
  };
  in_a_row();
  require(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;
  require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "cudaStreamBeginCapture");
  in_a_row();
  require(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
  require(cudaGraphInstantiate(&ready, graph, 0), "cudaGraphInstantiate");
  double processor = INFINITY;
  const double row = fastest(kCalls, [&] {
    const auto begin = std::chrono::steady_clock::now();
    in_a_row();
    processor = std::min(processor, seconds_since(begin) / kCalls * 1e6);
    require(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    return seconds_since(begin);
  });
  const double replay = fastest(kCalls, [&] {
    const auto begin = std::chrono::steady_clock::now();
    require(cudaGraphLaunch(ready, stream), "cudaGraphLaunch");
    require(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    return seconds_since(begin);
  });
  std::printf(
      "overhead %.2f us of the processor for a call, %.2f us a call in a row, %.2f us in a graph: %.2f us more\n",
      processor, row, replay, row - replay);
  require(cudaGraphExecDestroy(ready), "cudaGraphExecDestroy");
  require(cudaGraphDestroy(graph), "cudaGraphDestroy");
}

int run(const Options& options) {
  const hopperforge::fa3::Build build = hopperforge::fa3::build();
  std::printf("hopperforge_fa3 %s, profile %s, CUDA %s\n", build.version, build.profile, build.cuda);
  const Inputs inputs = make_inputs(options);
  OnDevice device(inputs);
  device.prepare();
  cudaStream_t stream = nullptr;
  require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  require(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  const Call forward = [&](cudaStream_t on) { return device.forward(on); };
  const Call backward = [&](cudaStream_t on) { return device.backward(on); };
  require_started(forward(stream));
  if (options.backward) require_started(backward(stream));
  require(cudaStreamSynchronize(stream), "the kernels");
  bool right = check_forward(inputs, device);
  if (options.backward) right &= check_backward(inputs, device);
  if (options.repeat > 0) {
    const double operations = forward_operations(inputs);
    print_speed("forward", forward, operations, options.repeat, stream);
    if (options.backward) print_speed("backward", backward, 2.5 * operations, options.repeat, stream);
  }
  if (options.overhead) print_overhead(forward, stream);
  require(cudaStreamDestroy(stream), "cudaStreamDestroy");
  return right ? 0 : 1;
}

}  // namespace

int main(int count, char** words) {
  const Options options = parse(count, words);
  try {
    return run(options);
  } catch (const std::exception&) {  // nothing here throws but memory of the host
    std::fprintf(stderr, "error: this machine has not the memory for tensors of these sizes\n");
    return 2;
  }
}
