// Elements of each type and their values; the conversions are CUDA's own, which run on the host as well.
#ifndef FLASH_ATTENTION_EXEC_NUMBERS_H
#define FLASH_ATTENTION_EXEC_NUMBERS_H

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "hopperforge/flash_attention.h"

inline int element_bytes(hopperforge::fa3::DType dtype) {
  return dtype == hopperforge::fa3::DType::float8_e4m3 ? 1 : 2;
}

// Elements of one type, read and written as numbers.
class Elements {
 public:
  Elements(hopperforge::fa3::DType dtype, std::int64_t count)
      : dtype_(dtype), bytes_(static_cast<std::size_t>(count) * static_cast<std::size_t>(element_bytes(dtype))) {}

  std::size_t size_bytes() const { return bytes_.size(); }
  std::int64_t count() const { return static_cast<std::int64_t>(bytes_.size()) / element_bytes(dtype_); }
  void* data() { return bytes_.data(); }
  const void* data() const { return bytes_.data(); }

  double operator[](std::int64_t index) const {
    switch (dtype_) {
      case hopperforge::fa3::DType::bfloat16:
        return static_cast<double>(__bfloat162float(at<__nv_bfloat16>(index)));
      case hopperforge::fa3::DType::float16:
        return static_cast<double>(__half2float(at<__half>(index)));
      case hopperforge::fa3::DType::float8_e4m3:
        return static_cast<double>(static_cast<float>(at<__nv_fp8_e4m3>(index)));
    }
    return NAN;
  }

  void set(std::int64_t index, float value) {
    switch (dtype_) {
      case hopperforge::fa3::DType::bfloat16:
        at<__nv_bfloat16>(index) = __float2bfloat16_rn(value);
        break;
      case hopperforge::fa3::DType::float16:
        at<__half>(index) = __float2half_rn(value);
        break;
      case hopperforge::fa3::DType::float8_e4m3:
        at<__nv_fp8_e4m3>(index) = __nv_fp8_e4m3(value);
        break;
    }
  }

 private:
  template <typename Element>
  Element& at(std::int64_t index) {
    return reinterpret_cast<Element*>(bytes_.data())[index];
  }
  template <typename Element>
  const Element& at(std::int64_t index) const {
    return reinterpret_cast<const Element*>(bytes_.data())[index];
  }

  hopperforge::fa3::DType dtype_;
  std::vector<std::uint8_t> bytes_;
};

// The number of a place in a sequence of random ones that are nearly normal, with mean 0 and variance 1: the sum of
// four uniform numbers from one hash (splitmix64), so that threads need no order.
inline float normal(std::uint64_t seed, std::uint64_t index) {
  std::uint64_t hash = seed * 0x9e3779b97f4a7c15ULL + (index + 1) * 0xd1342543de82ef95ULL;
  hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9ULL;
  hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebULL;
  hash ^= hash >> 31;
  int sum = 0;
  for (int part = 0; part < 4; ++part) sum += static_cast<int>((hash >> (16 * part)) & 0xffff);
  return (static_cast<float>(sum) / 65536.0f - 2.0f) * 1.7320508f;
}

#endif
