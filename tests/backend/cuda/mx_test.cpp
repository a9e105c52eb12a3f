// MXFP8 on CUDA as far as any GPU shows it: scales written in tiles, what a GPU is said to be capable of, and the line that
// a product without it ends with. The products themselves are in cuda_ops_test.cpp and need compute capability 10.x.
#include <memory>
#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "backend/cuda/cuda_backend.h"
#include "op_harness.h"
#include "quantized.h"

namespace llmfp8::testing {
namespace {

Capabilities of(int capability, std::size_t cublaslt = 130100) {
  cuda::DeviceInfo device;
  device.name = "some GPU";
  device.capability = capability;
  device.cublaslt_version = cublaslt;
  return cuda::capabilities_of(device);
}

TEST(CudaCapabilities, FollowTheComputeCapability) {
  EXPECT_EQ(of(80).fp8_tensor.reason, "FP8 needs compute capability 8.9, some GPU has 8.0");
  for (int capability : {89, 90, 100, 103, 120, 121}) EXPECT_TRUE(of(capability).fp8_tensor.available) << capability;
  for (int capability : {80, 89, 90}) {
    EXPECT_FALSE(of(capability).mxfp8.available) << capability;
    EXPECT_TRUE(of(capability).mxfp8.can_emulate) << capability;
    EXPECT_EQ(of(capability).mxfp8.reason,
              fmt::format("MXFP8 needs compute capability 10.0, some GPU has {}.{}", capability / 10, capability % 10));
  }
  for (int capability : {100, 103}) EXPECT_TRUE(of(capability).mxfp8.available) << capability;
  EXPECT_EQ(of(120).mxfp8.reason, "MXFP8 is built for compute capability 10.x, some GPU has 12.0");
  EXPECT_EQ(of(100, 120600).mxfp8.reason, "MXFP8 needs cuBLASLt 12.8, found 12.6");
}

class CudaMx : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string why_not;
    backend_ = cuda::open_backend(&why_not);
    if (backend_ == nullptr) GTEST_SKIP() << "no usable GPU: " << why_not;
  }
  std::unique_ptr<Backend> backend_;
};

// [96, 544]: padding in both directions. [256, 1024]: none. Every byte is garbage before, so that padding is seen.
TEST_F(CudaMx, ScalesInTilesAreThePlainOnesInTheirPlaces) {
  for (const Shape shape : {Shape{96, 544}, Shape{256, 1024}, Shape{32, 32}}) {
    for (DType format : {DType::e4m3, DType::e5m2}) {
      const std::int64_t rows = shape[0], cols = shape[1], live = rows - 7;
      Device device(*backend_);
      const Tensor x = device.upload(random_values(shape.numel(), 3, 5.0f), DType::bf16, shape);
      const Tensor count = device.count(static_cast<std::int32_t>(live));
      const auto empty = [&](MxScaleLayout layout) {
        QTensor q;
        q.scaling = Scaling::mx_1x32, q.format = format, q.shape = shape, q.mx_scale_layout = layout;
        q.rowwise = device.garbage(DType::u8, shape);
        q.columnwise = device.garbage(DType::u8, shape);
        const bool tiled = layout == MxScaleLayout::tiles_128x4;
        q.rowwise_scale_inv = device.garbage(DType::u8, mx_scale_shape(rows, cols / 32, layout));
        q.columnwise_scale_inv =
            device.garbage(DType::u8, tiled ? mx_scale_shape(cols, rows / 32, layout) : Shape{rows / 32, cols});
        return q;
      };
      const QTensor plain = empty(MxScaleLayout::plain), tiled = empty(MxScaleLayout::tiles_128x4);
      device.run([&](Ops& ops) {
        ops.quantize(x, count, plain);
        ops.quantize(x, count, tiled);
      });
      EXPECT_EQ(device.bytes(plain.rowwise), device.bytes(tiled.rowwise));
      EXPECT_EQ(device.bytes(plain.columnwise), device.bytes(tiled.columnwise));
      EXPECT_EQ(device.bytes(tiled.rowwise_scale_inv),
                tiled_scales(device.bytes(plain.rowwise_scale_inv), rows, cols / 32, ScaleOrder::along));
      EXPECT_EQ(device.bytes(tiled.columnwise_scale_inv),
                tiled_scales(device.bytes(plain.columnwise_scale_inv), cols, rows / 32, ScaleOrder::across));
    }
  }
}

// A weight's codes and scales stand still in a step that is not ok.
TEST_F(CudaMx, AStepThatIsNotOkChangesNoScale) {
  Device device(*backend_);
  const Shape shape{128, 256};
  const Tensor x = device.upload(random_values(shape.numel(), 4), DType::bf16, shape);
  QTensor q;
  q.scaling = Scaling::mx_1x32, q.format = DType::e4m3, q.shape = shape, q.mx_scale_layout = MxScaleLayout::tiles_128x4;
  q.rowwise = device.garbage(DType::u8, shape), q.columnwise = device.garbage(DType::u8, shape);
  q.rowwise_scale_inv = device.garbage(DType::u8, mx_scale_shape(128, 8, q.mx_scale_layout));
  q.columnwise_scale_inv = device.garbage(DType::u8, mx_scale_shape(256, 4, q.mx_scale_layout));
  const auto before = device.bytes(q.rowwise_scale_inv);
  StepScalars bad;
  bad.step_ok = 0;
  StepScalars* scalars = device.scalars(bad);
  device.run([&](Ops& ops) { ops.quantize_weight(x, q, scalars); });
  EXPECT_EQ(device.bytes(q.rowwise_scale_inv), before);
}

TEST_F(CudaMx, AProductOfTwoOrdersOfScalesEndsWithOneLine) {
  Device device(*backend_);
  const Shape shape{64, 96};
  const Tensor x = device.upload(random_values(shape.numel(), 5), DType::bf16, shape);
  const Tensor all = device.count(64), out = device.garbage(DType::f32, Shape{64, 64});
  QTensor plain, tiled;
  for (auto [q, layout] : {std::pair{&plain, MxScaleLayout::plain}, std::pair{&tiled, MxScaleLayout::tiles_128x4}}) {
    q->scaling = Scaling::mx_1x32, q->format = DType::e4m3, q->shape = shape, q->mx_scale_layout = layout;
    q->rowwise = device.garbage(DType::u8, shape);
    q->rowwise_scale_inv = device.garbage(DType::u8, mx_scale_shape(64, 3, layout));
  }
  try {
    device.run([&](Ops& ops) {
      ops.quantize(x, all, plain);
      ops.quantize(x, all, tiled);
      GemmArgs args;
      args.a = plain, args.b = tiled, args.out = out;
      ops.gemm(args);
    });
    FAIL() << "a product of both orders of scales ran";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("scaled in two ways"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace llmfp8::testing
