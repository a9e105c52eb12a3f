#include <cmath>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "op_cases.h"
#include "op_harness.h"

namespace llmfp8::testing {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

struct Setup {
  std::int64_t heads, kv_heads, dim;
  std::vector<std::int32_t> lengths;  // of the documents
  std::int64_t width() const { return (heads + 2 * kv_heads) * dim; }
};

// Naive attention of one query head in fp64: probabilities [n, n] and its input columns.
struct Head {
  std::int64_t n, dim;
  std::vector<double> q, k, v, p;  // [n, dim], [n, n]
  std::vector<double> lse;

  Head(const std::vector<float>& qkv, const Setup& s, std::int64_t begin, std::int64_t n_, std::int64_t head,
       double scale)
      : n(n_), dim(s.dim), p(at(n_ * n_)), lse(at(n_)) {
    const std::int64_t kv = s.heads + head / (s.heads / s.kv_heads);
    for (std::int64_t t = 0; t < n; ++t) {
      for (std::int64_t i = 0; i < dim; ++i) {
        q.push_back(qkv[at((begin + t) * s.width() + head * dim + i)]);
        k.push_back(qkv[at((begin + t) * s.width() + kv * dim + i)]);
        v.push_back(qkv[at((begin + t) * s.width() + (kv + s.kv_heads) * dim + i)]);
      }
    }
    for (std::int64_t t = 0; t < n; ++t) {
      double total = 0;
      for (std::int64_t u = 0; u <= t; ++u) {
        double dot = 0;
        for (std::int64_t i = 0; i < dim; ++i) dot += q[at(t * dim + i)] * k[at(u * dim + i)];
        p[at(t * n + u)] = std::exp(scale * dot);
        total += p[at(t * n + u)];
      }
      for (std::int64_t u = 0; u <= t; ++u) p[at(t * n + u)] /= total;
      lse[at(t)] = std::log(total);
    }
  }
};

// CUDA runs bf16 heads of whole 16 bytes on cuDNN, whose tensor cores take bf16 factors: P enters P·V, and P and dS
// enter the gradients, rounded to bf16 where every other engine keeps fp32. With u = 2^-8 and the fp32 terms left out:
// |out error| <= u * |out| + u * sum |P||V|; |d_qkv error| <= u * |d_qkv| + 2 u * magnitude, the second one because each
// query head's part of dK and dV is a bf16 before the group's parts are added.
bool rounds_weights(const Backend& backend, DType a, const Setup& s) {
  return backend.name() == "cuda" && a == DType::bf16 && s.dim % 8 == 0;
}

void attention_case(Backend& backend, DType a, const Setup& s, std::int64_t capacity) {
  Device device(backend);
  std::vector<std::int32_t> bounds{0};
  for (std::int32_t n : s.lengths) bounds.push_back(bounds.back() + n);
  const std::int64_t live = bounds.back(), width = s.width(), out_width = s.heads * s.dim;
  bounds.insert(bounds.end(), 3, bounds.back());  // unused slots
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(s.dim)));
  const auto qkv = rounded(random_values(capacity * width, 1), a),
             d_out = rounded(random_values(capacity * out_width, 2), a);
  const std::int64_t longest = *std::max_element(s.lengths.begin(), s.lengths.end());
  const auto result = expect_blind_to_tail(device, [&](float tail) {
    const AttentionShape shape{s.heads, s.kv_heads, s.dim, longest, scale};
    const Tensor in = device.upload(with_tail(qkv, width, live, tail), a, Shape{capacity, width});
    const Tensor d = device.upload(with_tail(d_out, out_width, live, tail), a, Shape{capacity, out_width});
    const Tensor cu = device.upload(bounds, Shape{static_cast<std::int64_t>(bounds.size())});
    const Tensor count = device.count(static_cast<std::int32_t>(live)),
                 out = device.garbage(a, Shape{capacity, out_width});
    const Tensor lse = device.garbage(DType::f32, Shape{s.heads, capacity}),
                 d_qkv = device.garbage(a, Shape{capacity, width});
    device.run([&](Ops& ops) {
      ops.attention({shape, in, cu, count, out, lse});
      ops.attention_backward({shape, d, in, out, lse, cu, count, d_qkv});
    });
    return std::vector<Tensor>{out, lse, d_qkv};
  });
  // The backward pass sees the rounded output, as it stands on the device.
  const auto out_rounded = device.floats(result[0]);
  std::vector<Expected> out(at(capacity * out_width)), lse(at(s.heads * capacity)), d_qkv(at(capacity * width));
  for (std::size_t doc = 0; doc < s.lengths.size(); ++doc) {
    const std::int64_t begin = bounds[doc], n = s.lengths[doc];
    for (std::int64_t head = 0; head < s.heads; ++head) {
      const Head h(qkv, s, begin, n, head, scale);
      const std::int64_t kv = s.heads + head / (s.heads / s.kv_heads);
      for (std::int64_t t = 0; t < n; ++t) {
        double row_sum = 0, row_sum_magnitude = 0;
        for (std::int64_t i = 0; i < s.dim; ++i) {
          const std::size_t o = at((begin + t) * out_width + head * s.dim + i);
          for (std::int64_t u = 0; u <= t; ++u) out[o].add(h.p[at(t * n + u)] * h.v[at(u * s.dim + i)]);
          row_sum += double{d_out[o]} * out_rounded[o];
          row_sum_magnitude += std::abs(double{d_out[o]} * out_rounded[o]);
        }
        Expected& l = lse[at(head * capacity + begin + t)];
        l.add(h.lse[at(t)]);
        l.magnitude += 4;  // the scores behind it
        for (std::int64_t u = 0; u <= t; ++u) {
          double dp = 0, dp_magnitude = 0;
          for (std::int64_t i = 0; i < s.dim; ++i) {
            const double term = double{d_out[at((begin + t) * out_width + head * s.dim + i)]} * h.v[at(u * s.dim + i)];
            dp += term;
            dp_magnitude += std::abs(term);
          }
          const double p = h.p[at(t * n + u)], ds = scale * p * (dp - row_sum);
          const double ds_magnitude = scale * p * (dp_magnitude + row_sum_magnitude);
          const auto add = [&](std::int64_t row, std::int64_t column, double factor, double other) {
            Expected& e = d_qkv[at((begin + row) * width + column)];
            e.value += factor * other;
            e.magnitude += ds_magnitude * std::abs(other);
          };
          for (std::int64_t i = 0; i < s.dim; ++i) {
            add(t, head * s.dim + i, ds, h.k[at(u * s.dim + i)]);
            add(u, kv * s.dim + i, ds, h.q[at(t * s.dim + i)]);
            d_qkv[at((begin + u) * width + (kv + s.kv_heads) * s.dim + i)].add(
                p * d_out[at((begin + t) * out_width + head * s.dim + i)]);
          }
        }
      }
    }
  }
  const std::int64_t terms = longest + s.dim;
  const int roundings = rounds_weights(backend, a, s) ? 1 : 0;
  expect_close("out", out_rounded, out, a, terms, roundings);
  expect_close("lse", device.floats(result[1]), lse, DType::f32, terms);
  expect_close("d_qkv", device.floats(result[2]), d_qkv, a, terms * (s.heads / s.kv_heads), 2 * roundings);
  expect_zero_tail(device, "out", result[0], live);
  expect_zero_tail(device, "d_qkv", result[2], live);
}

