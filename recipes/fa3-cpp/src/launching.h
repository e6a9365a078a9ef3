// Runs upstream's host code, which ends the process when a launch fails, so that it comes back as a status instead.
//
// The library is linked with --wrap for exit, fprintf and cudaGetLastError (recipe.yaml: wrap), so that the kernels'
// host code calls what launching.cpp defines: it keeps the error and its text, and returns here by longjmp. Between
// there and here lie only frames of upstream's whose objects need no destructor.
#ifndef HOPPERFORGE_FA3_LAUNCHING_H
#define HOPPERFORGE_FA3_LAUNCHING_H

#include <csetjmp>

#include "status.h"

namespace hopperforge::fa3 {

struct Launch {
  std::jmp_buf back;
  int error = 0;  // the first cudaError_t seen
  char text[256] = "";
};

// The launch this thread is in, null outside.
Launch*& current_launch();

// What came of it.
Status outcome(const Launch& launch, bool ended);

template <typename Call>
Status guarded(const Call& call) {
  Launch launch;
  current_launch() = &launch;
  volatile bool ended = true;
  if (setjmp(launch.back) == 0) {
    call();
    ended = false;
  }
  current_launch() = nullptr;
  return outcome(launch, ended);
}

}  // namespace hopperforge::fa3

#endif
