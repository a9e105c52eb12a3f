// Views: what slices and reshapes point at, what they refuse, and that planning views without memory work alike.
#include "core/tensor.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <numeric>
#include <vector>

#include "core/batch.h"
#include "core/buffer.h"

namespace llmfp8 {
namespace {

std::vector<float> iota(std::size_t n) {
  std::vector<float> values(n);
  std::iota(values.begin(), values.end(), 0.0f);
  return values;
}

TEST(Tensor, LeadingDimensionsFlattenIntoRows) {
  std::vector<float> values = iota(24);
  const Tensor t(values.data(), DType::f32, Shape{2, 3, 4});
  EXPECT_EQ(t.rows(), 6);
  EXPECT_EQ(t.cols(), 4);
  EXPECT_EQ(t.bytes(), 96u);
  EXPECT_EQ(t.slice_rows(5, 1).as<float>()[0], 20.0f);
}

TEST(Tensor, ColumnsKeepTheirParentsStride) {
  std::vector<float> values = iota(12);
  const Tensor t(values.data(), DType::f32, Shape{3, 4});
  const Tensor right = t.slice_cols(2, 2);
  EXPECT_EQ(right.row_stride, 4);
  EXPECT_FALSE(right.contiguous());
  EXPECT_EQ(right.slice_rows(1, 1).as<float>()[0], 6.0f);
  EXPECT_EQ(right.slice_rows(1, 2).slice_cols(1, 1).as<float>()[0], 7.0f);
  EXPECT_THROW(right.reshape(Shape{6}), Error);
  EXPECT_EQ(t.reshape(Shape{12}).as<float>()[11], 11.0f);
}

TEST(Tensor, OutOfRangeViewsAreRefused) {
  const Tensor t(nullptr, DType::bf16, Shape{3, 4});
  EXPECT_THROW(t.slice_rows(2, 2), Error);
  EXPECT_THROW(t.slice_rows(-1, 1), Error);
  EXPECT_THROW(t.slice_cols(0, 5), Error);
  EXPECT_THROW(t.slice_cols(3, -1), Error);
  EXPECT_THROW(t.reshape(Shape{3, 5}), Error);
}

TEST(Tensor, APlanningViewHasShapesAndNoAddress) {
  const Tensor t(nullptr, DType::f32, Shape{8, 16});
  EXPECT_EQ(t.slice_rows(3, 2).data, nullptr);
  EXPECT_EQ(t.slice_cols(3, 2).data, nullptr);
  EXPECT_EQ(t.slice_rows(3, 2).shape, (Shape{2, 16}));
}

TEST(Tensor, EmptyAndUndefined) {
  EXPECT_FALSE(Tensor().defined());
  const Tensor empty(nullptr, DType::f32, Shape{0, 4});
  EXPECT_TRUE(empty.defined());
  EXPECT_EQ(empty.bytes(), 0u);
  EXPECT_EQ(Tensor(nullptr, DType::f32, Shape{4, 0}).rows(), 0);
}

TEST(Shape, RefusesNegativeExtentsAndTooManyDimensions) {
  EXPECT_THROW((Shape{2, -1}), Error);
  EXPECT_THROW((Shape{1, 1, 1, 1, 1}), Error);
  EXPECT_EQ(to_string(Shape{2, 3}), "[2, 3]");
  EXPECT_EQ((Shape{2, 3}).numel(), 6);
}

TEST(Buffer, OwnsOnceAndBoundsItsViews) {
  int freed = 0;
  {
    Buffer first(std::malloc(64), 64, [&freed](void* data) { std::free(data), ++freed; });
    Buffer second = std::move(first);
    EXPECT_EQ(first.data(), nullptr);
    EXPECT_EQ(second.tensor(DType::f32, Shape{4, 4}).bytes(), 64u);
    EXPECT_EQ(second.tensor(DType::f32, Shape{4}, 48).as<std::byte>(), static_cast<std::byte*>(second.data()) + 48);
    EXPECT_THROW(second.tensor(DType::f32, Shape{17}), Error);
    EXPECT_THROW(second.tensor(DType::f32, Shape{4}, 52), Error);
    EXPECT_EQ(freed, 0);
    second = Buffer();
    EXPECT_EQ(freed, 1);
  }
  EXPECT_EQ(freed, 1);
}

TEST(Batch, CountsAreViewsOfOneTensor) {
  BatchCounts counts{.num_tokens = 7, .num_docs = 2, .num_supervised = 5};
  Batch batch;
  batch.counts = Tensor(&counts, DType::i32, Shape{4});
  EXPECT_EQ(*batch.num_tokens().as<std::int32_t>(), 7);
  EXPECT_EQ(*batch.num_docs().as<std::int32_t>(), 2);
  EXPECT_EQ(*batch.num_supervised().as<std::int32_t>(), 5);
}

TEST(DType, SizesAndNames) {
  EXPECT_EQ(size_bytes(DType::f64), 8u);
  EXPECT_EQ(size_bytes(DType::f32), 4u);
  EXPECT_EQ(size_bytes(DType::bf16), 2u);
  EXPECT_EQ(size_bytes(DType::e8m0), 1u);
  EXPECT_EQ(name(DType::e4m3), "e4m3");
  EXPECT_TRUE(is_fp8(DType::e5m2));
  EXPECT_FALSE(is_fp8(DType::e8m0));
}

}  // namespace
}  // namespace llmfp8
