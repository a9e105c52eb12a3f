// Any bytes as a safetensors file: refused with an Error, or every tensor can be read.
#include <cstdint>

#include "core/error.h"
#include "hub/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static volatile std::uint8_t sink = 0;
  try {
    const auto file = llmfp8::SafetensorsFile::from_bytes({reinterpret_cast<const std::byte*>(data), size}, "fuzz");
    for (const std::string& name : file.names()) {
      const llmfp8::Tensor& tensor = file.at(name).tensor;
      const auto* bytes = static_cast<const std::uint8_t*>(tensor.data);
      for (std::size_t i = 0; i < tensor.bytes(); ++i) sink = sink ^ bytes[i];
    }
  } catch (const llmfp8::Error&) {
  }
  return 0;
}
