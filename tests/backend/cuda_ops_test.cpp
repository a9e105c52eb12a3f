// The table of operation cases on the CUDA backend, and the products as only its tensor cores run them. Without a GPU
// every case is skipped, with the reason.
#include <algorithm>
#include <cmath>
#include <memory>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "backend/registry.h"
#include "op_cases.h"
#include "op_harness.h"
#include "quantized.h"

namespace llmfp8::testing {
namespace {

struct Cuda {
  std::string why_not;
  std::unique_ptr<Backend> backend = create_cuda_backend(&why_not);
};

// Made once: handles and workspaces cost more than a case. Null where there is no GPU. CMakeLists.txt knows the words.
Backend* cuda(std::string* why_not) {
  static const Cuda instance;
  *why_not = "no usable GPU: " + instance.why_not;
  return instance.backend.get();
}

std::string test_name(std::string name) {
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
}

class CudaOpCase : public ::testing::TestWithParam<OpCase> {};

TEST_P(CudaOpCase, MatchesReference) {
  std::string why_not;
  Backend* backend = cuda(&why_not);
  if (backend == nullptr) GTEST_SKIP() << why_not;
  GetParam().run(*backend);
}

INSTANTIATE_TEST_SUITE_P(Table, CudaOpCase, ::testing::ValuesIn(op_cases()),
                         [](const auto& one) { return test_name(one.param.name); });

// A product whose extents suit the tensor cores; the table's are odd, and FP8 of odd extents runs on a plain kernel.
struct Product {
  GemmPass pass = GemmPass::fprop;
  Scaling scaling = Scaling::none;
  DType a = DType::bf16, b = DType::bf16, out = DType::bf16;
  Accumulation accumulation = Accumulation::precise;
  bool bias = false, addend = false;
  std::int64_t tokens = 256, live = 200, n = 96, k = 160;
  bool in_place = false;  // the addend is out

