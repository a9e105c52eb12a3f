#include "backend/cuda/fault.h"

namespace llmfp8::cuda {
namespace {

std::string& gpu_name() {
  static std::string name = "the GPU";
  return name;
}

}  // namespace

Fault fault_of(cudaError_t status) {
  switch (status) {
    case cudaErrorDevicesUnavailable:
    case cudaErrorNoDevice:
    case cudaErrorInvalidDevice:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContained:
    case cudaErrorHardwareStackError:
    case cudaErrorLaunchTimeout:
    case cudaErrorContextIsDestroyed:
    case cudaErrorDeviceUninitialized:
    case cudaErrorSystemNotReady:
    case cudaErrorExternalDevice:
    case cudaErrorMpsConnectionFailed:
    case cudaErrorMpsRpcFailure:
    case cudaErrorMpsServerNotReady:
    case cudaErrorMpsClientTerminated:
    case cudaErrorUnknown: return Fault::lost;
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorIllegalInstruction:
    case cudaErrorLaunchFailure:
    case cudaErrorAssert: return Fault::defect;
    default: return Fault::none;
  }
}

std::string fault_text(cudaError_t status, std::string_view what, std::string_view gpu) {
  const std::string call = fmt::format("{}: {} ({})", what, cudaGetErrorString(status), cudaGetErrorName(status));
  switch (fault_of(status)) {
    case Fault::lost:
      return fmt::format("{} was lost: {}; nvidia-smi shows whether it is back, dmesg says why (look for Xid)", gpu,
                         call);
    case Fault::defect:
      return fmt::format(
          "{} stopped at a fault: {}; where dmesg has no Xid that blames the hardware this is a defect of "
          "llm-fp8, please report it; CUDA_LAUNCH_BLOCKING=1 names the operation",
          gpu, call);
    case Fault::none: break;
  }
  return fmt::format("CUDA: {}", call);
}

void set_gpu_name(std::string name) { gpu_name() = std::move(name); }

void throw_fault(cudaError_t status, std::string_view what) {
  const std::string text = fault_text(status, what, gpu_name());
  if (fault_of(status) == Fault::none) throw Error(text);
  throw DeviceFailed(text);
}

void throw_if_faulted(std::string_view what) {
  const cudaError_t status = cudaGetLastError();
  if (fault_of(status) != Fault::none) throw_fault(status, what);
}

}  // namespace llmfp8::cuda
