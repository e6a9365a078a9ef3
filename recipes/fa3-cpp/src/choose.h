// Turns a value known when the call is made into one known when it is compiled.
#ifndef HOPPERFORGE_FA3_CHOOSE_H
#define HOPPERFORGE_FA3_CHOOSE_H

#include <type_traits>

#include "built.h"

namespace hopperforge::fa3 {

// Call with std::true_type or std::false_type; without `Compiled` there are kernels for false alone.
template <bool Compiled, typename Call>
void choose(bool value, const Call& call) {
  if constexpr (Compiled) {
    if (value) return call(std::true_type{});
  }
  call(std::false_type{});
}

template <int Value>
using Number = std::integral_constant<int, Value>;

// Call with the architecture that serves one: 8.6 and 8.9 share kernels, and so do all others of 8.x.
template <typename Call>
void choose_architecture(int architecture, const Call& call) {
  if constexpr (kSM80) {
    if (architecture == 86 || architecture == 89) return call(Number<86>{});
    if (architecture < 90) return call(Number<80>{});
  }
  call(Number<90>{});
}

}  // namespace hopperforge::fa3

#endif
