// Attention of one sequence in bfloat16, with nothing but the library: memory comes from the driver, which every node
// with a GPU has (libcuda.so.1), so that no CUDA toolkit is needed to build this. A program that uses the CUDA runtime
// takes cudaMalloc and its own stream instead.
#include <dlfcn.h>
#include <hopperforge/flash_attention.h>

#include <cstdint>
#include <cstdio>
#include <vector>

namespace fa3 = hopperforge::fa3;

namespace {

// The few functions of the driver that are needed here.
class Driver {
 public:
  Driver() : library_(dlopen("libcuda.so.1", RTLD_NOW)) {}

  bool start() {
    void* context = nullptr;
    return library_ != nullptr && call<int (*)(unsigned)>("cuInit")(0) == 0 &&
           call<int (*)(void**, int)>("cuDevicePrimaryCtxRetain")(&context, 0) == 0 &&
           call<int (*)(void*)>("cuCtxSetCurrent")(context) == 0;
  }
  void* allocate(std::size_t bytes) {
    std::uint64_t memory = 0;
    return call<int (*)(std::uint64_t*, std::size_t)>("cuMemAlloc_v2")(&memory, bytes) == 0
               ? reinterpret_cast<void*>(memory)
               : nullptr;
  }
  void upload(void* target, const void* source, std::size_t bytes) {
    call<int (*)(std::uint64_t, const void*, std::size_t)>("cuMemcpyHtoD_v2")(reinterpret_cast<std::uint64_t>(target),
                                                                              source, bytes);
  }
  // Waits for everything before it, and says whether all went well.
  bool download(void* target, const void* source, std::size_t bytes) {
    return call<int (*)()>("cuCtxSynchronize")() == 0 &&
           call<int (*)(void*, std::uint64_t, std::size_t)>("cuMemcpyDtoH_v2")(
               target, reinterpret_cast<std::uint64_t>(source), bytes) == 0;
  }

 private:
  template <typename Function>
  Function call(const char* name) {
    return reinterpret_cast<Function>(dlsym(library_, name));
  }

  void* library_;
};

int explain(const char* what, const fa3::Status& status) {
  std::printf("%s: %s: %s\n", what, status.name(), status.message());
  return 1;
}

}  // namespace

int main() {
  const fa3::Build build = fa3::build();
  std::printf("hopperforge_fa3 %s, profile %s\n", build.version, build.profile);

  constexpr int kTokens = 256;
  constexpr int kHeads = 4;
  constexpr int kHeadDim = 128;
  constexpr std::size_t kElements = std::size_t{kTokens} * kHeads * kHeadDim;

  Driver driver;
  const bool gpu = driver.start();
  // without a GPU any aligned address will do to ask whether the library has what the call needs
  alignas(256) static std::uint16_t nothing[8];
  const auto memory = [&](std::size_t bytes) { return gpu ? driver.allocate(bytes) : nothing; };
  void* q = memory(2 * kElements);
  void* k = memory(2 * kElements);
  void* v = memory(2 * kElements);
  void* out = memory(2 * kElements);

  fa3::ForwardParams params;
  params.problem.batch = 1;
  params.problem.seqlen_q = kTokens;
  params.problem.seqlen_k = kTokens;
  params.problem.heads = kHeads;
  params.problem.heads_k = kHeads;
  params.problem.head_dim = kHeadDim;
  params.problem.head_dim_v = kHeadDim;
  params.problem.causal = 1;
  params.q = fa3::contiguous(q, kTokens, kHeads, kHeadDim);
  params.k = fa3::contiguous(k, kTokens, kHeads, kHeadDim);
  params.v = fa3::contiguous(v, kTokens, kHeads, kHeadDim);
  params.out = fa3::contiguous(out, kTokens, kHeads, kHeadDim);
  if (const fa3::Status status = fa3::check(params); !status) return explain("check", status);

  std::size_t bytes = 0;
  if (const fa3::Status status = fa3::workspace_size(params, bytes); !status) {
    explain("workspace_size", status);
    return gpu ? 1 : 0;  // "NO_DEVICE" is the right answer where there is none
  }

  const std::vector<std::uint16_t> ones(kElements, 0x3f80);  // 1 in bfloat16
  driver.upload(q, ones.data(), 2 * kElements);
  driver.upload(k, ones.data(), 2 * kElements);
  driver.upload(v, ones.data(), 2 * kElements);
  void* workspace = driver.allocate(bytes);
  if (const fa3::Status status = fa3::forward(params, workspace, bytes, nullptr); !status) {
    return explain("forward", status);
  }
  std::vector<std::uint16_t> found(kElements);
  if (!driver.download(found.data(), out, 2 * kElements)) return 1;
  std::printf("%s\n", found == ones ? "ones over ones are ones" : "the output is wrong");
  return found == ones ? 0 : 1;
}
