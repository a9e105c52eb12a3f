// Matrices of more than 2^31 elements and 2^32 bytes, as token x vocabulary makes them: what indexes with 32 bits reads or
// writes elsewhere. The first rows, those around element 2^31 and the last ones are checked against the host; all others are
// zero. Skipped without a GPU, and where less than 24 GiB of its memory are free.
#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include "backend/registry.h"
#include "core/bf16.h"
#include "core/float8.h"
#include "core/fp8_scaling.h"
#include "op_harness.h"

namespace llmfp8::testing {
namespace {

constexpr std::int64_t kVocab = 128256, kRows = 133 * 128, kLive = kRows - 5;
constexpr std::int64_t kAtBound = (std::int64_t{1} << 31) / kVocab;  // the row that holds element 2^31
static_assert(kLive * kVocab > std::int64_t{1} << 31 && kAtBound + 2 < kLive);
constexpr std::int64_t kWidth = 64;  // the other extent of a product
constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

const std::vector<std::int64_t> kSampled{0, kAtBound, kAtBound + 1, kLive - 1};
const std::vector<std::int64_t> kColumns{0, kVocab / 2, kVocab - 1};  // in which whole columns are checked

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

using Rows = std::map<std::int64_t, std::vector<float>>;

Rows sampled_rows() {
  Rows rows;
  for (std::int64_t row : kSampled) {
    rows[row] = rounded(random_values(kVocab, 100 + static_cast<std::uint64_t>(row), 3.0f), DType::bf16);
  }
  return rows;
}

class CudaLarge : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string why_not;
    backend_ = create_cuda_backend(&why_not);
    if (backend_ == nullptr) GTEST_SKIP() << "no usable GPU: " << why_not;
    std::size_t free = 0, total = 0;
    ASSERT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
    if (static_cast<double>(free) < 24 * kGiB) {
      GTEST_SKIP() << static_cast<double>(free) / kGiB << " GiB of GPU memory are free, 24 are wanted";
    }
    stream_ = backend_->create_stream();
    device_ = std::make_unique<Device>(*backend_);
  }

