#include "reference.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <thread>

namespace {

void fill(Elements& elements, std::uint64_t seed, float scale) {
  in_parallel((elements.count() + 65535) / 65536, [&](std::int64_t part) {
    const std::int64_t end = std::min(elements.count(), (part + 1) * 65536);
    for (std::int64_t index = part * 65536; index < end; ++index) {
      elements.set(index, scale * normal(seed, static_cast<std::uint64_t>(index)));
    }
  });
}

// Lengths between one and `longest`; one sequence has them all, so that the longest is what it says.
std::vector<int> random_lengths(const Options& options, int shortest, int longest, std::uint64_t seed) {
  std::vector<int> lengths(static_cast<std::size_t>(options.batch), longest);
  for (std::size_t index = 1; options.varlen && index < lengths.size(); ++index) {
    const double share = std::abs(static_cast<double>(normal(seed, index))) / 3.5;
    lengths[index] = shortest + static_cast<int>((longest - shortest) * std::min(share, 1.0));
  }
  return lengths;
}

double dot(const Elements& left, std::int64_t at_left, const Elements& right, std::int64_t at_right, int count) {
  double sum = 0.0;
  for (int index = 0; index < count; ++index) sum += left[at_left + index] * right[at_right + index];
  return sum;
}

// Scores of the keys that a query sees, and how each changes with the plain product.
struct Scores {
  Seen seen;
  std::vector<double> score;
  std::vector<double> slope;
};

Scores scores(const Inputs& inputs, int batch, int row, int head) {
  const Options& options = inputs.options;
  Scores found{seen_keys(inputs, batch, row), {}, {}};
  for (int key = found.seen.begin; key < found.seen.end; ++key) {
    const double product = dot(inputs.q, inputs.query(batch, row, head), inputs.k,
                               inputs.key(batch, key, inputs.key_head(head)), options.head_dim);
    const double scaled = product * static_cast<double>(inputs.scale);
    const double curve = options.softcap > 0.0 ? std::tanh(scaled / options.softcap) : 0.0;
    found.score.push_back(options.softcap > 0.0 ? options.softcap * curve : scaled);
    found.slope.push_back(options.softcap > 0.0 ? 1.0 - curve * curve : 1.0);
  }
  return found;
}

// Those of double have a symbol of glibc 2.29, those of long double are as old as glibc: packages must do with 2.28.
double exponential(double value) { return static_cast<double>(std::exp(static_cast<long double>(value))); }
double logarithm(double value) { return static_cast<double>(std::log(static_cast<long double>(value))); }

// Turn scores into weights; the logarithm of their sum.
double normalise(std::vector<double>& score) {
  if (score.empty()) return -std::numeric_limits<double>::infinity();
  const double largest = *std::max_element(score.begin(), score.end());
  double sum = 0.0;
  for (double& item : score) sum += item = exponential(item - largest);
  for (double& item : score) item /= sum;
  return largest + logarithm(sum);
}

// The gradients of one (batch, key head): nothing else writes to its rows.
void add_gradients(const Inputs& inputs, int batch, int key_head, Gradients& found) {
  const Options& options = inputs.options;
  const int group = options.heads / options.heads_k;
  for (int head = key_head * group; head < (key_head + 1) * group; ++head) {
    for (int row = 0; row < inputs.lengths_q[static_cast<std::size_t>(batch)]; ++row) {
      Scores all = scores(inputs, batch, row, head);
      normalise(all.score);
      const std::int64_t out = inputs.output(batch, row, head);
      const std::int64_t query = inputs.query(batch, row, head);
      std::vector<double> change(all.score.size());
      double mean = 0.0;
      for (std::size_t index = 0; index < change.size(); ++index) {
        const std::int64_t value = inputs.value(batch, all.seen.begin + static_cast<int>(index), key_head);
        change[index] = dot(inputs.dout, out, inputs.v, value, options.head_dim_v);
        mean += all.score[index] * change[index];
      }
      for (std::size_t index = 0; index < change.size(); ++index) {
        const int place = all.seen.begin + static_cast<int>(index);
        const std::int64_t key = inputs.key(batch, place, key_head);
        const std::int64_t value = inputs.value(batch, place, key_head);
        const double weight = all.score[index];
        const double slope = weight * (change[index] - mean) * all.slope[index] * static_cast<double>(inputs.scale);
        for (int item = 0; item < options.head_dim; ++item) {
          found.dq[static_cast<std::size_t>(query + item)] += slope * inputs.k[key + item];
          found.dk[static_cast<std::size_t>(key + item)] += slope * inputs.q[query + item];
        }
        for (int item = 0; item < options.head_dim_v; ++item) {
          found.dv[static_cast<std::size_t>(value + item)] += weight * inputs.dout[out + item];
        }
      }
    }
  }
}

}  // namespace

