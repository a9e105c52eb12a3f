// A reader of golden .safetensors files for tests of src/core, which may not use hub/. It trusts its input.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace llmfp8::testing {

class SafetensorsLite {
 public:
  explicit SafetensorsLite(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    if (!in) throw std::runtime_error("cannot open " + path.string());
    bytes_.assign(std::istreambuf_iterator<char>(in), {});
    std::uint64_t header_bytes = 0;
    if (bytes_.size() < sizeof header_bytes) throw std::runtime_error(path.string() + " is too short");
    std::memcpy(&header_bytes, bytes_.data(), sizeof header_bytes);
    data_begin_ = sizeof header_bytes + header_bytes;
    header_ = nlohmann::json::parse(bytes_.data() + sizeof header_bytes, bytes_.data() + data_begin_);
  }

  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& [name, entry] : header_.items()) {
      if (name != "__metadata__") all.push_back(name);
    }
    return all;
  }

  std::vector<std::int64_t> shape(const std::string& name) const { return header_.at(name).at("shape"); }

  // The elements, row-major; the size of T has to fit the stored dtype.
  template <typename T>
  std::vector<T> read(const std::string& name) const {
    const std::vector<std::size_t> offsets = header_.at(name).at("data_offsets");
    std::size_t count = 1;
    for (std::int64_t extent : shape(name)) count *= static_cast<std::size_t>(extent);
    if (count * sizeof(T) != offsets.at(1) - offsets.at(0)) throw std::runtime_error("wrong element size for " + name);
    std::vector<T> values(count);
    std::memcpy(values.data(), bytes_.data() + data_begin_ + offsets[0], count * sizeof(T));
    return values;
  }

 private:
  std::vector<char> bytes_;
  std::size_t data_begin_ = 0;
  nlohmann::json header_;
};

}  // namespace llmfp8::testing
