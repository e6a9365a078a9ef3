#include "built.h"

#include <cstdio>

namespace hopperforge::fa3 {
namespace {

struct Switch {
  bool compiled;
  const char* name;
};

constexpr Switch kSwitches[] = {
    {kBackward, "DISABLE_BACKWARD"},
    {kSplit, "DISABLE_SPLIT"},
    {kPagedKV, "DISABLE_PAGEDKV"},
    {kAppendKV, "DISABLE_APPENDKV"},
    {kLocal, "DISABLE_LOCAL"},
    {kSoftcap, "DISABLE_SOFTCAP"},
    {kPackGQA, "DISABLE_PACKGQA"},
    {kFP16, "DISABLE_FP16"},
    {kFP8, "DISABLE_FP8"},
    {kVarlen, "DISABLE_VARLEN"},
    {kHDim64, "DISABLE_HDIM64"},
    {kHDim96, "DISABLE_HDIM96"},
    {kHDim128, "DISABLE_HDIM128"},
    {kHDim192, "DISABLE_HDIM192"},
    {kHDim256, "DISABLE_HDIM256"},
    {kHDimDiff64, "DISABLE_HDIMDIFF64"},
    {kHDimDiff192, "DISABLE_HDIMDIFF192"},
    {kSM80, "DISABLE_SM80"},
};

struct Text {
  char letters[512] = "";

  Text() {
    std::size_t used = 0;
    for (const Switch& entry : kSwitches) {
      if (!entry.compiled) {
        used += static_cast<std::size_t>(
            std::snprintf(letters + used, sizeof letters - used, "%s%s", used == 0 ? "" : " ", entry.name));
      }
    }
  }
};

}  // namespace

const char* switches() {
  static const Text text;
  return text.letters;
}

}  // namespace hopperforge::fa3
