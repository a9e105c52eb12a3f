// Checked access to a JSON document: every wrong type becomes one message that names the file, the key, what was found
// and what is wanted. Used by the readers of src/text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace llmfp8 {

// A value inside a document, and its path for messages. Refers to both: keep the document and origin alive.
class JsonReader {
 public:
  JsonReader(const nlohmann::json& value, const std::string& origin, std::string path = "")
      : value_(value), origin_(origin), path_(std::move(path)) {}

  const std::string& origin() const { return origin_; }
  const std::string& path() const { return path_; }
  bool is_null() const { return value_.is_null(); }
  bool is_string() const { return value_.is_string(); }
  bool is_object() const { return value_.is_object(); }
  bool is_array() const { return value_.is_array(); }
  std::size_t size() const { return value_.size(); }

  // A key that is not there reads as null.
  JsonReader at(const char* key) const {
    static const nlohmann::json null;
    if (!value_.is_object()) wrong("an object");
    const auto found = value_.find(key);
    return {found == value_.end() ? null : *found, origin_, path_.empty() ? key : path_ + "." + key};
  }
  JsonReader element(std::size_t index) const {
    return {value_[index], origin_, path_ + "[" + std::to_string(index) + "]"};
  }

  const nlohmann::json::array_t& array() const {
    if (!value_.is_array()) wrong("a list");
    return value_.get_ref<const nlohmann::json::array_t&>();
  }
  const nlohmann::json::object_t& object() const {
    if (!value_.is_object()) wrong("an object");
    return value_.get_ref<const nlohmann::json::object_t&>();
  }
  const std::string& string() const {
    if (!value_.is_string()) wrong("a string");
    return value_.get_ref<const std::string&>();
  }
  bool boolean(bool otherwise) const {
    if (value_.is_null()) return otherwise;
    if (!value_.is_boolean()) wrong("true or false");
    return value_.get<bool>();
  }
  std::int32_t integer(std::int64_t largest) const {
    const bool fits = value_.is_number_unsigned() && value_.get<std::uint64_t>() <= static_cast<std::uint64_t>(largest);
    if (!fits) wrong("a whole number from 0 to " + std::to_string(largest));
    return static_cast<std::int32_t>(value_.get<std::uint64_t>());
  }

  [[noreturn]] void wrong(const std::string& wanted) const {
    fail("{}: {} is {}, wanted: {}", origin_, path_.empty() ? "the document" : path_.substr(0, 120), found(), wanted);
  }

 private:
  std::string found() const {
    if (value_.is_string()) return "\"" + value_.get_ref<const std::string&>().substr(0, 60) + "\"";
    if (value_.is_number() || value_.is_boolean()) return value_.dump();
    return value_.is_null() ? "missing or null" : value_.is_array() ? "a list" : "an object";
  }

  const nlohmann::json& value_;
  const std::string& origin_;
  std::string path_;
};

// Throws Error: not JSON.
inline nlohmann::json parse_json(std::string_view text, const std::string& origin) {
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::parse_error& error) {
    fail("{}: not valid JSON (at byte {})", origin, error.byte);
  } catch (const nlohmann::json::exception& error) {
    fail("{}: not valid JSON ({})", origin, std::string(error.what()).substr(0, 100));
  }
}

}  // namespace llmfp8
