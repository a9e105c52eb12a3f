#include <cmath>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "op_cases.h"
#include "op_harness.h"

namespace llmfp8::testing {
namespace {

constexpr std::int64_t kRows = 70;
constexpr std::int64_t kCols = 533;  // odd, and longer than one chunk of the CPU's loops

std::vector<Expected> nothing(std::int64_t n) { return std::vector<Expected>(static_cast<std::size_t>(n)); }
std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

void rmsnorm_case(Backend& backend, DType a, std::int64_t live) {
  Device device(backend);
  const auto x = rounded(random_values(kRows * kCols, 1), a), w = rounded(random_values(kCols, 2), a);
  const double eps = 1e-5;
  const auto out = expect_blind_to_tail(device, [&](float tail) {
    RmsnormArgs args{device.upload(with_tail(x, kCols, live, tail), a, Shape{kRows, kCols}),
                     device.upload(w, a, Shape{kCols}),
                     device.count(static_cast<std::int32_t>(live)),
                     eps,
                     device.garbage(a, Shape{kRows, kCols}),
                     device.garbage(DType::f32, Shape{kRows})};
    device.run([&](Ops& ops) { ops.rmsnorm(args); });
    return std::vector<Tensor>{args.y, args.rstd};
  });
  auto y = nothing(kRows * kCols), rstd = nothing(kRows);
  for (std::int64_t r = 0; r < live; ++r) {
    double squares = 0;
    for (std::int64_t c = 0; c < kCols; ++c) squares += double{x[at(r * kCols + c)]} * x[at(r * kCols + c)];
    rstd[at(r)].add(1.0 / std::sqrt(squares / kCols + eps));
    for (std::int64_t c = 0; c < kCols; ++c)
      y[at(r * kCols + c)].add(x[at(r * kCols + c)] * rstd[at(r)].value * w[at(c)]);
  }
  expect_close("y", device.floats(out[0]), y, a, 0);
  expect_close("rstd", device.floats(out[1]), rstd, DType::f32, 0);
  expect_zero_tail(device, "y", out[0], live);
  expect_zero_tail(device, "rstd", out[1], live);
}

void rmsnorm_backward_case(Backend& backend, DType a, std::int64_t live, bool accumulate) {
  Device device(backend);
  const auto x = rounded(random_values(kRows * kCols, 1), a), w = rounded(random_values(kCols, 2), a);
  const auto dy = rounded(random_values(kRows * kCols, 3), a), residual = rounded(random_values(kRows * kCols, 4), a);
  const auto before = random_values(kCols, 5);
  const auto rstds = [&] {
    std::vector<float> values(at(kRows));
    for (std::int64_t r = 0; r < kRows; ++r) {
      double squares = 0;
      for (std::int64_t c = 0; c < kCols; ++c) squares += double{x[at(r * kCols + c)]} * x[at(r * kCols + c)];
      values[at(r)] = static_cast<float>(1.0 / std::sqrt(squares / kCols + 1e-5));
    }
    return values;
  }();
  const auto out = expect_blind_to_tail(device, [&](float tail) {
    const auto matrix = [&](const std::vector<float>& v) {
      return device.upload(with_tail(v, kCols, live, tail), a, Shape{kRows, kCols});
    };
    RmsnormBackwardArgs args;
    args.dy = matrix(dy);
    args.x = matrix(x);
    args.weight = device.upload(w, a, Shape{kCols});
    args.rstd = device.upload(with_tail(rstds, 1, live, tail), DType::f32, Shape{kRows});
    args.num_rows = device.count(static_cast<std::int32_t>(live));
    if (accumulate) {
      args.d_residual = matrix(residual);
      args.dx = args.d_residual;  // allowed: dx may be d_residual
    } else {
      args.dx = device.garbage(a, Shape{kRows, kCols});
    }
    args.d_weight = {
        accumulate ? device.upload(before, DType::f32, Shape{kCols}) : device.garbage(DType::f32, Shape{kCols}),
        accumulate};
    device.run([&](Ops& ops) { ops.rmsnorm_backward(args); });
    return std::vector<Tensor>{args.dx, args.d_weight.tensor};
  });
  auto dx = nothing(kRows * kCols), dw = nothing(kCols);
  for (std::int64_t c = 0; c < kCols && accumulate; ++c) dw[at(c)].add(before[at(c)]);
  for (std::int64_t r = 0; r < live; ++r) {
    Expected mean;
    const double rstd = rstds[at(r)];
    for (std::int64_t c = 0; c < kCols; ++c)
      mean.add(double{dy[at(r * kCols + c)]} * w[at(c)] * x[at(r * kCols + c)] / kCols);
    for (std::int64_t c = 0; c < kCols; ++c) {
      const std::size_t i = at(r * kCols + c);
      if (accumulate) dx[i].add(residual[i]);
      dx[i].add(rstd * dy[i] * w[at(c)]);
      dx[i].add(-rstd * x[i] * rstd * rstd * mean.value);
      dw[at(c)].add(double{dy[i]} * x[i] * rstd);
    }
  }
  expect_close("dx", device.floats(out[0]), dx, a, 4);
  expect_close("d_weight", device.floats(out[1]), dw, DType::f32, live);
  expect_zero_tail(device, "dx", out[0], live);
}

void rope_case(Backend& backend, DType a, std::int64_t live, bool inverse) {
  Device device(backend);
  constexpr std::int64_t kHeads = 3, kKv = 1, kDim = 10, kWidth = (kHeads + 2 * kKv) * kDim, kPositions = 40;
  const auto qkv = rounded(random_values(kRows * kWidth, 1), a), table = random_values(kPositions * kDim, 2);
  const auto positions = random_integers(kRows, 3, kPositions);
  const auto out = expect_blind_to_tail(device, [&](float tail) {
    RopeArgs args;
    args.qkv = device.upload(with_tail(qkv, kWidth, live, tail), a, Shape{kRows, kWidth});
    auto wild = positions;
    for (std::int64_t r = live; r < kRows; ++r) wild[at(r)] = tail == 0.0f ? 0 : -12345678;
    args.positions = device.upload(wild, Shape{kRows});
    args.num_tokens = device.count(static_cast<std::int32_t>(live));
    args.cos_sin = device.upload(table, DType::f32, Shape{kPositions, kDim});
    args.num_heads = kHeads;
    args.num_kv_heads = kKv;
    args.head_dim = kDim;
    args.inverse = inverse;
    device.run([&](Ops& ops) { ops.rope(args); });
    return std::vector<Tensor>{args.qkv};
  });
  auto want = nothing(kRows * kWidth);
  const double sign = inverse ? -1.0 : 1.0;
  for (std::int64_t r = 0; r < live; ++r) {
    for (std::int64_t head = 0; head < kHeads + 2 * kKv; ++head) {
      for (std::int64_t i = 0; i < kDim / 2; ++i) {
        const std::size_t first = at(r * kWidth + head * kDim + i), second = first + kDim / 2;
        if (head >= kHeads + kKv) {
          want[first].add(qkv[first]);
          want[second].add(qkv[second]);
          continue;
        }
        const double c = table[at(positions[at(r)] * kDim + i)],
                     s = sign * table[at(positions[at(r)] * kDim + kDim / 2 + i)];
        want[first].add(qkv[first] * c);
        want[first].add(-qkv[second] * s);
        want[second].add(qkv[second] * c);
        want[second].add(qkv[first] * s);
      }
    }
  }
  expect_close("qkv", device.floats(out[0]), want, a, 0);
  expect_zero_tail(device, "qkv", out[0], live);
}

void swiglu_case(Backend& backend, DType a, std::int64_t live, bool in_place) {
  Device device(backend);
  const auto gate_up = rounded(random_values(kRows * 2 * kCols, 1, 4.0f), a),
             dy = rounded(random_values(kRows * kCols, 2), a);
  const auto out = expect_blind_to_tail(device, [&](float tail) {
    const Tensor both = device.upload(with_tail(gate_up, 2 * kCols, live, tail), a, Shape{kRows, 2 * kCols});
    const Tensor count = device.count(static_cast<std::int32_t>(live)), y = device.garbage(a, Shape{kRows, kCols});
    const Tensor d = in_place ? both : device.garbage(a, Shape{kRows, 2 * kCols});
    const Tensor d_y = device.upload(with_tail(dy, kCols, live, tail), a, Shape{kRows, kCols});
    device.run([&](Ops& ops) {
      ops.swiglu({both, count, y});
      ops.swiglu_backward({d_y, both, count, d});
    });
    return std::vector<Tensor>{y, d};
  });
  auto y = nothing(kRows * kCols), d = nothing(kRows * 2 * kCols);
  for (std::int64_t r = 0; r < live; ++r) {
    for (std::int64_t c = 0; c < kCols; ++c) {
      const double g = gate_up[at(r * 2 * kCols + c)], u = gate_up[at(r * 2 * kCols + kCols + c)],
                   g_out = dy[at(r * kCols + c)];
      const double sigmoid = 1.0 / (1.0 + std::exp(-g));
      y[at(r * kCols + c)].add(g * sigmoid * u);
      d[at(r * 2 * kCols + c)].add(g_out * u * sigmoid);
      d[at(r * 2 * kCols + c)].add(g_out * u * sigmoid * g * (1.0 - sigmoid));
      d[at(r * 2 * kCols + c)].magnitude += std::abs(g_out * u * sigmoid * g);  // what cancels in 1 - sigmoid
      d[at(r * 2 * kCols + kCols + c)].add(g_out * g * sigmoid);
    }
  }
  expect_close("y", device.floats(out[0]), y, a, 0);
  expect_close("d_gate_up", device.floats(out[1]), d, a, 0);
  expect_zero_tail(device, "y", out[0], live);
  expect_zero_tail(device, "d_gate_up", out[1], live);
}

void embedding_case(Backend& backend, DType a, std::int64_t live, bool accumulate) {
  Device device(backend);
  constexpr std::int64_t kVocab = 19, kHidden = 300;
  const auto table = rounded(random_values(kVocab * kHidden, 1), a),
             d_out = rounded(random_values(kRows * kHidden, 2), a);
  const auto before = random_values(kVocab * kHidden, 4);
  const auto tokens = random_integers(kRows, 3, kVocab - 1);  // the last one never occurs
  const auto out = expect_blind_to_tail(device, [&](float tail) {
    auto wild = tokens;
    for (std::int64_t r = live; r < kRows; ++r) wild[at(r)] = tail == 0.0f ? 0 : 0x7FFFFFFF;
    const Tensor ids = device.upload(wild, Shape{kRows}), count = device.count(static_cast<std::int32_t>(live));
    const Tensor rows = device.garbage(a, Shape{kRows, kHidden});
    const GradDestination grad{accumulate ? device.upload(before, DType::f32, Shape{kVocab, kHidden})
                                          : device.garbage(DType::f32, Shape{kVocab, kHidden}),
                               accumulate};
    const Tensor weights = device.upload(table, a, Shape{kVocab, kHidden});
    const Tensor d = device.upload(with_tail(d_out, kHidden, live, tail), a, Shape{kRows, kHidden});
    device.run([&](Ops& ops) {
      ops.embedding({weights, ids, count, rows});
      ops.embedding_backward({d, ids, count, grad});
    });
    return std::vector<Tensor>{rows, grad.tensor};
  });
  auto rows = nothing(kRows * kHidden), grad = nothing(kVocab * kHidden);
  for (std::int64_t i = 0; i < kVocab * kHidden && accumulate; ++i) grad[at(i)].add(before[at(i)]);
  for (std::int64_t r = 0; r < live; ++r) {
    for (std::int64_t c = 0; c < kHidden; ++c) {
      rows[at(r * kHidden + c)].value = table[at(tokens[at(r)] * kHidden + c)];
      grad[at(tokens[at(r)] * kHidden + c)].add(d_out[at(r * kHidden + c)]);
    }
  }
  expect_close("out", device.floats(out[0]), rows, DType::f32, 0);
  expect_close("d_table", device.floats(out[1]), grad, DType::f32, live);
  expect_zero_tail(device, "out", out[0], live);
}

void bias_case(Backend& backend, DType a, std::int64_t live, bool accumulate) {
  Device device(backend);
  const auto dy = rounded(random_values(kRows * kCols, 1), a), before = random_values(kCols, 2);
  const auto out = expect_blind_to_tail(device, [&](float tail) {
    const GradDestination grad{
        accumulate ? device.upload(before, DType::f32, Shape{kCols}) : device.garbage(DType::f32, Shape{kCols}),
        accumulate};
    const BiasBackwardArgs args{device.upload(with_tail(dy, kCols, live, tail), a, Shape{kRows, kCols}),
                                device.count(static_cast<std::int32_t>(live)), grad};
    device.run([&](Ops& ops) { ops.bias_backward(args); });
    return std::vector<Tensor>{grad.tensor};
  });
  auto want = nothing(kCols);
  for (std::int64_t c = 0; c < kCols && accumulate; ++c) want[at(c)].add(before[at(c)]);
  for (std::int64_t r = 0; r < live; ++r) {
    for (std::int64_t c = 0; c < kCols; ++c) want[at(c)].add(dy[at(r * kCols + c)]);
  }
  expect_close("d_bias", device.floats(out[0]), want, DType::f32, live);
}

void memory_case(Backend& backend, DType from, DType to) {
  Device device(backend);
  const auto values = rounded(random_values(kRows * kCols, 1), from);
  const Tensor source = device.upload(values, from, Shape{kRows, kCols}),
               target = device.garbage(to, Shape{kRows, kCols});
  const Tensor flat = device.garbage(to, Shape{kRows * kCols}), cleared = device.garbage(to, Shape{kRows, kCols});
  device.run([&](Ops& ops) {
    ops.copy(source, target);
    ops.copy(source.reshape(Shape{kRows * kCols}), flat);
    ops.zero(cleared);
  });
  EXPECT_EQ(device.floats(target), rounded(values, to));
  EXPECT_EQ(device.floats(flat), rounded(values, to));
  expect_zero_tail(device, "zero", cleared, 0);
  // A slice of columns: what lies beside it stays.
  const Tensor before = device.upload(values, to, Shape{kRows, kCols});
  device.run([&](Ops& ops) { ops.copy(source.slice_cols(3, 7), before.slice_cols(100, 7)); });
  auto want = rounded(values, to);
  for (std::int64_t r = 0; r < kRows; ++r) {
    for (std::int64_t c = 0; c < 7; ++c)
      want[at(r * kCols + 100 + c)] = rounded({values[at(r * kCols + 3 + c)]}, to)[0];
  }
  EXPECT_EQ(device.floats(before), want);
}

void squares_case(Backend& backend, DType a, std::int64_t n) {
  Device device(backend);
  const auto grad = rounded(random_values(n, 1), a);
  StepScalars start;
  start.grad_sum_squares = 3.0;
  StepScalars* scalars = device.scalars(start);
  const Tensor t = device.upload(grad, a, Shape{n});
  device.run([&](Ops& ops) { ops.accumulate_sum_of_squares(t, scalars); });
  double want = 3.0;
  for (float g : grad) want += double{g} * g;
  EXPECT_NEAR(device.download(scalars).grad_sum_squares, want, 1e-12 * want);
}

}  // namespace

void add_dense_cases(std::vector<OpCase>& cases) {
  for (DType a : {DType::f32, DType::bf16}) {
    const auto add = [&](const std::string& op, std::int64_t n, std::function<void(Backend&)> run) {
      cases.push_back({fmt::format("{}/{}/{}", op, name(a), n), std::move(run)});
    };
    for (std::int64_t live : {std::int64_t{1}, kRows - 1, kRows}) {
      add("rmsnorm", live, [=](Backend& b) { rmsnorm_case(b, a, live); });
      for (bool flag : {false, true}) {
        const std::string suffix = flag ? "_2" : "";
        add("rmsnorm_backward" + suffix, live, [=](Backend& b) { rmsnorm_backward_case(b, a, live, flag); });
        add("rope" + suffix, live, [=](Backend& b) { rope_case(b, a, live, flag); });
        add("swiglu" + suffix, live, [=](Backend& b) { swiglu_case(b, a, live, flag); });
        add("embedding" + suffix, live, [=](Backend& b) { embedding_case(b, a, live, flag); });
        add("bias_backward" + suffix, live, [=](Backend& b) { bias_case(b, a, live, flag); });
      }
    }
    for (DType to : {DType::f32, DType::bf16}) {
      add(fmt::format("memory_to_{}", name(to)), kRows, [=](Backend& b) { memory_case(b, a, to); });
    }
    for (std::int64_t n : {1, 4097, 3000001}) add("sum_of_squares", n, [=](Backend& b) { squares_case(b, a, n); });
  }
}

}  // namespace llmfp8::testing
