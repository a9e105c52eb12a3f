// One FP8 linear layer, forward and backward, against goldens/fp8/linear_fp8.safetensors: codes and scales bit for bit,
// outputs within one bf16 step (the order of summation).
#include <bit>
#include <cmath>
#include <cstring>
#include <tuple>

#include <gtest/gtest.h>

#include "backend/registry.h"
#include "op_harness.h"
#include "support/golden.h"
#include "support/safetensors_lite.h"

namespace llmfp8::testing {
namespace {

class Fp8Linear : public ::testing::Test {
 protected:
  static constexpr std::int64_t kTokens = 96, kIn = 128, kOut = 64;

  Tensor input(const std::string& name, Shape shape) {
    const auto raw = golden_.read<std::uint16_t>(name);
    std::vector<float> values(raw.size());
    for (std::size_t i = 0; i < raw.size(); ++i)
      values[i] = std::bit_cast<float>(static_cast<std::uint32_t>(raw[i]) << 16);
    return device_.upload(values, DType::bf16, shape);
  }

  QTensor blank(Scaling scaling, DType format, Shape shape) {
    QTensor q;
    q.scaling = scaling;
    q.format = format;
    q.shape = shape;
    q.rowwise = device_.garbage(DType::u8, shape);
    if (scaling == Scaling::tensor) {
      q.just_in_time = true;
      q.scale = device_.garbage(DType::f32, Shape{1});
      q.rowwise_scale_inv = device_.garbage(DType::f32, Shape{1});
      q.amax = device_.upload({0.0f}, DType::f32, Shape{1});
      return q;
    }
    q.columnwise = device_.garbage(DType::u8, shape);
    q.rowwise_scale_inv = device_.garbage(DType::u8, Shape{shape[0], shape[1] / 32});
    q.columnwise_scale_inv = device_.garbage(DType::u8, Shape{shape[0] / 32, shape[1]});
    return q;
  }

  void expect_codes(const QTensor& q, const std::string& name) {
    if (q.scaling == Scaling::tensor) {
      EXPECT_EQ(device_.bytes(q.rowwise), golden_.read<std::uint8_t>("tensor." + name + ".codes")) << name;
      EXPECT_EQ(device_.floats(q.scale), golden_.read<float>("tensor." + name + ".scale")) << name;
      EXPECT_EQ(device_.floats(q.rowwise_scale_inv), golden_.read<float>("tensor." + name + ".scale_inv")) << name;
      EXPECT_EQ(device_.floats(q.amax), golden_.read<float>("tensor." + name + ".amax")) << name;
      return;
    }
    for (const auto& [direction, codes, scales] :
         {std::tuple{"row", q.rowwise, q.rowwise_scale_inv}, std::tuple{"col", q.columnwise, q.columnwise_scale_inv}}) {
      const std::string prefix = "mxfp8." + name + "." + direction;
      EXPECT_EQ(device_.bytes(codes), golden_.read<std::uint8_t>(prefix + ".codes")) << prefix;
      EXPECT_EQ(device_.bytes(scales), golden_.read<std::uint8_t>(prefix + ".scales")) << prefix;
    }
  }

  // bf16 patterns as integers in order of value.
  static std::int32_t ordered(std::uint16_t bits) {
    return (bits & 0x8000u) != 0 ? -static_cast<std::int32_t>(bits & 0x7FFFu) : bits;
  }

  void expect_within_a_step(const Tensor& out, const std::string& name) {
    const auto want = golden_.read<std::uint16_t>(name), got = [&] {
      const auto raw = device_.bytes(out);
      std::vector<std::uint16_t> bits(raw.size() / 2);
      std::memcpy(bits.data(), raw.data(), raw.size());
      return bits;
    }();
    ASSERT_EQ(got.size(), want.size());
    std::size_t different = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      ASSERT_LE(std::abs(ordered(got[i]) - ordered(want[i])), 1) << name << "[" << i << "]";
      different += got[i] != want[i];
    }
    EXPECT_LE(different, got.size() / 100) << name << ": only sums that lie on a rounding boundary may differ";
  }