void in_parallel(std::int64_t count, const std::function<void(std::int64_t)>& call) {
  std::atomic<std::int64_t> next{0};
  const auto work = [&] {
    for (std::int64_t index = next++; index < count; index = next++) call(index);
  };
  std::vector<std::thread> threads;
  const auto processors = static_cast<std::int64_t>(std::thread::hardware_concurrency());
  for (std::int64_t index = 1; index < std::min(processors, count); ++index) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
}

Inputs make_inputs(const Options& options) {
  const std::int64_t queries = std::int64_t{options.batch} * options.seqlen_q * options.heads;
  const std::int64_t keys = std::int64_t{options.batch} * options.seqlen_k * options.heads_k;
  Inputs inputs{options,
                random_lengths(options, 1, options.seqlen_q, options.seed + 11),
                random_lengths(options, options.append + 1, options.seqlen_k, options.seed + 12),
                Elements(options.dtype, queries * options.head_dim),
                Elements(options.dtype, keys * options.head_dim),
                Elements(options.dtype, keys * options.head_dim_v),
                Elements(options.dtype, options.backward ? queries * options.head_dim_v : 0)};
  inputs.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(options.head_dim)));
  fill(inputs.q, options.seed + 1, 1.0f);
  fill(inputs.k, options.seed + 2, 1.0f);
  fill(inputs.v, options.seed + 3, 1.0f);
  fill(inputs.dout, options.seed + 4, 1.0f);
  return inputs;
}

Seen seen_keys(const Inputs& inputs, int batch, int row) {
  const Options& options = inputs.options;
  const int keys = inputs.lengths_k[static_cast<std::size_t>(batch)];
  const int place = row + keys - inputs.lengths_q[static_cast<std::size_t>(batch)];
  const int right = options.causal ? 0 : options.window_right;
  Seen seen{0, keys};
  if (options.window_left >= 0) seen.begin = std::max(seen.begin, place - options.window_left);
  if (right >= 0) seen.end = std::min(seen.end, place + right + 1);
  seen.end = std::max(seen.begin, seen.end);
  return seen;
}

Row attend(const Inputs& inputs, int batch, int row, int head) {
  Scores all = scores(inputs, batch, row, head);
  Row found{std::vector<double>(static_cast<std::size_t>(inputs.options.head_dim_v)), 0.0};
  found.lse = normalise(all.score);
  for (std::size_t index = 0; index < all.score.size(); ++index) {
    const std::int64_t value = inputs.value(batch, all.seen.begin + static_cast<int>(index), inputs.key_head(head));
    for (std::size_t item = 0; item < found.out.size(); ++item) {
      found.out[item] += all.score[index] * inputs.v[value + static_cast<std::int64_t>(item)];
    }
  }
  return found;
}

Gradients gradients(const Inputs& inputs) {
  const Options& options = inputs.options;
  Gradients found{std::vector<double>(static_cast<std::size_t>(inputs.q.count())),
                  std::vector<double>(static_cast<std::size_t>(inputs.k.count())),
                  std::vector<double>(static_cast<std::size_t>(inputs.v.count()))};
  in_parallel(std::int64_t{options.batch} * options.heads_k, [&](std::int64_t index) {
    add_gradients(inputs, static_cast<int>(index / options.heads_k), static_cast<int>(index % options.heads_k), found);
  });
  return found;
}
