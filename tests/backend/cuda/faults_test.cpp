// What CUDA's errors and versions mean to a user. Runs without a GPU.
#include <gtest/gtest.h>

#include "backend/cuda/check.h"
#include "backend/cuda/versions.h"

namespace llmfp8::cuda {
namespace {

bool holds(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

TEST(CudaFault, LostGpuIsSentToTheSystemsLog) {
  for (cudaError_t status : {cudaErrorDevicesUnavailable, cudaErrorNoDevice, cudaErrorECCUncorrectable,
                             cudaErrorUnknown, cudaErrorNvlinkUncorrectable, cudaErrorLaunchTimeout}) {
    EXPECT_EQ(fault_of(status), Fault::lost) << cudaGetErrorName(status);
    const std::string text = fault_text(status, "waiting for the GPU", "NVIDIA X (GPU 3)");
    for (const char* part :
         {"NVIDIA X (GPU 3) was lost", "waiting for the GPU", cudaGetErrorName(status), "nvidia-smi", "dmesg", "Xid"})
      EXPECT_TRUE(holds(text, part)) << part << " in " << text;
    EXPECT_FALSE(holds(text, "defect")) << text;
  }
}

TEST(CudaFault, FaultOfAKernelIsADefectToReport) {
  for (cudaError_t status : {cudaErrorIllegalAddress, cudaErrorMisalignedAddress, cudaErrorAssert,
                             cudaErrorIllegalInstruction, cudaErrorLaunchFailure}) {
    EXPECT_EQ(fault_of(status), Fault::defect) << cudaGetErrorName(status);
    const std::string text = fault_text(status, "gemm", "NVIDIA X (GPU 0)");
    for (const char* part : {"gemm", cudaGetErrorName(status), "defect of llm-fp8", "report", "CUDA_LAUNCH_BLOCKING=1"})
      EXPECT_TRUE(holds(text, part)) << part << " in " << text;
    EXPECT_FALSE(holds(text, "was lost")) << text;
  }
}

TEST(CudaFault, CallThatFailedIsAnErrorAndTheRestGoesOn) {
  for (cudaError_t status : {cudaErrorMemoryAllocation, cudaErrorInvalidValue, cudaErrorNotReady,
                             cudaErrorInvalidConfiguration, cudaErrorInsufficientDriver}) {
    EXPECT_EQ(fault_of(status), Fault::none) << cudaGetErrorName(status);
    EXPECT_TRUE(fault_text(status, "cudaMalloc", "NVIDIA X").starts_with("CUDA: cudaMalloc: "));
  }
}

TEST(CudaFault, CheckThrowsTheKindThatTheErrorIs) {
  set_gpu_name("NVIDIA X (GPU 0)");
  EXPECT_NO_THROW(check(cudaSuccess, "anything"));
  EXPECT_THROW(check(cudaErrorECCUncorrectable, "waiting for the GPU"), DeviceFailed);
  EXPECT_THROW(check(cudaErrorIllegalAddress, "waiting for the GPU"), DeviceFailed);
  try {
    check(cudaErrorInvalidValue, "cudaMemcpyAsync");
    FAIL();
  } catch (const DeviceFailed&) {
    FAIL() << "an invalid argument leaves the GPU as it was";
  } catch (const Error& error) {
    EXPECT_TRUE(holds(error.what(), "cudaMemcpyAsync"));
  }
}

constexpr LibraryVersions kBuilt{13000, 130100, 91900};

std::string with(std::size_t driver, std::size_t cublaslt, std::size_t cudnn) {
  return why_unfit(kBuilt, {driver, cublaslt, cudnn});
}

TEST(CudaVersions, SameOrNewerOfTheMajorVersionFits) {
  EXPECT_EQ(with(13000, 130100, 91900), "");
  EXPECT_EQ(with(13020, 130400, 92100), "");
  EXPECT_EQ(with(14000, 130100, 91900), "");  // drivers serve every earlier runtime
  EXPECT_EQ(with(13000, 130100, 91905), "");
  EXPECT_EQ(why_unfit({13000, 130102, 91904}, {13000, 130100, 91900}), "");  // patches do not matter
}

TEST(CudaVersions, OlderOrOtherMajorVersionIsNamed) {
  EXPECT_EQ(with(12080, 130100, 91900), "the NVIDIA driver is for CUDA 12.8, this build needs 13.0");
  EXPECT_EQ(with(13000, 130002, 91900), "cuBLASLt 13.0.2 was found, this build needs 13.1 or a later 13.x");
  EXPECT_EQ(with(13000, 120805, 91900), "cuBLASLt 12.8.5 was found, this build needs 13.1 or a later 13.x");
  EXPECT_EQ(with(13000, 140000, 91900), "cuBLASLt 14.0.0 was found, this build needs 13.1 or a later 13.x");
  EXPECT_EQ(with(13000, 130100, 91001), "cuDNN 9.10.1 was found, this build needs 9.19 or a later 9.x");
  EXPECT_EQ(with(13000, 130100, 8904), "cuDNN 8.9.4 was found, this build needs 9.19 or a later 9.x");
  EXPECT_EQ(with(13000, 130100, 100000), "cuDNN 10.0.0 was found, this build needs 9.19 or a later 9.x");
}

// What this program has really loaded; the driver, which a build machine need not have, apart.
TEST(CudaVersions, LibrariesOfThisMachineFit) {
  const LibraryVersions built{13000, CUBLAS_VERSION, cudnn_built_version()};
  EXPECT_EQ(why_unfit(built, {13000, cublasLtGetVersion(), cudnn_loaded_version()}), "");
}

}  // namespace
}  // namespace llmfp8::cuda