  // zero everywhere
  Tensor zeros(DType dtype, Shape shape) {
    Tensor t(nullptr, dtype, shape);
    buffers_.push_back(backend_->allocate(t.bytes(), "large test tensor"));
    t.data = buffers_.back().data();
    return t;
  }
  // every byte 0xFF
  Tensor garbage(DType dtype, Shape shape) {
    const Tensor t = zeros(dtype, shape);
    EXPECT_EQ(cudaMemset(t.data, 0xFF, t.bytes()), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    return t;
  }
  // x: bf16 [kRows, kVocab]
  void put_row(const Tensor& x, std::int64_t row, const std::vector<float>& values) {
    std::vector<bf16> narrow(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) narrow[i] = to_bf16(values[i]);
    backend_->copy_to_device(x.slice_rows(row, 1).data, narrow.data(), narrow.size() * sizeof(bf16), *stream_);
    backend_->synchronize(*stream_);
  }
  // The rows, and NaN in the last row, which is tail.
  Tensor matrix_of(const Rows& rows) {
    const Tensor x = zeros(DType::bf16, Shape{kRows, kVocab});
    for (const auto& [row, values] : rows) put_row(x, row, values);
    put_row(x, kRows - 1, std::vector<float>(at(kVocab), std::numeric_limits<float>::quiet_NaN()));
    return x;
  }
  Tensor live() { return device_->count(static_cast<std::int32_t>(kLive)); }

  QTensor codes(Scaling scaling, float scale, bool just_in_time) {
    QTensor q;
    q.scaling = scaling, q.format = DType::e4m3, q.shape = Shape{kRows, kVocab}, q.just_in_time = just_in_time;
    q.rowwise = garbage(DType::u8, q.shape);
    if (scaling == Scaling::tensor) {
      q.columnwise = garbage(DType::u8, Shape{kVocab, kRows});
      q.scale = device_->upload({scale}, DType::f32, Shape{1});
      q.rowwise_scale_inv = q.columnwise_scale_inv = device_->upload({1.0f / scale}, DType::f32, Shape{1});
    } else {
      q.columnwise = garbage(DType::u8, q.shape);
      q.rowwise_scale_inv = garbage(DType::u8, Shape{kRows, kVocab / 32});
      q.columnwise_scale_inv = garbage(DType::u8, Shape{kRows / 32, kVocab});
    }
    q.amax = device_->upload({0.0f}, DType::f32, Shape{1});
    return q;
  }

  std::vector<std::uint8_t> row_bytes(const Tensor& t, std::int64_t row) {
    return device_->bytes(t.slice_rows(row, 1));
  }
  std::vector<float> row_floats(const Tensor& t, std::int64_t row) { return device_->floats(t.slice_rows(row, 1)); }

  // Per-tensor codes of both forms. values: of the sampled rows; other: of every other live row; the tail is 0.
  void expect_codes(const QTensor& q, float scale, const Rows& values, const std::vector<float>& other) {
    const auto encoded = [&](const std::vector<float>& row) {
      std::vector<std::uint8_t> out(row.size());
      for (std::size_t i = 0; i < row.size(); ++i) out[i] = encode_fp8(row[i] * scale, q.format);
      return out;
    };
    std::map<std::int64_t, std::vector<std::uint8_t>> want;
    for (const auto& [row, of_row] : values) want[row] = encoded(of_row);
    const std::vector<std::uint8_t> elsewhere = encoded(other), tail(at(kVocab), 0);
    for (const auto& [row, of_row] : want) ASSERT_TRUE(row_bytes(q.rowwise, row) == of_row) << "row " << row;
    ASSERT_TRUE(row_bytes(q.rowwise, kAtBound + 2) == elsewhere);
    for (std::int64_t row = kLive; row < kRows; ++row) ASSERT_TRUE(row_bytes(q.rowwise, row) == tail) << "row " << row;
    for (std::int64_t column : kColumns) {
      const std::vector<std::uint8_t> got = row_bytes(q.columnwise, column);
      for (std::int64_t row = 0; row < kRows; ++row) {
        const auto known = want.find(row);
        const int code = row >= kLive ? 0 : known != want.end() ? known->second[at(column)] : elsewhere[at(column)];
        ASSERT_EQ(got[at(row)], code) << "column " << column << ", row " << row;
      }
    }
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
  std::deque<Buffer> buffers_;
  std::unique_ptr<Device> device_;
};

TEST_F(CudaLarge, CrossEntropyAndItsFusedForm) {
  const Rows rows = sampled_rows();
  const Tensor logits = matrix_of(rows), again = matrix_of(rows), count = live();
  std::vector<std::int32_t> labels(at(kRows), 7);
  for (std::size_t i = 0; i < kSampled.size(); ++i)
    labels[at(kSampled[i])] = static_cast<std::int32_t>(kVocab - 1 - static_cast<std::int64_t>(i));
  const Tensor label = device_->upload(labels, Shape{kRows});
  const Tensor losses = device_->garbage(DType::f32, Shape{kRows}),
               fused_losses = device_->garbage(DType::f32, Shape{kRows});
  const float scale = 256.0f;
  const QTensor q = codes(Scaling::tensor, scale, false);
  device_->run([&](Ops& ops) {
    ops.cross_entropy({logits, label, count, 0, true, losses});
    ops.cross_entropy_quantize({{again, label, count, 0, true, fused_losses}, q});
  });

  const std::vector<float> loss = device_->floats(losses);
  Rows gradients;
  float amax = 0.0f;
  for (const auto& [row, x] : rows) {
    double largest = -std::numeric_limits<double>::infinity(), total = 0.0;
    for (float v : x) largest = std::max(largest, static_cast<double>(v));
    for (float v : x) total += std::exp(v - largest);
    std::vector<Expected> want(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) want[i].add(std::exp(x[i] - largest) / total);
    const std::int32_t of_row = labels[at(row)];
    want[at(of_row)].add(-1.0);
    const double expected = std::log(total) + largest - x[at(of_row)];
    EXPECT_NEAR(loss[at(row)], expected, 1e-5 * expected) << "row " << row;
    gradients[row] = row_floats(logits, row);
    expect_close("gradient of row " + std::to_string(row), gradients[row], want, DType::bf16, 1024);
  }
  const std::vector<float> flat = row_floats(logits, kAtBound + 2);
  EXPECT_NEAR(loss[at(kAtBound + 2)], std::log(static_cast<double>(kVocab)), 1e-4);
  EXPECT_EQ(flat[1], to_float(to_bf16(1.0f / static_cast<float>(kVocab))));
  EXPECT_EQ(flat[7], to_float(to_bf16(1.0f / static_cast<float>(kVocab) - 1.0f)));
  for (std::int64_t row = kLive; row < kRows; ++row) {
    EXPECT_EQ(loss[at(row)], 0.0f);
    ASSERT_TRUE(row_floats(logits, row) == std::vector<float>(at(kVocab), 0.0f)) << "row " << row;
  }

  EXPECT_EQ(device_->bytes(losses), device_->bytes(fused_losses));
  expect_codes(q, scale, gradients, flat);
  for (const auto& [row, gradient] : gradients) {
    for (float v : gradient) amax = std::max(amax, std::abs(v));
  }
  for (float v : flat) amax = std::max(amax, std::abs(v));
  EXPECT_EQ(device_->floats(q.amax)[0], amax);
}

TEST_F(CudaLarge, AmaxCastsSumsAndGather) {
  Rows rows = sampled_rows();
  rows[kLive - 1][at(kVocab - 1)] = 1000.0f;  // the last element that counts
  const Tensor x = matrix_of(rows), count = live();
  const Tensor slot = device_->upload({0.0f}, DType::f32, Shape{1});
  const QTensor q = codes(Scaling::tensor, 1.0f, true), mx = codes(Scaling::mx_1x32, 1.0f, false);
  StepScalars* scalars = device_->scalars(StepScalars{});
  const Tensor index = device_->upload(
      std::vector<std::int32_t>{static_cast<std::int32_t>(kLive - 1), static_cast<std::int32_t>(kAtBound)}, Shape{2});
  const Tensor two = device_->count(2), gathered = device_->garbage(DType::bf16, Shape{2, kVocab});
  device_->run([&](Ops& ops) {
    ops.amax(x, count, slot);
    ops.quantize(x, count, q);
    ops.quantize(x, count, mx);
    ops.accumulate_sum_of_squares(x.slice_rows(0, kLive), scalars);
    ops.gather_rows({x, index, two, 0, gathered});
  });

  EXPECT_EQ(device_->floats(slot)[0], 1000.0f);
  EXPECT_EQ(device_->floats(q.amax)[0], 1000.0f);
  EXPECT_EQ(device_->floats(mx.amax)[0], 1000.0f);
  const float scale = current_scale(1000.0f, fp8_max(DType::e4m3));
  EXPECT_EQ(device_->floats(q.scale)[0], scale);
  expect_codes(q, scale, rows, std::vector<float>(at(kVocab), 0.0f));
  EXPECT_TRUE(row_floats(gathered, 0) == rows[kLive - 1]);
  EXPECT_TRUE(row_floats(gathered, 1) == rows[kAtBound]);
  double squares = 0.0;
  for (const auto& [row, values] : rows) {
    for (float v : values) squares += static_cast<double>(v) * v;
  }
  EXPECT_NEAR(device_->download(scalars).grad_sum_squares, squares, 1e-9 * squares);

  for (const auto& [row, values] : rows) {
    std::vector<std::uint8_t> along(at(kVocab)), across(at(kVocab)), along_scales, across_scales(at(kVocab));
    for (std::int64_t block = 0; block < kVocab / 32; ++block) {
      float amax = 0.0f;
      for (std::int64_t i = 0; i < 32; ++i) amax = std::max(amax, std::abs(values[at(block * 32 + i)]));
      along_scales.push_back(mx_scale_code(amax, fp8_max(DType::e4m3)));
      for (std::int64_t i = block * 32; i < block * 32 + 32; ++i) {
        along[at(i)] = encode_fp8(values[at(i)] * mx_multiplier(along_scales.back()), DType::e4m3);
      }
    }
    for (std::int64_t i = 0; i < kVocab; ++i) {
      float amax = 0.0f;
      for (const auto& [other, of_other] : rows) {
        if (other / 32 == row / 32) amax = std::max(amax, std::abs(of_other[at(i)]));
      }
      across_scales[at(i)] = mx_scale_code(amax, fp8_max(DType::e4m3));
      across[at(i)] = encode_fp8(values[at(i)] * mx_multiplier(across_scales[at(i)]), DType::e4m3);
    }
    EXPECT_TRUE(row_bytes(mx.rowwise, row) == along) << "row " << row;
    EXPECT_TRUE(row_bytes(mx.rowwise_scale_inv, row) == along_scales) << "row " << row;
    EXPECT_TRUE(row_bytes(mx.columnwise, row) == across) << "row " << row;
    EXPECT_TRUE(row_bytes(mx.columnwise_scale_inv, row / 32) == across_scales) << "row " << row;
  }
}

// out [kRows, kVocab] = a [kRows, 64] · b [kVocab, 64]^T (+ bias), and the two products that read such a matrix.
TEST_F(CudaLarge, Products) {
  const auto a = with_tail(rounded(random_values(kRows * kWidth, 1), DType::bf16), kWidth, kLive, 0.0f);
  const auto b = rounded(random_values(kVocab * kWidth, 2), DType::bf16),
             bias = rounded(random_values(kVocab, 3), DType::bf16);
  const Tensor count = live();
  GemmArgs args;
  args.a = QTensor::high_precision(device_->upload(a, DType::bf16, Shape{kRows, kWidth}));
  args.b = QTensor::high_precision(device_->upload(b, DType::bf16, Shape{kVocab, kWidth}));
  args.bias = device_->upload(bias, DType::bf16, Shape{kVocab});
  args.num_rows = count;
  args.out = garbage(DType::bf16, Shape{kRows, kVocab});
  device_->run([&](Ops& ops) { ops.gemm(args); });
  const std::vector<float> nothing(at(kVocab), 0.0f);
  for (std::int64_t row : kSampled) {
    std::vector<Expected> want(at(kVocab));
    for (std::int64_t c = 0; c < kVocab; ++c) {
      want[at(c)].add(bias[at(c)]);
      for (std::int64_t i = 0; i < kWidth; ++i)
        want[at(c)].add(static_cast<double>(a[at(row * kWidth + i)]) * b[at(c * kWidth + i)]);
    }
    expect_close("bf16, row " + std::to_string(row), row_floats(args.out, row), want, DType::bf16, kWidth);
  }
  for (std::int64_t row = kLive; row < kRows; ++row) ASSERT_TRUE(row_floats(args.out, row) == nothing) << "row " << row;

  if (backend_->capabilities().fp8_tensor.available) {
    const auto quantized = [&](const Tensor& x) {
      QTensor q;
      q.scaling = Scaling::tensor, q.format = DType::e4m3, q.shape = x.shape, q.just_in_time = true;
      q.rowwise = device_->garbage(DType::u8, x.shape);
      q.scale = device_->upload({1.0f}, DType::f32, Shape{1});
      q.rowwise_scale_inv = device_->upload({1.0f}, DType::f32, Shape{1});
      return q;
    };
    GemmArgs fp8 = args;
    fp8.a = quantized(args.a.rowwise), fp8.b = quantized(args.b.rowwise);
    fp8.bias = Tensor();
    EXPECT_EQ(cudaMemset(args.out.data, 0xFF, args.out.bytes()), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    const Tensor all = device_->count(static_cast<std::int32_t>(kVocab));
    device_->run([&](Ops& ops) {
      ops.quantize(args.a.rowwise, count, fp8.a);
      ops.quantize(args.b.rowwise, all, fp8.b);
      ops.gemm(fp8);
    });
    const auto a_codes = device_->bytes(fp8.a.rowwise), b_codes = device_->bytes(fp8.b.rowwise);
    const double scale =
        static_cast<double>(device_->floats(fp8.a.rowwise_scale_inv)[0]) * device_->floats(fp8.b.rowwise_scale_inv)[0];
    for (std::int64_t row : kSampled) {
      const std::vector<float> got = row_floats(args.out, row);
      for (std::int64_t c = 0; c < kVocab; ++c) {
        Expected e;
        for (std::int64_t i = 0; i < kWidth; ++i) {
          e.add(scale * decode_fp8(a_codes[at(row * kWidth + i)], DType::e4m3) *
                decode_fp8(b_codes[at(c * kWidth + i)], DType::e4m3));
        }
        // What FP8 accumulation loses (cuda_ops_test.cpp), and the rounding to bf16.
        const double allowed = 0x1.0p-12 * e.magnitude + 0x1.0p-8 * std::abs(e.value);
        ASSERT_LE(std::abs(got[at(c)] - e.value), allowed) << "FP8, row " << row << ", column " << c;
      }
    }
    for (std::int64_t row = kLive; row < kRows; ++row)
      ASSERT_TRUE(row_floats(args.out, row) == nothing) << "row " << row;
  }

  const Rows rows = sampled_rows();
  GemmArgs dgrad;
  dgrad.pass = GemmPass::dgrad;
  const Tensor gradient = matrix_of(rows);
  put_row(gradient, kRows - 1, nothing);  // a tail is zero in the operands of a product
  dgrad.a = QTensor::high_precision(gradient);
  dgrad.b = args.b;
  dgrad.num_rows = count;
  dgrad.out = device_->garbage(DType::f32, Shape{kRows, kWidth});
  GemmArgs wgrad = dgrad;
  wgrad.pass = GemmPass::wgrad;
  wgrad.b = args.a;
  wgrad.out = device_->garbage(DType::f32, Shape{kVocab, kWidth});
  device_->run([&](Ops& ops) {
    ops.gemm(dgrad);
    ops.gemm(wgrad);
  });
  for (const auto& [row, values] : rows) {
    std::vector<Expected> want(at(kWidth));
    for (std::int64_t v = 0; v < kVocab; ++v) {
      for (std::int64_t i = 0; i < kWidth; ++i)
        want[at(i)].add(static_cast<double>(values[at(v)]) * b[at(v * kWidth + i)]);
    }
    expect_close("dgrad, row " + std::to_string(row), row_floats(dgrad.out, row), want, DType::f32, kVocab);
  }
  for (std::int64_t v : kColumns) {
    std::vector<Expected> want(at(kWidth));
    for (const auto& [row, values] : rows) {
      for (std::int64_t i = 0; i < kWidth; ++i)
        want[at(i)].add(static_cast<double>(values[at(v)]) * a[at(row * kWidth + i)]);
    }
    expect_close("wgrad, row " + std::to_string(v), row_floats(wgrad.out, v), want, DType::f32, kRows);
  }
}

// A table [kVocab, kRows] whose last rows lie beyond element 2^31.
TEST_F(CudaLarge, EmbeddingAndItsGradient) {
  const std::int64_t positions = 64;
  const std::vector<std::int32_t> ids{static_cast<std::int32_t>(kVocab - 1), 0, static_cast<std::int32_t>(kVocab - 2),
                                      126200};
  static_assert(126200 * kRows > std::int64_t{1} << 31);
  std::vector<std::int32_t> tokens;
  for (std::int64_t i = 0; i < positions; ++i) tokens.push_back(ids[at(i % 4)]);
  const auto d_out = rounded(random_values(positions * kRows, 1), DType::bf16);
  const Tensor table = garbage(DType::bf16, Shape{kVocab, kRows});
  const Tensor token = device_->upload(tokens, Shape{positions}),
               count = device_->count(static_cast<std::int32_t>(positions));
  const Tensor given = device_->upload(d_out, DType::bf16, Shape{positions, kRows}),
               out = device_->garbage(DType::bf16, Shape{positions, kRows});
  device_->run([&](Ops& ops) {
    ops.embedding_backward({given, token, count, {table, false}});
    ops.embedding({table, token, count, out});
  });
  for (std::int64_t i = 0; i < 4; ++i) {
    std::vector<float> want(at(kRows));
    for (std::int64_t c = 0; c < kRows; ++c) {
      double total = 0.0;
      for (std::int64_t p = i; p < positions; p += 4) total += d_out[at(p * kRows + c)];
      want[at(c)] = to_float(to_bf16(static_cast<float>(total)));
    }
    EXPECT_TRUE(row_floats(table, ids[at(i)]) == want) << "token " << ids[at(i)];
    EXPECT_TRUE(row_floats(out, 60 + i) == want) << "token " << ids[at(i)];
  }
  for (std::int64_t row : {std::int64_t{1}, std::int64_t{126199}, kVocab - 3}) {
    EXPECT_TRUE(row_floats(table, row) == std::vector<float>(at(kRows), 0.0f)) << "row " << row;
  }
}

}  // namespace
}  // namespace llmfp8::testing
