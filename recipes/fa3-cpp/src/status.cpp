#include "status.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "built.h"

namespace hopperforge::fa3 {
namespace {

thread_local char sentence[640] = "";

}  // namespace

Status fail(Status status, const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(sentence, sizeof sentence, format, arguments);
  va_end(arguments);
  return status;
}

Status trimmed(const char* what, const char* feature) {
  // the smallest profile of recipe.yaml that has it; `inference` has all but the backward pass
  const char* profile = std::strcmp(feature, "BACKWARD") == 0 ? "standalone" : "inference";
  return fail(HOPPERFORGE_FA3_TRIMMED,
              "this library is of profile `%s`, which holds no kernels for %s (DISABLE_%s): use one of profile `%s`",
              HOPPERFORGE_PROFILE, what, feature, profile);
}

const char* message() { return sentence; }

}  // namespace hopperforge::fa3
