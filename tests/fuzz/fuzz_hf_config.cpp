// Any bytes as config.json: refused with an Error, or a ModelConfig that is written and read back.
#include <cstdint>
#include <string_view>

#include "core/error.h"
#include "core/log.h"
#include "hub/hf_config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  llmfp8::ModelConfig config;
  try {
    config = llmfp8::parse_hf_config(text, "fuzz");
  } catch (const llmfp8::Error&) {
    return 0;
  }
  llmfp8::parse_hf_config(llmfp8::write_hf_config(config), "written");  // an Error here is a finding
  return 0;
}
