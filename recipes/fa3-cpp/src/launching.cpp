#include "launching.h"

#include <cuda_runtime_api.h>

#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace hopperforge::fa3 {

Launch*& current_launch() {
  thread_local Launch* launch = nullptr;
  return launch;
}

Status outcome(const Launch& launch, bool ended) {
  if (!ended && launch.error == cudaSuccess) return HOPPERFORGE_FA3_OK;
  const auto error = static_cast<cudaError_t>(launch.error);
  return fail(HOPPERFORGE_FA3_LAUNCH_FAILED, "a kernel did not start: %s (%s)%s%s", cudaGetErrorString(error),
              cudaGetErrorName(error), launch.text[0] == '\0' ? "" : "; upstream says: ", launch.text);
}

}  // namespace hopperforge::fa3

using hopperforge::fa3::current_launch;
using hopperforge::fa3::Launch;

extern "C" {

[[noreturn]] void __real_exit(int code);
cudaError_t __real_cudaGetLastError();

[[noreturn]] void __wrap_exit(int code) {
  if (Launch* launch = current_launch()) std::longjmp(launch->back, 1);
  __real_exit(code);
}

// CUTLASS asks for the error of a launch and hands its answer to upstream's code, which drops it.
cudaError_t __wrap_cudaGetLastError() {
  const cudaError_t error = __real_cudaGetLastError();
  Launch* launch = current_launch();
  if (launch != nullptr && launch->error == cudaSuccess) launch->error = error;
  return error;
}

int __wrap_fprintf(std::FILE* file, const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  Launch* launch = current_launch();
  const int written = launch == nullptr ? std::vfprintf(file, format, arguments)
                                        : std::vsnprintf(launch->text, sizeof launch->text, format, arguments);
  va_end(arguments);
  if (launch != nullptr) launch->text[std::strcspn(launch->text, "\n")] = '\0';
  return written;
}

}  // extern "C"
