// Any bytes as a JSONL file: every line is refused with an Error or gives its columns.
#include <cstdint>
#include <string_view>

#include "core/error.h"
#include "data/jsonl.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const llmfp8::JsonlFile file(std::string_view(reinterpret_cast<const char*>(data), size), "fuzz");
    for (std::int64_t i = 0; i < file.rows(); ++i) {
      try {
        file.row(i);
      } catch (const llmfp8::Error&) {
      }
    }
  } catch (const llmfp8::Error&) {
  }
  return 0;
}
