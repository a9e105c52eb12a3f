// Small files made by the tests of hub/: raw safetensors, GGUF, and the message of an Error.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "core/error.h"
#include "hub/gguf.h"
#include "support/golden.h"

namespace llmfp8::testing {

inline std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

inline ::testing::AssertionResult contains(const std::string& text, const std::string& part) {
  if (text.find(part) != std::string::npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "'" << part << "' is not in: " << text;
}

inline ByteSpan as_bytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

inline void write_text(const std::filesystem::path& path, std::string_view text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

template <typename T>
std::string raw(T value) {
  std::string text(sizeof(T), '\0');
  std::memcpy(text.data(), &value, sizeof(T));
  return text;
}

inline std::string raw_floats(std::span<const float> values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

inline std::string safetensors_bytes(const std::string& header, const std::string& data) {
  return raw<std::uint64_t>(header.size()) + header + data;
}

// Writes GGUF v3 with alignment 32.
class GgufBuilder {
 public:
  GgufBuilder& text(const std::string& key, const std::string& value) {
    return pair(key, GgufType::string, raw<std::uint64_t>(value.size()) + value);
  }
  GgufBuilder& u32(const std::string& key, std::uint32_t value) { return pair(key, GgufType::u32, raw(value)); }
  GgufBuilder& f32(const std::string& key, float value) { return pair(key, GgufType::f32, raw(value)); }
  GgufBuilder& boolean(const std::string& key, bool value) {
    return pair(key, GgufType::boolean, raw<std::uint8_t>(value));
  }
  GgufBuilder& strings(const std::string& key, const std::vector<std::string>& values) {
    std::string body = raw(static_cast<std::uint32_t>(GgufType::string)) + raw<std::uint64_t>(values.size());
    for (const std::string& value : values) body += raw<std::uint64_t>(value.size()) + value;
    return pair(key, GgufType::array, body);
  }
  GgufBuilder& i32s(const std::string& key, const std::vector<std::int32_t>& values) {
    std::string body = raw(static_cast<std::uint32_t>(GgufType::i32)) + raw<std::uint64_t>(values.size());
    for (const std::int32_t value : values) body += raw(value);
    return pair(key, GgufType::array, body);
  }
  GgufBuilder& pair(const std::string& key, GgufType type, const std::string& body) {
    pairs_ += raw<std::uint64_t>(key.size()) + key + raw(static_cast<std::uint32_t>(type)) + body;
    ++pair_count_;
    return *this;
  }
  // extents: row-major, as Shape.
  GgufBuilder& tensor(const std::string& name, const std::vector<std::uint64_t>& extents, std::uint32_t type,
                      const std::string& data) {
    infos_ += raw<std::uint64_t>(name.size()) + name + raw(static_cast<std::uint32_t>(extents.size()));
    for (auto extent = extents.rbegin(); extent != extents.rend(); ++extent) infos_ += raw(*extent);
    infos_ += raw(type) + raw<std::uint64_t>(data_.size());
    data_ += data;
    data_.resize((data_.size() + 31) / 32 * 32, '\0');
    ++tensor_count_;
    return *this;
  }
  std::string bytes() const {
    std::string out =
        "GGUF" + raw<std::uint32_t>(3) + raw<std::uint64_t>(tensor_count_) + raw<std::uint64_t>(pair_count_);
    out += pairs_ + infos_;
    out.resize((out.size() + 31) / 32 * 32, '\0');
    return out + data_;
  }

 private:
  std::uint64_t pair_count_ = 0;
  std::uint64_t tensor_count_ = 0;
  std::string pairs_;
  std::string infos_;
  std::string data_;
};

}  // namespace llmfp8::testing
