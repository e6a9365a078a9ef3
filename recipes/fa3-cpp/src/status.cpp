#include "status.h"

#include <cstdarg>
#include <cstdio>

#include "built.h"

namespace hopperforge::fa3 {
namespace {

thread_local char sentence[640] = "";

}  // namespace

Status fail(Status status, const char *format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(sentence, sizeof sentence, format, arguments);
  va_end(arguments);
  return status;
}

Status trimmed(const char *what, const char *feature) {
  return fail(HOPPERFORGE_FA3_TRIMMED,
              "this library is of profile `%s`, which holds no kernels for %s (DISABLE_%s): use a library of a profile "
              "that has them",
              HOPPERFORGE_PROFILE, what, feature);
}

const char *message() { return sentence; }

}  // namespace hopperforge::fa3
