// Values out of JSON that a run's folder holds, of which nothing is certain: what is not there or of another type is empty
// or NaN. Used by run_record.cpp and run_health.cpp.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace llmfp8 {

// Discarded where the text is not JSON. What is nested deeper than 16 is dropped, for what is printed is printed recursively.
nlohmann::ordered_json parse_bounded(const std::string& text);

// Null where `object` is none or has no such key.
const nlohmann::ordered_json& member(const nlohmann::ordered_json& object, std::string_view key);

// A text as it is, anything else as JSON; "" for null.
std::string text_of(const nlohmann::ordered_json& value);
std::string text_at(const nlohmann::ordered_json& object, std::string_view key);

// NaN for what is no finite number.
double number_of(const nlohmann::ordered_json& value);
double number_at(const nlohmann::ordered_json& object, std::string_view key);

}  // namespace llmfp8
