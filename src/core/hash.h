// A short name for a text; no protection against anybody who looks for two texts of one name.
#pragma once

#include <cstdint>
#include <string_view>

namespace llmfp8 {

// FNV-1a, 64 bits. before: the hash of what stands in front of `text`.
inline std::uint64_t fnv1a(std::string_view text, std::uint64_t before = 0xcbf29ce484222325u) {
  for (const char c : text) before = (before ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return before;
}

}  // namespace llmfp8
