#include <cmath>
#include <limits>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/float8.h"
#include "op_cases.h"
#include "op_harness.h"
#include "quantized.h"

namespace llmfp8::testing {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// An empty quantised matrix with every form, as `like` has it.
QTensor blank(Device& device, const QTensor& like, bool just_in_time, float scale) {
  QTensor q = like;
  q.just_in_time = just_in_time;
  q.rowwise = device.garbage(DType::u8, like.rowwise.shape);
  q.columnwise = device.garbage(DType::u8, like.columnwise.shape);
  if (like.scaling == Scaling::tensor) {
    q.scale = device.upload({just_in_time ? kNan : scale}, DType::f32, Shape{1});
    q.rowwise_scale_inv = q.columnwise_scale_inv = device.upload({1.0f / scale}, DType::f32, Shape{1});
  } else {
    q.rowwise_scale_inv = device.garbage(DType::u8, like.rowwise_scale_inv.shape);
    q.columnwise_scale_inv = device.garbage(DType::u8, like.columnwise_scale_inv.shape);
  }
  q.amax = device.upload({0.25f}, DType::f32, Shape{1});
  return q;
}

void quantize_case(Backend& backend, DType a, Scaling scaling, DType format, std::int64_t live, bool just_in_time) {
  Device device(backend);
  const Shape shape{96, 544};
  auto values = rounded(random_values(shape.numel(), 1, 3.0f), a);
  values[5] = kNan;
  values[6] = -0.0f;
  values[7] = 1e-30f;
  values = rounded(values, a);
  const Quantized want = make_quantized(device, backend, values, shape, scaling, format, live);
  const auto out = expect_blind_to_tail(device, [&](float tail) {
    const QTensor q = blank(device, want.tensor, just_in_time, want.scale);
    const Tensor x = device.upload(with_tail(values, shape[1], live, tail), a, shape);
    const Tensor count = device.count(static_cast<std::int32_t>(live));
    device.run([&](Ops& ops) { ops.quantize(x, count, q); });
    std::vector<Tensor> outputs{q.rowwise, q.columnwise, q.rowwise_scale_inv, q.columnwise_scale_inv, q.amax};
    if (scaling == Scaling::tensor) outputs.push_back(q.scale);
    return outputs;
  });
  EXPECT_EQ(device.bytes(out[0]), want.rowwise);
  EXPECT_EQ(device.bytes(out[1]), want.columnwise);
  if (scaling == Scaling::mx_1x32) {
    EXPECT_EQ(device.bytes(out[2]), want.rowwise_scales);
    EXPECT_EQ(device.bytes(out[3]), want.columnwise_scales);
  } else {
    EXPECT_EQ(device.floats(out[2])[0], 1.0f / want.scale);
    EXPECT_EQ(device.floats(out[5])[0], want.scale);
  }
  float amax = 0.25f;
  for (std::int64_t i = 0; i < live * shape[1]; ++i)
    amax = std::isnan(values[at(i)]) ? amax : std::max(amax, std::abs(values[at(i)]));
  EXPECT_EQ(device.floats(out[4])[0], amax);
}

// zero, tiny, infinite, NaN: the four cases of just-in-time scaling.
void numeric_case(Backend& backend, DType format) {
  Device device(backend);
  const auto scale_of = [&](std::vector<float> values, std::vector<std::uint8_t>* codes) {
    values.resize(32);
    const Shape shape{1, 32};
    const Quantized like = make_quantized(device, backend, values, shape, Scaling::tensor, format, 1);
    const QTensor q = blank(device, like.tensor, true, 1.0f);
    const Tensor x = device.upload(values, DType::f32, shape), count = device.count(1);
    device.run([&](Ops& ops) { ops.quantize(x, count, q); });
    *codes = device.bytes(q.rowwise);
    return device.floats(q.scale)[0];
  };
  const std::uint8_t max_code = format == DType::e4m3 ? 0x7E : 0x7B;
  std::vector<std::uint8_t> codes;
  EXPECT_EQ(scale_of({0.0f, -0.0f}, &codes), 1.0f);
  EXPECT_EQ(codes[0], 0);
  EXPECT_EQ(codes[1], 0x80);
  EXPECT_EQ(scale_of({1e-40f}, &codes), 3.402823466e+38f);
  EXPECT_EQ(scale_of({kInfinity, -kInfinity, 1.0f}, &codes), 1.0f);
  EXPECT_EQ(codes[0], max_code);
  EXPECT_EQ(codes[1], max_code | 0x80);
  EXPECT_EQ(scale_of({kNan, 2.0f}, &codes), fp8_max(format) / 2.0f);
  EXPECT_EQ(codes[0], 0x7F);
  EXPECT_EQ(codes[1], max_code);
}

void amax_case(Backend& backend, DType a, std::int64_t live) {
  Device device(backend);
  const auto x = rounded(random_values(70 * 533, 1), a);
  const auto out = expect_blind_to_tail(device, [&](float tail) {
    const Tensor t = device.upload(with_tail(x, 533, live, tail), a, Shape{70, 533}),
                 slot = device.upload({0.5f}, DType::f32, Shape{1});
    const Tensor count = device.count(static_cast<std::int32_t>(live));
    device.run([&](Ops& ops) { ops.amax(t, count, slot); });
    return std::vector<Tensor>{slot};
  });
  float want = 0.5f;
  for (std::int64_t i = 0; i < live * 533; ++i) want = std::max(want, std::abs(x[at(i)]));
  EXPECT_EQ(device.floats(out[0])[0], want);
}

// A fused producer gives the bytes of its primitives.
void fused_case(Backend& backend, DType a, Scaling scaling, bool just_in_time, std::int64_t live) {
  Device device(backend);
  const std::int64_t rows = 96, cols = 544, heads = 15, kv_heads = 1, head_dim = 32;  // (15 + 2 * 1) * 32 = 544
  const auto x = rounded(random_values(rows * 2 * cols, 1), a), w = rounded(random_values(cols, 2), a);
  const Quantized like =
      make_quantized(device, backend, random_values(rows * cols, 3), Shape{rows, cols}, scaling, DType::e4m3, rows);
  const auto bytes_of = [&](const QTensor& q) {
    std::vector<std::vector<std::uint8_t>> all;
    for (const Tensor& t : {q.rowwise, q.columnwise, q.rowwise_scale_inv, q.columnwise_scale_inv, q.amax})
      all.push_back(device.bytes(t));
    return all;
  };
  const Tensor wide = device.upload(with_tail(x, 2 * cols, live, kNan), a, Shape{rows, 2 * cols});
  const Tensor narrow = wide.slice_cols(0, cols), weight = device.upload(w, a, Shape{cols});
  const Tensor count = device.count(static_cast<std::int32_t>(live));
  const Tensor y = device.garbage(a, Shape{rows, cols}), z = device.garbage(a, Shape{rows, cols});
  const Tensor rstd = device.garbage(DType::f32, Shape{rows}), rstd_fused = device.garbage(DType::f32, Shape{rows});
  const Quantized like_wide =
      make_quantized(device, backend, random_values(rows * 2 * cols, 3), Shape{rows, 2 * cols}, scaling, DType::e5m2, rows);
  const Tensor dy = device.upload(with_tail(rounded(random_values(rows * cols, 4), a), cols, live, kNan), a, Shape{rows, cols});
  const auto copy_of = [&](const std::vector<float>& values, std::int64_t width) {
    return device.upload(with_tail(values, width, live, kNan), a, Shape{rows, width});
  };
  const auto qkv = rounded(random_values(rows * cols, 5), a);
  const Tensor gate_up[] = {copy_of(x, 2 * cols), copy_of(x, 2 * cols)}, rotated[] = {copy_of(qkv, cols), copy_of(qkv, cols)};
  const Tensor positions = device.upload(random_integers(rows, 6, 50), Shape{rows});
  const Tensor angles = device.upload(random_values(50 * head_dim, 7), DType::f32, Shape{50, head_dim});
  const auto rope_of = [&](const Tensor& t) { return RopeArgs{t, positions, count, angles, heads, kv_heads, head_dim, true}; };
  const Tensor logits[] = {copy_of(qkv, cols), copy_of(qkv, cols)}, labels = device.upload(random_integers(rows, 8, cols), Shape{rows});
  const Tensor losses[] = {device.garbage(DType::f32, Shape{rows}), device.garbage(DType::f32, Shape{rows})};
  // As the second chunk of a batch, whose first one held 40 rows.
  const Tensor count_behind = device.count(static_cast<std::int32_t>(live + 40));
  const auto loss_of = [&](int i) { return CrossEntropyArgs{logits[i], labels, count_behind, 40, true, losses[i]}; };
  std::vector<QTensor> q;
  for (int i = 0; i < 10; ++i) q.push_back(blank(device, (i == 4 || i == 5 ? like_wide : like).tensor, just_in_time, 3.0f));
  device.run([&](Ops& ops) {
    ops.rmsnorm({narrow, weight, count, 1e-5, y, rstd});
    ops.quantize(y, count, q[0]);
    ops.rmsnorm_quantize({narrow, weight, count, 1e-5, q[1], rstd_fused});
    ops.swiglu({wide, count, z});
    ops.quantize(z, count, q[2]);
    ops.swiglu_quantize({wide, count, q[3]});
    ops.swiglu_backward({dy, gate_up[0], count, gate_up[0]});
    ops.quantize(gate_up[0], count, q[4]);
    ops.swiglu_backward_quantize({dy, gate_up[1], count, q[5]});
    ops.rope(rope_of(rotated[0]));
    ops.quantize(rotated[0], count, q[6]);
    ops.rope_quantize({rope_of(rotated[1]), q[7]});
    ops.cross_entropy(loss_of(0));
    ops.quantize(logits[0], count_behind, q[8]);
    ops.cross_entropy_quantize({loss_of(1), q[9]});
  });
  EXPECT_EQ(bytes_of(q[0]), bytes_of(q[1]));
  EXPECT_EQ(device.bytes(rstd), device.bytes(rstd_fused));
  EXPECT_EQ(bytes_of(q[2]), bytes_of(q[3]));
  EXPECT_EQ(bytes_of(q[4]), bytes_of(q[5]));
  EXPECT_EQ(bytes_of(q[6]), bytes_of(q[7]));
  EXPECT_EQ(bytes_of(q[8]), bytes_of(q[9]));
  EXPECT_EQ(device.bytes(losses[0]), device.bytes(losses[1]));
}

// A step that is not ok changes neither codes nor scales; an ok one sets the weight's amax afresh.
void gated_case(Backend& backend) {
  Device device(backend);
  const auto values = random_values(64 * 96, 1);
  const Quantized want = make_quantized(device, backend, values, Shape{64, 96}, Scaling::tensor, DType::e4m3, 64);
  const Tensor weight = device.upload(values, DType::f32, Shape{64, 96});
  for (std::uint32_t ok : {0u, 1u}) {
    StepScalars start;
    start.step_ok = ok;
    StepScalars* scalars = device.scalars(start);
    QTensor q = blank(device, want.tensor, false, want.scale);
    q.amax = device.upload({100.0f}, DType::f32, Shape{1});
    const auto before = device.bytes(q.rowwise);
    ScaleUpdateArgs update;
    update.amax = device.upload({2.0f, 0.0f, 8.0f, kInfinity}, DType::f32, Shape{4});
    update.history = device.upload({0, 1, 4, 0, 1, 0, 0, 1, 2, 0, 0, 0}, DType::f32, Shape{4, 3});
    std::vector<float> slots(16, 0.0f);
    for (std::size_t i = 0; i < 4; ++i) slots[4 * i] = 7.0f;
    update.scale = device.upload(slots, DType::f32, Shape{4, 4});
    update.scale_inv = device.upload(slots, DType::f32, Shape{4, 4});
    update.format_max = device.upload({448.0f, 448.0f, 0.0f, 57344.0f}, DType::f32, Shape{4});
    update.scalars = scalars;
    device.run([&](Ops& ops) {
      ops.quantize_weight(weight, q, scalars);
      ops.update_scales(update);
    });
    const auto scale = device.floats(update.scale), inverse = device.floats(update.scale_inv),
               history = device.floats(update.history);
    if (ok == 0) {
      EXPECT_EQ(device.bytes(q.rowwise), before);
      EXPECT_EQ(device.floats(q.amax)[0], 100.0f);
      EXPECT_EQ(scale, slots);
      EXPECT_EQ(history, (std::vector<float>{0, 1, 4, 0, 1, 0, 0, 1, 2, 0, 0, 0}));
      continue;
    }
    EXPECT_EQ(device.bytes(q.rowwise), want.rowwise);
    float amax = 0.0f;
    for (float v : values) amax = std::max(amax, std::abs(v));
    EXPECT_EQ(device.floats(q.amax)[0], amax);
    EXPECT_EQ(scale[0], 112.0f);  // 448 over the window's maximum, 4
    EXPECT_EQ(inverse[0], 1.0f / 112.0f);
    EXPECT_EQ(scale[4], 7.0f);   // a zero step freezes the scale
    EXPECT_EQ(scale[8], 7.0f);   // not delayed-scaled
    EXPECT_EQ(scale[12], 7.0f);  // an infinity in the window keeps the scale
    EXPECT_EQ(history, (std::vector<float>{0, 4, 2, 0, 1, 0, 0, 1, 2, 0, 0, kInfinity}));
  }
}

}  // namespace

