#include "report/json_values.h"

#include <cmath>

#include "report/series.h"

namespace llmfp8 {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMaxDepth = 16;

}  // namespace

Json parse_bounded(const std::string& text) {
  const auto keep = [](int depth, Json::parse_event_t, Json&) { return depth <= kMaxDepth; };
  return Json::parse(text, keep, /*allow_exceptions=*/false);
}

const Json& member(const Json& object, std::string_view key) {
  static const Json none;
  if (!object.is_object()) return none;
  const auto it = object.find(std::string(key));
  return it == object.end() ? none : *it;
}

std::string text_of(const Json& value) {
  if (value.is_null()) return "";
  if (value.is_string()) return value.get<std::string>();
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string text_at(const Json& object, std::string_view key) { return text_of(member(object, key)); }

double number_of(const Json& value) {
  if (!value.is_number()) return kUnknown;  // "NaN", "Infinity": see json_number
  const double number = value.get<double>();
  return std::isfinite(number) ? number : kUnknown;
}

double number_at(const Json& object, std::string_view key) { return number_of(member(object, key)); }

}  // namespace llmfp8
