// The matmul engines alone: oneDNN in bf16 and f32, and our own loops, against fp64 and so against each other.
#include <cmath>

#include <gtest/gtest.h>

#include "backend/cpu/matmul.h"
#include "backend/cpu/operand_image.h"
#include "core/bf16.h"
#include "core/float8.h"
#include "core/thread_pool.h"
#include "op_harness.h"

namespace llmfp8::testing {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

struct Operand {
  std::vector<float> wide;
  std::vector<bf16> narrow;
  const void* data(DType dtype) const {
    return dtype == DType::f32 ? static_cast<const void*>(wide.data()) : narrow.data();
  }
};

Operand operand(std::int64_t rows, std::int64_t ld, std::uint64_t seed) {
  Operand o{rounded(random_values(rows * ld, seed), DType::bf16), {}};
  for (float v : o.wide) o.narrow.push_back(to_bf16(v));
  return o;
}

void check(const cpu::MatmulEngine& engine, DType in, DType out) {
  const std::int64_t sizes[][3] = {{1, 1, 1}, {5, 300, 1}, {130, 257, 300}, {64, 16, 513}};
  for (const auto& [m, n, k] : sizes) {
    for (int form = 0; form < 8; ++form) {
      const bool a_t = (form & 1) != 0, b_t = (form & 2) != 0, accumulate = (form & 4) != 0 && out == DType::f32;
      cpu::Matmul call;
      call.m = m, call.n = n, call.k = k;
      call.lda = (a_t ? m : k) + 3, call.ldb = (b_t ? k : n) + 5, call.ldc = n + 7;
      call.a_transposed = a_t, call.b_transposed = b_t, call.accumulate = accumulate;
      call.in = in, call.out = out;
      const Operand a = operand(a_t ? k : m, call.lda, 1), b = operand(b_t ? n : k, call.ldb, 2);
      std::vector<float> c(at(m * call.ldc), 2.0f);
      std::vector<bf16> c_narrow(at(m * call.ldc), to_bf16(2.0f));
      call.a = a.data(in), call.b = b.data(in);
      call.c = out == DType::f32 ? static_cast<void*>(c.data()) : c_narrow.data();
      engine.run(call);
      for (std::size_t i = 0; i < c.size() && out == DType::bf16; ++i) c[i] = to_float(c_narrow[i]);
      std::vector<float> got;
      std::vector<Expected> want;
      for (std::int64_t r = 0; r < m; ++r) {
        for (std::int64_t j = 0; j < n; ++j) {
          Expected e;
          if (accumulate) e.add(2.0);
          for (std::int64_t i = 0; i < k; ++i) {
            e.add(double{a.wide[at(a_t ? i * call.lda + r : r * call.lda + i)]} *
                  b.wide[at(b_t ? j * call.ldb + i : i * call.ldb + j)]);
          }
          want.push_back(e);
          got.push_back(c[at(r * call.ldc + j)]);
        }
        for (std::int64_t j = n; j < call.ldc; ++j) ASSERT_EQ(c[at(r * call.ldc + j)], 2.0f) << "beside the matrix";
      }
      expect_close("form " + std::to_string(form), got, want, out, k);
    }
  }
}

TEST(Matmul, Portable) {
  const auto engine = cpu::create_portable_matmul();
  for (DType in : {DType::f32, DType::bf16}) {
    for (DType out : {DType::f32, DType::bf16}) check(*engine, in, out);
  }
}

TEST(Matmul, PortableDoesNotDependOnThreads) {
  const auto engine = cpu::create_portable_matmul();
  const std::vector<float> a = random_values(300 * 400, 1), b = random_values(400 * 500, 2);
  std::vector<std::vector<float>> results;
  const int threads = num_threads();
  for (int n : {1, 2, 5}) {
    set_num_threads(n);
    std::vector<float> c(300 * 500);
    engine->run(
        {300, 500, 400, a.data(), 400, false, b.data(), 500, false, c.data(), 500, false, DType::f32, DType::f32});
    results.push_back(c);
  }
  set_num_threads(threads);
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEST(Matmul, Onednn) {
  std::string why_not;
  const auto f32 = cpu::create_onednn_matmul(DType::f32, &why_not);
  if (f32 == nullptr) GTEST_SKIP() << why_not;
  check(*f32, DType::f32, DType::f32);
  if (cpu::matmul_engine().image_dtype() != DType::bf16) GTEST_SKIP() << "no fast bf16 on this machine";
  const auto narrow = cpu::create_onednn_matmul(DType::bf16, &why_not);
  check(*narrow, DType::bf16, DType::f32);
  check(*narrow, DType::bf16, DType::bf16);
}

// Every code of both formats has its exact value in bf16 and in f32; rows beyond the count are zero, whatever they hold.
TEST(OperandImage, EveryCode) {
  std::vector<std::uint8_t> codes(512);
  for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::uint8_t>(i);
  for (DType format : {DType::e4m3, DType::e5m2}) {
    QTensor q;
    q.scaling = Scaling::tensor;
    q.format = format;
    q.shape = Shape{2, 256};
    q.rowwise = Tensor(codes.data(), DType::u8, q.shape);
    std::vector<float> wide(512, 9.0f);
    std::vector<bf16> narrow(512, to_bf16(9.0f));
    const cpu::Panel panel{&q, false, 0, 2, 0, 256, 1};
    cpu::make_image(panel, DType::f32, wide.data());
    cpu::make_image(panel, DType::bf16, narrow.data());
    for (std::size_t i = 0; i < 512; ++i) {
      const float want = i < 256 ? decode_fp8(codes[i], format) : 0.0f;
      if (std::isnan(want)) {
        EXPECT_TRUE(std::isnan(wide[i]) && std::isnan(to_float(narrow[i]))) << i;
        continue;
      }
      EXPECT_EQ(std::bit_cast<std::uint32_t>(wide[i]), std::bit_cast<std::uint32_t>(want)) << i;
      EXPECT_EQ(std::bit_cast<std::uint32_t>(to_float(narrow[i])), std::bit_cast<std::uint32_t>(want)) << i;
    }
  }
}

}  // namespace
}  // namespace llmfp8::testing
