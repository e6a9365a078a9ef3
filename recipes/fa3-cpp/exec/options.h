// What the program is asked to do.
#ifndef FLASH_ATTENTION_EXEC_OPTIONS_H
#define FLASH_ATTENTION_EXEC_OPTIONS_H

#include <cstdint>

#include "hopperforge/flash_attention.h"

struct Options {
  hopperforge::fa3::DType dtype = hopperforge::fa3::DType::bfloat16;
  int batch = 2;
  int seqlen_q = 512;
  int seqlen_k = 0;  // 0: as seqlen_q
  int heads = 4;
  int heads_k = 0;  // 0: as heads
  int head_dim = 128;
  int head_dim_v = 0;  // 0: as head_dim
  bool causal = false;
  int window_left = -1;
  int window_right = -1;
  double softcap = 0.0;
  bool varlen = false;
  int page_size = 0;  // 0: not paged
  int append = 0;     // new keys of each sequence
  int splits = 0;     // 0: chosen by the library
  bool backward = false;
  bool deterministic = false;
  bool lse = true;
  int repeat = 0;  // timed calls
  bool overhead = false;
  std::int64_t rows = 4096;  // most rows that are checked; 0: none
  double tolerance = 0.0;    // 0: the dtype's
  std::uint64_t seed = 1;
};

// Read the command line; ends the program, with 0 after --help and 2 after a word it does not know.
Options parse(int count, char** words);

const char* dtype_name(hopperforge::fa3::DType dtype);

#endif
