// Any bytes as tokenizer.json: refused with an Error, or a tokenizer that encodes and decodes whatever it is given.
#include <cstdint>
#include <string_view>

#include "core/error.h"
#include "text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const llmfp8::Tokenizer tokenizer = llmfp8::Tokenizer::from_json(text, "", "fuzz");
    const std::string_view sample = text.substr(0, 512);  // also invalid UTF-8
    tokenizer.decode(tokenizer.encode(sample, true));
    tokenizer.encode_with_offsets("it's 12345 caf\u00e9  \n\n <|x|> aab");
    const std::int32_t ids[] = {0, 1, 2, -1, 2147483647};
    tokenizer.decode(ids, true);
  } catch (const llmfp8::Error&) {
  }
  return 0;
}
