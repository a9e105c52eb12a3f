// Any bytes as a chat template: refused with an Error of one line, or rendered, or refused while it is rendered.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "core/error.h"
#include "text/jinja/template.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const auto variables = nlohmann::ordered_json::parse(
      R"({"messages": [{"role": "user", "content": "a <b> ü"}, {"role": "assistant", "content": null, "tool_calls": [{"x": 1.5}]}],
          "tools": null, "add_generation_prompt": true, "bos_token": "<s>"})");
  try {
    const llmfp8::jinja::Template source(std::string_view(reinterpret_cast<const char*>(data), size), "fuzz");
    source.render(variables, {});
  } catch (const llmfp8::Error& error) {
    if (std::string_view(error.what()).find('\n') != std::string_view::npos) std::abort();
  }
  return 0;
}
