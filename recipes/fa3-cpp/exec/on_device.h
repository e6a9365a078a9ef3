// Inputs brought to the GPU in the layout that was asked for, and the call over them.
#ifndef FLASH_ATTENTION_EXEC_ON_DEVICE_H
#define FLASH_ATTENTION_EXEC_ON_DEVICE_H

#include <cuda_runtime_api.h>

#include <cstdint>
#include <vector>

#include "reference.h"

// End the program with status 4 and CUDA's words.
void require(cudaError_t error, const char* what);

// Memory of the device that is freed with this.
class Memory {
 public:
  Memory() = default;
  explicit Memory(std::size_t bytes);
  Memory(const void* source, std::size_t bytes);
  Memory(Memory&& other) noexcept;
  Memory& operator=(Memory&& other) noexcept;
  ~Memory();

  void* data() const { return data_; }
  std::size_t size() const { return bytes_; }
  void download(void* target, std::size_t bytes) const;

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

Memory upload(const Elements& elements);
Memory upload(const std::vector<int>& numbers);

// One problem on the device. Not copied: parameters point into the memory beside them.
class OnDevice {
 public:
  explicit OnDevice(const Inputs& inputs);
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

  // Size and take workspaces; says why where the library refuses, and then ends the program with status 3.
  void prepare();
  hopperforge::fa3::Status forward(cudaStream_t stream) const;
  hopperforge::fa3::Status backward(cudaStream_t stream) const;

  // Where a query's row lies in the outputs, without its head.
  std::int64_t token_q(int batch, int row) const;
  std::int64_t token_k(int batch, int row) const;
  std::int64_t lse_place(int batch, int row, int head) const;

  Elements out() const;
  std::vector<float> lse() const;
  Elements dq() const;
  Elements dk() const;
  Elements dv() const;

 private:
  void place_queries();
  void place_keys();
  void place_pages();
  void place_appended();
  void place_gradients();
  Elements packed_queries(const Elements& source, int width) const;
  Elements packed_keys(const Elements& source, int width, float filler) const;

  const Inputs& inputs_;
  bool packed_q_ = false;
  bool packed_k_ = false;
  std::vector<int> begin_q_;
  std::vector<int> begin_k_;
  Memory q_, k_, v_, out_, lse_, cu_q_, cu_k_, used_k_, pages_, new_k_, new_v_;
  Memory dout_, dq_, dk_, dv_;
  Memory workspace_, backward_workspace_;
  hopperforge::fa3::ForwardParams forward_;
  hopperforge::fa3::BackwardParams backward_;
};

#endif