  std::string name() const {
    return fmt::format("{}{}_{}_{}_{}_{}{}{}_{}", scaling == Scaling::mx_1x32 ? "mx_" : "",
                       pass == GemmPass::fprop   ? "fprop"
                       : pass == GemmPass::dgrad ? "dgrad"
                                                 : "wgrad",
                       llmfp8::name(a), llmfp8::name(b), llmfp8::name(out),
                       accumulation == Accumulation::fast ? "fast" : "precise", bias ? "_bias" : "",
                       in_place ? "_in_place" : addend ? "_add" : "", std::max({tokens, n, k}));
  }
};

void PrintTo(const Product& product, std::ostream* out) { *out << product.name(); }

std::vector<Product> products() {
  std::vector<Product> all;
  for (GemmPass pass : {GemmPass::fprop, GemmPass::dgrad, GemmPass::wgrad}) {
    for (DType out : {DType::f32, DType::bf16}) {
      for (bool addend : {false, true}) {
        const bool bias = pass == GemmPass::fprop && !addend;
        all.push_back({pass, Scaling::none, DType::bf16, DType::bf16, out, Accumulation::precise, bias, addend});
        for (DType a : {DType::e4m3, DType::e5m2}) {
          Product mx{pass, Scaling::mx_1x32, a, DType::e4m3, out, Accumulation::precise, bias, addend};
          all.push_back(mx);
          if (!addend) {
            mx.tokens = 64, mx.live = 50, mx.n = 64, mx.k = 64;
            (pass == GemmPass::fprop ? mx.k : pass == GemmPass::dgrad ? mx.n : mx.tokens) = 4096;
            if (pass == GemmPass::wgrad) mx.live = 4000;
            all.push_back(mx);
          }
          for (Accumulation accumulation : {Accumulation::fast, Accumulation::precise}) {
            Product p{pass, Scaling::tensor, a, DType::e4m3, out, accumulation, bias, addend};
            all.push_back(p);
            if (addend) continue;
            // A long contraction, of few results.
            p.tokens = 64, p.live = 50, p.n = 48, p.k = 64;
            (pass == GemmPass::fprop ? p.k : pass == GemmPass::dgrad ? p.n : p.tokens) = 4096;
            if (pass == GemmPass::wgrad) p.live = 4000;
            all.push_back(p);
          }
        }
      }
    }
  }
  for (std::size_t i = 0, n = all.size(); i < n; ++i) {
    if (!all[i].addend) continue;
    all.push_back(all[i]);
    all.back().in_place = true;
  }
  return all;
}

// out in fp64; rows from `live` on get no bias.
std::vector<Expected> reference(const Product& p, const Quantized& a, const Quantized& b,
                                const std::vector<float>& bias, const std::vector<float>& addend, Shape out) {
  const bool wgrad = p.pass == GemmPass::wgrad;
  const std::int64_t depth = p.pass == GemmPass::fprop ? p.k : p.pass == GemmPass::dgrad ? p.n : p.tokens;
  std::vector<Expected> want(static_cast<std::size_t>(out.numel()));
  for (std::int64_t r = 0; r < out[0]; ++r) {
    for (std::int64_t c = 0; c < out[1]; ++c) {
      Expected& e = want[static_cast<std::size_t>(r * out[1] + c)];
      if (!addend.empty()) e.add(addend[static_cast<std::size_t>(r * out[1] + c)]);
      if (!wgrad && r >= p.live) continue;
      if (!bias.empty()) e.add(bias[static_cast<std::size_t>(c)]);
      for (std::int64_t i = 0; i < depth; ++i) {
        // MXFP8 has other values along the rows than along the columns.
        const double x = wgrad ? a.columnwise_values[static_cast<std::size_t>(i * p.n + r)]
                               : a.rowwise_values[static_cast<std::size_t>(r * depth + i)];
        const double y = p.pass == GemmPass::fprop ? b.rowwise_values[static_cast<std::size_t>(c * p.k + i)]
                                                   : b.columnwise_values[static_cast<std::size_t>(i * p.k + c)];
        e.add(x * y);
      }
    }
  }
  return want;
}

class CudaProduct : public ::testing::TestWithParam<Product> {};

TEST_P(CudaProduct, WithinTheBoundOfItsAccumulation) {
  std::string why_not;
  Backend* backend = cuda(&why_not);
  if (backend == nullptr) GTEST_SKIP() << why_not;
  const Product& p = GetParam();
  if (p.scaling == Scaling::tensor && !backend->capabilities().fp8_tensor.available) {
    GTEST_SKIP() << backend->capabilities().fp8_tensor.reason;
  }
  Device device(*backend);
  const bool wgrad = p.pass == GemmPass::wgrad;
  const Shape a_shape{p.tokens, p.pass == GemmPass::fprop ? p.k : p.n};
  const Shape b_shape = wgrad ? Shape{p.tokens, p.k} : Shape{p.n, p.k};
  const Shape out_shape = wgrad ? Shape{p.n, p.k} : Shape{p.tokens, p.pass == GemmPass::fprop ? p.n : p.k};
  const Quantized a =
      make_quantized(device, *backend, random_values(a_shape.numel(), 11), a_shape, p.scaling, p.a, p.live);
  const Quantized b = make_quantized(device, *backend, random_values(b_shape.numel(), 12), b_shape, p.scaling, p.b,
                                     wgrad ? p.live : b_shape[0]);
  std::vector<float> bias, addend;
  GemmArgs args;
  args.pass = p.pass;
  args.a = a.tensor;
  args.b = b.tensor;
  args.accumulation = p.accumulation;
  args.num_rows = device.count(static_cast<std::int32_t>(p.live));
  args.out = device.garbage(p.out, out_shape);
  if (p.bias) {
    bias = rounded(random_values(out_shape[1], 13), DType::bf16);
    args.bias = device.upload(bias, DType::bf16, Shape{out_shape[1]});
  }
  if (p.addend) {
    addend = rounded(random_values(out_shape.numel(), 14), p.out);
    args.addend = device.upload(addend, p.out, out_shape);
    if (p.in_place) args.out = args.addend;
  }
  device.run([&](Ops& ops) { ops.gemm(args); });

  // What FP8 accumulation loses, of the sum of magnitudes; bf16 products are summed in full fp32.
  const std::int64_t depth = p.pass == GemmPass::fprop ? p.k : p.pass == GemmPass::dgrad ? p.n : p.tokens;
  const double lost = p.scaling == Scaling::none             ? static_cast<double>(depth + 8) * 0x1.0p-24
                      : p.accumulation == Accumulation::fast ? 0x1.0p-9
                                                             : 0x1.0p-12;
  const double step = p.out == DType::bf16 ? 0x1.0p-8 : 0x1.0p-23;
  const std::vector<float> got = device.floats(args.out);
  const std::vector<Expected> want = reference(p, a, b, bias, addend, out_shape);
  double worst = 0.0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(static_cast<double>(got[i]) - want[i].value);
    const double allowed = lost * want[i].magnitude + step * std::abs(want[i].value);
    ASSERT_TRUE(error <= allowed) << "out[" << i << "] is " << got[i] << ", wanted " << want[i].value << " within "
                                  << allowed;
    if (want[i].magnitude > 0) {
      worst = std::max(worst, (error - step * std::abs(want[i].value)) / want[i].magnitude);
    }
  }
  RecordProperty("worst_error_over_magnitude", fmt::format("{:.3g}", worst));
}

INSTANTIATE_TEST_SUITE_P(TensorCores, CudaProduct, ::testing::ValuesIn(products()),
                         [](const auto& one) { return test_name(one.param.name()); });

// Chunks of rows, as the head takes them: out, addend and both operands are views into longer matrices.
TEST(CudaGemm, RowsOfLongerMatrices) {
  std::string why_not;
  Backend* backend = cuda(&why_not);
  if (backend == nullptr) GTEST_SKIP() << why_not;
  Device device(*backend);
  const std::int64_t rows = 128, n = 64, k = 96, whole_rows = 384, whole_cols = 256;
  const auto a = rounded(random_values(whole_rows * whole_cols, 1), DType::bf16);
  const auto b = rounded(random_values(n * k, 2), DType::bf16);
  const Tensor a_whole = device.upload(a, DType::bf16, Shape{whole_rows, whole_cols});
  const Tensor out_whole = device.upload(a, DType::bf16, Shape{whole_rows, whole_cols});
  GemmArgs args;
  args.a = QTensor::high_precision(a_whole.slice_rows(128, rows).slice_cols(32, k));
  args.b = QTensor::high_precision(device.upload(b, DType::bf16, Shape{n, k}));
  args.out = out_whole.slice_rows(256, rows).slice_cols(64, n);
  device.run([&](Ops& ops) { ops.gemm(args); });

  const std::vector<float> got = device.floats(out_whole);
  std::vector<float> inside;
  std::vector<Expected> want;
  for (std::int64_t r = 0; r < whole_rows; ++r) {
    for (std::int64_t c = 0; c < whole_cols; ++c) {
      const auto at = static_cast<std::size_t>(r * whole_cols + c);
      if (r < 256 || c < 64 || c >= 64 + n) {
        ASSERT_EQ(got[at], a[at]) << "written outside of out, at " << r << ", " << c;
        continue;
      }
      Expected e;
      for (std::int64_t i = 0; i < k; ++i) {
        e.add(static_cast<double>(a[static_cast<std::size_t>((r - 256 + 128) * whole_cols + 32 + i)]) *
              b[static_cast<std::size_t>((c - 64) * k + i)]);
      }
      inside.push_back(got[at]);
      want.push_back(e);
    }
  }
  expect_close("out", inside, want, DType::bf16, k);
}

TEST(CudaBackend, NamesWhatDidNotFit) {
  std::string why_not;
  Backend* backend = cuda(&why_not);
  if (backend == nullptr) GTEST_SKIP() << why_not;
  try {
    backend->allocate(backend->capabilities().memory_bytes * 2, "weights");
    FAIL() << "twice the memory of the GPU was allocated";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("out of GPU memory"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("for weights"), std::string::npos) << error.what();
  }
  // And nothing is left of the error.
  EXPECT_NE(backend->allocate(1024, "after").data(), nullptr);
}

}  // namespace
}  // namespace llmfp8::testing