  void run(Scaling scaling, DType gradient_format, const std::string& forward, const std::string& backward,
           const std::string& dy_name) {
    const Tensor x = input("x", Shape{kTokens, kIn}), w = input("w", Shape{kOut, kIn}),
                 dy = input("dy", Shape{kTokens, kOut});
    const QTensor qx = blank(scaling, DType::e4m3, x.shape), qw = blank(scaling, DType::e4m3, w.shape);
    const QTensor qdy = blank(scaling, gradient_format, dy.shape);
    const Tensor y = device_.garbage(DType::bf16, Shape{kTokens, kOut}),
                 dx = device_.garbage(DType::bf16, Shape{kTokens, kIn});
    const Tensor dw = device_.garbage(DType::bf16, Shape{kOut, kIn});
    const Tensor tokens = device_.count(kTokens), rows = device_.count(kOut);
    const auto gemm = [&](GemmPass pass, const QTensor& a, const QTensor& b, const Tensor& out) {
      GemmArgs args;
      args.pass = pass;
      args.a = a;
      args.b = b;
      args.out = out;
      return args;
    };
    device_.run([&](Ops& ops) {
      ops.quantize(x, tokens, qx);
      ops.quantize(w, rows, qw);
      ops.quantize(dy, tokens, qdy);
      ops.gemm(gemm(GemmPass::fprop, qx, qw, y));
      ops.gemm(gemm(GemmPass::dgrad, qdy, qw, dx));
      ops.gemm(gemm(GemmPass::wgrad, qdy, qx, dw));
    });
    expect_codes(qx, "x");
    expect_codes(qw, "w");
    expect_codes(qdy, dy_name);
    expect_within_a_step(y, forward + ".y.bf16");
    expect_within_a_step(dx, backward + ".dx.bf16");
    expect_within_a_step(dw, backward + ".dw.bf16");
  }

  SafetensorsLite golden_{golden_dir() / "fp8" / "linear_fp8.safetensors"};
  std::unique_ptr<Backend> backend_ = create_cpu_backend();
  Device device_{*backend_};
};

// The casts of the backend itself, all 65536 bf16 patterns, against the golden tables.
TEST_F(Fp8Linear, EveryBf16Pattern) {
  const SafetensorsLite casts(golden_dir() / "fp8" / "casts.safetensors");
  std::vector<float> patterns(65536);
  for (std::uint32_t i = 0; i < patterns.size(); ++i) patterns[i] = std::bit_cast<float>(i << 16);
  const Tensor x = device_.upload(patterns, DType::f32, Shape{64, 1024}), count = device_.count(64);
  for (DType format : {DType::e4m3, DType::e5m2}) {
    QTensor q = blank(Scaling::tensor, format, x.shape);
    q.just_in_time = false;
    q.scale = device_.upload({1.0f}, DType::f32, Shape{1});
    device_.run([&](Ops& ops) { ops.quantize(x, count, q); });
    const auto got = device_.bytes(q.rowwise),
               want = casts.read<std::uint8_t>(format == DType::e4m3 ? "e4m3_sat" : "e5m2_sat");
    for (std::size_t i = 0; i < patterns.size(); ++i) {
      const std::uint8_t wanted = std::isnan(patterns[i]) ? std::uint8_t{0x7F} : want[i];
      ASSERT_EQ(got[i], wanted) << name(format) << " of pattern " << i;
    }
  }
}

TEST_F(Fp8Linear, CurrentScaling) { run(Scaling::tensor, DType::e5m2, "tensor", "tensor", "dy"); }
TEST_F(Fp8Linear, Mxfp8) { run(Scaling::mx_1x32, DType::e4m3, "mxfp8", "mxfp8_e4m3", "dy_e4m3"); }
TEST_F(Fp8Linear, Mxfp8E5m2Gradients) { run(Scaling::mx_1x32, DType::e5m2, "mxfp8", "mxfp8_e5m2", "dy_e5m2"); }

}  // namespace
}  // namespace llmfp8::testing