// Token by token against the caches equals the whole document at once; so does a prefill followed by one step.
void decode_case(Backend& backend, DType a, const Setup& s) {
  Device device(backend);
  const std::int64_t width = s.width(), step = s.kv_heads * s.dim, max_len = 150, slots = 5;
  const std::int64_t batch = static_cast<std::int64_t>(s.lengths.size());
  const float scale = 0.3f;
  std::vector<std::int32_t> bounds{0}, positions, places, prefix_bounds{0};
  for (std::int32_t n : s.lengths) {
    bounds.push_back(bounds.back() + n);
    positions.push_back(n - 1);
    places.push_back(static_cast<std::int32_t>(slots - 1 - static_cast<std::int64_t>(places.size())));
    prefix_bounds.push_back(prefix_bounds.back() + n - 1);
  }
  const std::int64_t tokens = bounds.back();
  const auto qkv = rounded(random_values(tokens * width, 1), a);
  std::vector<float> prefix, last;
  for (std::int64_t b = 0; b < batch; ++b) {
    const auto row = [&](std::int64_t r) { return qkv.begin() + r * width; };
    prefix.insert(prefix.end(), row(bounds[at(b)]), row(bounds[at(b + 1)] - 1));
    last.insert(last.end(), row(bounds[at(b + 1)] - 1), row(bounds[at(b + 1)]));
  }
  const AttentionShape shape{s.heads, s.kv_heads, s.dim, max_len, scale};
  const Tensor k_cache = device.garbage(a, Shape{slots, max_len * step}),
               v_cache = device.garbage(a, Shape{slots, max_len * step});
  const Tensor slot_ids = device.upload(places, Shape{batch}), out = device.garbage(a, Shape{batch, s.heads * s.dim});
  const Tensor prefill = device.upload(prefix, a, Shape{prefix_bounds.back(), width});
  const Tensor next = device.upload(last, a, Shape{batch, width}),
               at_positions = device.upload(positions, Shape{batch});
  const Tensor cu = device.upload(prefix_bounds, Shape{batch + 1});
  device.run([&](Ops& ops) {
    ops.cache_fill({shape, prefill, cu, slot_ids, k_cache, v_cache});
    ops.attention_decode({shape, next, at_positions, k_cache, v_cache, slot_ids, out});
  });
  std::vector<Expected> want(at(batch * s.heads * s.dim));
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t head = 0; head < s.heads; ++head) {
      const std::int64_t n = s.lengths[at(b)];
      const Head h(qkv, s, bounds[at(b)], n, head, static_cast<double>(scale));
      for (std::int64_t i = 0; i < s.dim; ++i) {
        for (std::int64_t u = 0; u < n; ++u) {
          want[at((b * s.heads + head) * s.dim + i)].add(h.p[at((n - 1) * n + u)] * h.v[at(u * s.dim + i)]);
        }
      }
    }
  }
  expect_close("out", device.floats(out), want, a, max_len);
}

}  // namespace

void add_attention_cases(std::vector<OpCase>& cases) {
  for (DType a : {DType::f32, DType::bf16}) {
    const auto add = [&](const char* what, const Setup& s, std::int64_t capacity) {
      cases.push_back(
          {fmt::format("attention/{}/{}", name(a), what), [=](Backend& b) { attention_case(b, a, s, capacity); }});
    };
    add("one_token", {2, 1, 16, {1}}, 128);
    add("all_but_one", {3, 3, 10, {40, 87}}, 128);
    add("full", {6, 2, 32, {1, 31, 32, 33, 31}}, 128);
    add("long", {2, 1, 64, {300, 5}}, 384);
    const auto add_decode = [&](const char* what, const Setup& s) {
      cases.push_back({fmt::format("attention_decode/{}/{}", name(a), what), [=](Backend& b) { decode_case(b, a, s); }});
    };
    add_decode("24", {6, 2, 24, {1, 2, 64, 65, 150}});
    add_decode("64", {9, 3, 64, {1, 7, 8, 9, 130}});
    add_decode("128", {2, 2, 128, {3, 66}});
    add_decode("many_heads", {40, 1, 256, {1, 37}});
  }
}

}  // namespace llmfp8::testing
