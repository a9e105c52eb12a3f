// Any bytes as a GGUF file: refused with an Error, or its tensors, model and tokenizer can be read.
#include <cstdint>
#include <vector>

#include "core/error.h"
#include "hub/gguf.h"
#include "hub/gguf_source.h"
#include "hub/gguf_tokenizer.h"

namespace {

using namespace llmfp8;

template <typename Call>
void allow_errors(const Call& call) {
  try {
    call();
  } catch (const Error&) {
  }
}

void read_tensors(const GgufFile& file) {
  for (const std::string& name : file.names()) {
    const GgufTensor& tensor = *file.find(name);
    const std::int64_t cols = tensor.shape[tensor.shape.rank() - 1];
    std::vector<float> row(static_cast<std::size_t>(cols));
    dequantize_row(tensor, 0, row.data());
    dequantize_row(tensor, tensor.shape.numel() / cols - 1, row.data());
  }
}

void read_model(ByteSpan bytes) {
  const auto source = open_gguf_model(GgufFile::from_bytes(bytes, "fuzz"));
  for (const std::string& name : source->names()) {
    std::vector<std::uint16_t> values(static_cast<std::size_t>(source->shape(name).numel()));
    allow_errors([&] { source->read(name, DType::bf16, values.data()); });
  }
  source->companion_files();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const ByteSpan bytes(reinterpret_cast<const std::byte*>(data), size);
  allow_errors([&] {
    const GgufFile file = GgufFile::from_bytes(bytes, "fuzz");
    read_tensors(file);
    allow_errors([&] { make_tokenizer_files(file); });
    allow_errors([&] { read_model(bytes); });
  });
  return 0;
}