void add_quantize_cases(std::vector<OpCase>& cases) {
  for (DType a : {DType::f32, DType::bf16}) {
    for (DType format : {DType::e4m3, DType::e5m2}) {
      for (std::int64_t live : {1, 95, 96}) {
        const std::string where = fmt::format("{}_{}/{}", name(a), name(format), live);
        cases.push_back({"quantize_current/" + where,
                         [=](Backend& b) { quantize_case(b, a, Scaling::tensor, format, live, true); }});
        cases.push_back({"quantize_delayed/" + where,
                         [=](Backend& b) { quantize_case(b, a, Scaling::tensor, format, live, false); }});
        cases.push_back(
            {"quantize_mx/" + where, [=](Backend& b) { quantize_case(b, a, Scaling::mx_1x32, format, live, false); }});
      }
    }
    for (std::int64_t live : {1, 69, 70}) {
      cases.push_back({fmt::format("amax/{}/{}", name(a), live), [=](Backend& b) { amax_case(b, a, live); }});
    }
    for (std::int64_t live : {1, 95, 96}) {
      cases.push_back({fmt::format("fused/{}_current/{}", name(a), live),
                       [=](Backend& b) { fused_case(b, a, Scaling::tensor, true, live); }});
      cases.push_back({fmt::format("fused/{}_delayed/{}", name(a), live),
                       [=](Backend& b) { fused_case(b, a, Scaling::tensor, false, live); }});
      cases.push_back({fmt::format("fused/{}_mx/{}", name(a), live),
                       [=](Backend& b) { fused_case(b, a, Scaling::mx_1x32, false, live); }});
    }
  }
  cases.push_back({"numeric_cases/e4m3", [](Backend& b) { numeric_case(b, DType::e4m3); }});
  cases.push_back({"numeric_cases/e5m2", [](Backend& b) { numeric_case(b, DType::e5m2); }});
  cases.push_back({"step_ok_gate", gated_case});
}

std::vector<OpCase> op_cases() {
  std::vector<OpCase> cases;
  add_dense_cases(cases);
  add_attention_cases(cases);
  add_loss_cases(cases);
  add_gemm_cases(cases);
  add_quantize_cases(cases);
  return cases;
}

}  // namespace llmfp8::testing
