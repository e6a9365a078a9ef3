// Attention and its gradients in double precision on the processor, as plainly as can be: what the kernels are judged
// by.
#ifndef FLASH_ATTENTION_EXEC_REFERENCE_H
#define FLASH_ATTENTION_EXEC_REFERENCE_H

#include <cstdint>
#include <functional>
#include <vector>

#include "numbers.h"
#include "options.h"

// Inputs as the mathematics sees them, wherever they lie on the device: (batch, sequence, heads, head dimension), with
// the lengths of each sequence; `do_` is the gradient of the output, for backward alone.
struct Inputs {
  Options options;
  std::vector<int> lengths_q;
  std::vector<int> lengths_k;
  Elements q;
  Elements k;
  Elements v;
  Elements dout;
  float scale = 0.0f;

  std::int64_t query(int batch, int row, int head) const {
    return ((std::int64_t{batch} * options.seqlen_q + row) * options.heads + head) * options.head_dim;
  }
  std::int64_t output(int batch, int row, int head) const {
    return ((std::int64_t{batch} * options.seqlen_q + row) * options.heads + head) * options.head_dim_v;
  }
  std::int64_t key(int batch, int row, int head) const {
    return ((std::int64_t{batch} * options.seqlen_k + row) * options.heads_k + head) * options.head_dim;
  }
  std::int64_t value(int batch, int row, int head) const {
    return ((std::int64_t{batch} * options.seqlen_k + row) * options.heads_k + head) * options.head_dim_v;
  }
  int key_head(int head) const { return head / (options.heads / options.heads_k); }
};

Inputs make_inputs(const Options& options);

// The keys that a query sees are those from `begin` to `end`, which is not one of them.
struct Seen {
  int begin;
  int end;
};
Seen seen_keys(const Inputs& inputs, int batch, int row);

struct Row {
  std::vector<double> out;
  double lse;  // minus infinity where no key is seen
};
Row attend(const Inputs& inputs, int batch, int row, int head);

// Gradients in the layouts of Inputs, of q, k and v.
struct Gradients {
  std::vector<double> dq;
  std::vector<double> dk;
  std::vector<double> dv;
};
Gradients gradients(const Inputs& inputs);

// Call for each number below `count`, on all processors; the calls must not depend on each other.
void in_parallel(std::int64_t count, const std::function<void(std::int64_t)>& call);

#endif
