#include "op_harness.h"

#include <cmath>
#include <cstring>
#include <limits>

#include <gtest/gtest.h>

#include "backend/plan/plan_ops.h"
#include "core/bf16.h"
#include "core/rng.h"

namespace llmfp8::testing {

Tensor Device::hold(const void* data, DType dtype, Shape shape) {
  Tensor t(nullptr, dtype, shape);
  buffers_.push_back(backend_.allocate(std::max<std::size_t>(t.bytes(), 1), "test tensor"));
  backend_.copy_to_device(buffers_.back().data(), data, t.bytes(), *stream_);
  backend_.synchronize(*stream_);
  t.data = buffers_.back().data();
  return t;
}

Tensor Device::upload(const std::vector<float>& values, DType dtype, Shape shape) {
  EXPECT_EQ(static_cast<std::int64_t>(values.size()), shape.numel());
  if (dtype == DType::f32) return hold(values.data(), dtype, shape);
  std::vector<bf16> narrow(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) narrow[i] = to_bf16(values[i]);
  return hold(narrow.data(), dtype, shape);
}

Tensor Device::upload(const std::vector<std::int32_t>& values, Shape shape) {
  return hold(values.data(), DType::i32, shape);
}

Tensor Device::upload_codes(const std::vector<std::uint8_t>& codes, Shape shape) {
  return hold(codes.data(), DType::u8, shape);
}

Tensor Device::garbage(DType dtype, Shape shape) {
  const std::vector<std::uint8_t> ones(Tensor(nullptr, dtype, shape).bytes(), 0xFF);
  return hold(ones.data(), dtype, shape);
}

Usages Device::usages(Scaling scaling) {
  Arena none;
  return backend_.create_ops(*stream_, none)->usages(scaling);
}

StepScalars* Device::scalars(const StepScalars& values) {
  std::vector<std::uint8_t> raw(sizeof values);
  std::memcpy(raw.data(), &values, sizeof values);
  return static_cast<StepScalars*>(upload_codes(raw, Shape{static_cast<std::int64_t>(raw.size())}).data);
}

std::vector<std::uint8_t> Device::bytes(const Tensor& t) {
  std::vector<std::uint8_t> raw(t.bytes());
  backend_.copy_to_host(raw.data(), t.data, raw.size(), *stream_);
  backend_.synchronize(*stream_);
  return raw;
}

std::vector<float> Device::floats(const Tensor& t) {
  const std::vector<std::uint8_t> raw = bytes(t);
  std::vector<float> values(static_cast<std::size_t>(t.numel()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (t.dtype == DType::f32) {
      std::memcpy(&values[i], raw.data() + i * sizeof(float), sizeof(float));
    } else {
      bf16 narrow;
      std::memcpy(&narrow, raw.data() + i * sizeof narrow, sizeof narrow);
      values[i] = to_float(narrow);
    }
  }
  return values;
}

StepScalars Device::download(const StepScalars* scalars) {
  StepScalars values;
  backend_.copy_to_host(&values, scalars, sizeof values, *stream_);
  backend_.synchronize(*stream_);
  return values;
}

void Device::run(const std::function<void(Ops&)>& body) {
  Arena planner;
  const std::unique_ptr<Ops> real = backend_.create_ops(*stream_, planner);
  PlanOps plan_ops(*real, planner);
  planner.begin_phase("case");
  body(plan_ops);
  planner.end_phase();

  const ArenaPlan plan = planner.plan();
  const std::size_t bytes = std::max<std::size_t>(plan.peak_bytes(), kArenaAlignment);
  const Buffer memory = backend_.allocate(bytes + kArenaAlignment, "test arena");
  const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
  std::byte* base =
      static_cast<std::byte*>(memory.data()) + (kArenaAlignment - address % kArenaAlignment) % kArenaAlignment;
  // Scratch begins as garbage: nothing may rely on it being zero.
  const std::vector<std::uint8_t> ones(bytes, 0xFF);
  backend_.copy_to_device(base, ones.data(), bytes, *stream_);
  Arena arena(plan, base, bytes);
  const std::unique_ptr<Ops> ops = backend_.create_ops(*stream_, arena);
  arena.begin_phase("case");
  body(*ops);
  backend_.synchronize(*stream_);
  arena.end_phase();
  EXPECT_LE(arena.high_water_bytes(), plan.peak_bytes());
}

std::vector<float> random_values(std::int64_t n, std::uint64_t seed, float scale) {
  std::vector<float> values(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const Philox4 bits = philox4x32(seed, i, 1);
    const double u = (static_cast<double>(bits.x[0]) + 0.5) * 0x1.0p-32, v = static_cast<double>(bits.x[1]) * 0x1.0p-32;
    values[i] = scale * static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v));
  }
  return values;
}

std::vector<std::int32_t> random_integers(std::int64_t n, std::uint64_t seed, std::int32_t below) {
  std::vector<std::int32_t> values(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<std::int32_t>(philox4x32(seed, i, 2).x[0] % static_cast<std::uint32_t>(below));
  }
  return values;
}

std::vector<float> rounded(std::vector<float> values, DType dtype) {
  if (dtype == DType::bf16) {
    for (float& value : values) value = to_float(to_bf16(value));
  }
  return values;
}

std::vector<float> with_tail(std::vector<float> values, std::int64_t cols, std::int64_t live, float value) {
  for (std::size_t i = static_cast<std::size_t>(live * cols); i < values.size(); ++i) values[i] = value;
  return values;
}

void expect_close(const std::string& what, const std::vector<float>& got, const std::vector<Expected>& expected,
                  DType dtype, std::int64_t terms, int bf16_roundings) {
  ASSERT_EQ(got.size(), expected.size()) << what;
  const double unit = dtype == DType::bf16 ? 0x1.0p-8 : 0x1.0p-24;
  const double relative = static_cast<double>(terms + 8) * 0x1.0p-24 + bf16_roundings * 0x1.0p-8;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double value = expected[i].value;
    const double allowed = unit * std::abs(value) * 1.001 + relative * expected[i].magnitude;
    const double error = std::abs(static_cast<double>(got[i]) - value);
    ASSERT_TRUE(error <= allowed) << what << "[" << i << "]: " << got[i] << ", wanted " << value << " within "
                                  << allowed;
  }
}

std::vector<Tensor> expect_blind_to_tail(Device& device, const std::function<std::vector<Tensor>(float tail)>& once) {
  const std::vector<Tensor> clean = once(0.0f), dirty = once(std::numeric_limits<float>::quiet_NaN());
  for (std::size_t i = 0; i < clean.size(); ++i) {
    EXPECT_EQ(device.bytes(clean[i]), device.bytes(dirty[i])) << "output " << i << " depends on what the tail holds";
  }
  return dirty;
}

void expect_zero_tail(Device& device, const std::string& what, const Tensor& t, std::int64_t live) {
  const std::vector<std::uint8_t> raw = device.bytes(t);
  const std::size_t row_bytes =
      t.shape.rank() == 1 ? size_bytes(t.dtype) : static_cast<std::size_t>(t.cols()) * size_bytes(t.dtype);
  for (std::size_t i = static_cast<std::size_t>(live) * row_bytes; i < raw.size(); ++i) {
    ASSERT_EQ(raw[i], 0) << what << ": byte " << i << " of the tail";
  }
}

}  // namespace llmfp8::testing
