#include "options.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <limits>

using hopperforge::fa3::DType;

namespace {

constexpr const char* kHelp =
    "usage: flash_attention_exec [OPTION]...\n"
    "Run FlashAttention-3 on the current GPU, check it against a reference in double precision, print the error and,\n"
    "with --repeat, TFLOP/s. Status: 0 right, 1 too large an error, 2 bad options, 3 refused by the library, 4 CUDA.\n"
    "\n"
    "  --dtype bf16|fp16|e4m3      bf16\n"
    "  --batch N                   2\n"
    "  --seqlen N, --seqlen-k N    512, and for keys the same\n"
    "  --heads N, --heads-k N      4, and for keys the same\n"
    "  --head-dim N, --head-dim-v N\n"
    "                              128, and for values the same\n"
    "  --causal                    each query sees the keys up to its own place\n"
    "  --window LEFT,RIGHT         each query sees so many keys beside its place; -1 is no limit\n"
    "  --softcap X                 scores become X * tanh(score / X)\n"
    "  --varlen                    packed sequences of different lengths; with pages, lengths of the cache\n"
    "  --paged SIZE                keys and values in pages of SIZE, in a mixed order\n"
    "  --append N                  the last N keys are appended to the cache by the call\n"
    "  --splits N                  keys in N parts\n"
    "  --no-lse                    without the logarithms of the sums\n"
    "  --backward                  gradients as well\n"
    "  --deterministic             gradients with the same bits in every run\n"
    "  --repeat N                  time N calls\n"
    "  --overhead                  what a call costs beside its kernels\n"
    "  --rows N                    check at most N rows of the output, spread evenly (4096); 0 checks none\n"
    "  --tolerance X               the largest relative error: 3e-3 for bf16 and fp16, 5e-2 for e4m3\n"
    "  --seed N                    of the inputs (1)\n";

constexpr double kLargestCount = 9007199254740992.0;  // up to which a double has every whole number

[[noreturn]] void refuse(const char* word, const char* what) {
  std::fprintf(stderr, "error: %s: %s\nhint: flash_attention_exec --help\n", word, what);
  std::exit(2);
}

class Words {
 public:
  Words(int count, char** words) : count_(count), words_(words) {}

  bool next() { return ++at_ < count_; }
  const char* word() const { return words_[at_]; }
  bool is(const char* option) const { return std::strcmp(word(), option) == 0; }

  const char* value() {
    const char* option = word();
    if (!next()) refuse(option, "a value is missing");
    return word();
  }

  double number() {
    const char* option = word();
    const char* text = value();
    char* end = nullptr;
    const double found = std::strtod(text, &end);
    if (end == text || *end != '\0') refuse(option, "the value is no number");
    return found;
  }

  // A whole number from `least`, which is 0 or 1, to `most`.
  template <typename Number>
  Number whole(int least, double most) {
    const char* option = word();
    const double found = number();
    if (!(std::trunc(found) == found && found <= most)) refuse(option, "the value is no whole number");
    if (found < least) refuse(option, least == 0 ? "must be at least 0" : "must be at least 1");
    return static_cast<Number>(found);
  }

 private:
  int count_;
  char** words_;
  int at_ = 0;
};

DType parse_dtype(const char* text) {
  for (const DType dtype : {DType::bfloat16, DType::float16, DType::float8_e4m3}) {
    if (std::strcmp(text, dtype_name(dtype)) == 0) return dtype;
  }
  refuse(text, "is none of bf16, fp16, e4m3");
}

void parse_window(const char* text, Options& options) {
  char beyond = '\0';
  if (std::sscanf(text, "%d,%d%c", &options.window_left, &options.window_right, &beyond) != 2) {
    refuse(text, "is no window, such as 64,0");
  }
}

bool take_number(Words& words, Options& options) {
  struct Whole {
    const char* option;
    int* place;
    int least;
  };
  const Whole wholes[] = {
      {"--batch", &options.batch, 1},           {"--seqlen", &options.seqlen_q, 1},
      {"--seqlen-k", &options.seqlen_k, 1},     {"--heads", &options.heads, 1},
      {"--heads-k", &options.heads_k, 1},       {"--head-dim", &options.head_dim, 1},
      {"--head-dim-v", &options.head_dim_v, 1}, {"--paged", &options.page_size, 0},
      {"--append", &options.append, 0},         {"--splits", &options.splits, 0},
      {"--repeat", &options.repeat, 0},
  };
  for (const Whole& whole : wholes) {
    if (words.is(whole.option)) {
      *whole.place = words.whole<int>(whole.least, std::numeric_limits<int>::max());
      return true;
    }
  }
  return false;
}

bool take_flag(const Words& words, Options& options) {
  struct Flag {
    const char* option;
    bool* place;
    bool value;
  };
  const Flag flags[] = {
      {"--causal", &options.causal, true},     {"--varlen", &options.varlen, true},
      {"--backward", &options.backward, true}, {"--deterministic", &options.deterministic, true},
      {"--overhead", &options.overhead, true}, {"--no-lse", &options.lse, false},
  };
  for (const Flag& flag : flags) {
    if (words.is(flag.option)) {
      *flag.place = flag.value;
      return true;
    }
  }
  return false;
}

void take(Words& words, Options& options) {
  if (take_number(words, options) || take_flag(words, options)) return;
  if (words.is("--dtype")) {
    options.dtype = parse_dtype(words.value());
  } else if (words.is("--window")) {
    parse_window(words.value(), options);
  } else if (words.is("--softcap")) {
    options.softcap = words.number();
  } else if (words.is("--tolerance")) {
    options.tolerance = words.number();
  } else if (words.is("--rows")) {
    options.rows = words.whole<std::int64_t>(0, kLargestCount);
  } else if (words.is("--seed")) {
    options.seed = words.whole<std::uint64_t>(0, kLargestCount);
  } else if (words.is("--help")) {
    std::fputs(kHelp, stdout);
    std::exit(0);
  } else {
    refuse(words.word(), "is no option");
  }
}

}  // namespace

const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::float16:
      return "fp16";
    case DType::bfloat16:
      return "bf16";
    case DType::float8_e4m3:
      return "e4m3";
  }
  return "?";
}

Options parse(int count, char** words) {
  Options options;
  Words left(count, words);
  while (left.next()) take(left, options);
  if (options.seqlen_k == 0) options.seqlen_k = options.seqlen_q;
  if (options.heads_k == 0) options.heads_k = options.heads;
  if (options.head_dim_v == 0) options.head_dim_v = options.head_dim;
  if (options.heads % options.heads_k != 0) refuse("--heads-k", "must divide --heads");
  if (options.tolerance == 0.0) options.tolerance = options.dtype == DType::float8_e4m3 ? 5e-2 : 3e-3;
  if (options.backward && (options.page_size > 0 || options.append > 0))
    refuse("--backward", "is for neither pages nor appended keys");
  if (options.append > 0 && (options.append >= options.seqlen_k || options.seqlen_q > options.seqlen_k)) {
    refuse("--append", "must be below --seqlen-k, which must not be below --seqlen");
  }
  return options;
}
