// Launches an attention kernel of head dimension 128 in bf16 with no GPU: every call of the CUDA runtime is a stub, so
// that what is timed is the host code of the unit alone, six tensor maps and a launch a call.

#include <cuda.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "hopper/flash.h"

namespace cutlass {
struct alignas(2) bfloat16_t {
  unsigned short storage;
};
}  // namespace cutlass

template <int Arch, typename T, int D, int DV, bool Split, bool Paged, bool Softcap, bool PackGQA>
void run_mha_fwd_(Flash_fwd_params& params, cudaStream_t stream);
void prepare_varlen_num_blocks(Flash_fwd_params&, cudaStream_t, bool, int, int, bool) {}

static CUresult encode(...) { return CUDA_SUCCESS; }

extern "C" {
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) { *value = 132; return cudaSuccess; }
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { *device = 0; return cudaSuccess; }
cudaError_t cudaGetDriverEntryPoint(const char*, void** function, unsigned long long, cudaDriverEntryPointQueryResult* found) {
  *function = reinterpret_cast<void*>(encode);
  *found = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t) { return ""; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaLaunchKernel(const void*, dim3, dim3, void**, size_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t*, const void*, void**) { return cudaSuccess; }
cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, size_t*, void*) { return cudaSuccess; }
unsigned __cudaPushCallConfiguration(dim3, dim3, size_t, void*) { return 0; }
void** __cudaRegisterFatBinary(void*) { return nullptr; }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaRegisterFunction(void**, const char*, char*, const char*, int, void*, void*, void*, void*, int*) {}
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
void __cudaUnregisterFatBinary(void**) {}
}

static double nanoseconds(bool causal) {
  Flash_fwd_params p;
  std::memset(static_cast<void*>(&p), 0, sizeof p);
  p.b = 4;
  p.seqlen_q = p.seqlen_k = 4096;
  p.h = p.h_k = 16;
  p.d = p.dv = p.d_rounded = 128;
  p.num_splits = p.page_size = 1;
  p.num_sm = 132;
  p.is_causal = causal;
  p.q_row_stride = p.k_row_stride = p.v_row_stride = p.o_row_stride = 2048;
  p.q_head_stride = p.k_head_stride = p.v_head_stride = p.o_head_stride = 128;
  p.q_batch_stride = p.k_batch_stride = p.v_batch_stride = p.o_batch_stride = 2048L * 4096;
  p.v_dim_stride = 1;
  p.q_ptr = p.k_ptr = p.v_ptr = p.o_ptr = reinterpret_cast<void*>(0x100000);
  const int calls = 100000;
  auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < calls; ++i) run_mha_fwd_<90, cutlass::bfloat16_t, 128, 128, false, false, false, false>(p, nullptr);
  return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count() / calls;
}

int main() {
  for (bool causal : {false, true}) {
    double best = 1e9;
    for (int round = 0; round < 30; ++round) best = std::min(best, nanoseconds(causal));
    std::printf("%.0f ", best);
  }
}
