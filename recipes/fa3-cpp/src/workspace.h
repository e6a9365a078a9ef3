// Hands out parts of the caller's workspace; with no workspace it only counts.
#ifndef HOPPERFORGE_FA3_WORKSPACE_H
#define HOPPERFORGE_FA3_WORKSPACE_H

#include <cstddef>
#include <cstdint>

namespace hopperforge::fa3 {

class Workspace {
 public:
  static constexpr std::size_t kAlignment = 256;

  explicit Workspace(void* base) : base_(reinterpret_cast<std::uintptr_t>(base)) {}

  template <typename Item>
  Item* take(std::int64_t count) {
    const std::size_t begin = used_;
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(Item);
    used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return reinterpret_cast<Item*>(base_ + begin);
  }

  std::size_t used() const { return used_; }

 private:
  std::uintptr_t base_;
  std::size_t used_ = 0;
};

}  // namespace hopperforge::fa3

#endif
