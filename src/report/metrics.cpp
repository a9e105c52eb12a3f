#include "report/metrics.h"

#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>

#include "core/clock.h"
#include "core/error.h"

namespace llmfp8 {
namespace {

// A text may hold bytes that are not UTF-8 (a path): they are replaced rather than ending the run.
std::string dump(const nlohmann::ordered_json& value, int indent) {
  return value.dump(indent, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

void Metrics::log(std::int64_t step, const std::vector<std::pair<std::string_view, double>>& values) {
  MetricRecord record{.step = step, .time = unix_seconds(), .values = {}};
  for (const auto& [name, value] : values) {
    if (!name.empty()) record.values.emplace_back(std::string(name), value);
  }
  if (record.values.empty()) return;
  for (const auto& source : sources_) source->append(record.values);
  for (const auto& sink : sinks_) sink->log(record);
}

void Metrics::summary(std::string_view name, double value) {
  if (name.empty()) return;
  for (const auto& sink : sinks_) sink->summary(std::string(name), value);
}

void Metrics::text(std::string_view name, std::string_view value) {
  if (name.empty()) return;
  for (const auto& sink : sinks_) sink->text(std::string(name), std::string(value));
}

void Metrics::finish() {
  for (const auto& sink : sinks_) sink->finish();
}

void Metrics::describe(nlohmann::ordered_json& run_json) const {
  for (const auto& sink : sinks_) sink->describe(run_json);
}

nlohmann::ordered_json json_number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  return value;
}

std::optional<double> number_from(const nlohmann::ordered_json& json) {
  if (json.is_number()) return json.get<double>();
  for (const double value : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
                             -std::numeric_limits<double>::infinity()}) {
    if (json == json_number(value)) return value;
  }
  return std::nullopt;
}

std::vector<MetricRecord> records_of_step(const std::filesystem::path& path, std::int64_t step, std::uintmax_t max_bytes) {
  std::vector<MetricRecord> records;
  std::ifstream file(path);
  std::uintmax_t read = 0;
  for (std::string line; std::getline(file, line);) {
    read += line.size() + 1;
    if (read > max_bytes) break;
    const auto json = nlohmann::ordered_json::parse(line, nullptr, false);
    if (!json.is_object() || json.value("step", nlohmann::ordered_json()) != step) continue;
    MetricRecord record{.step = step, .time = number_from(json.value("time", nlohmann::ordered_json())).value_or(0), .values = {}};
    for (const auto& [name, value] : json.items()) {
      const std::optional<double> number = number_from(value);
      if (number && name != "step" && name != "time") record.values.emplace_back(name, *number);
    }
    if (!record.values.empty()) records.push_back(std::move(record));
  }
  return records;
}

JsonlSink::JsonlSink(const std::filesystem::path& path, FileMode mode, std::int64_t last_step) : path_(path), last_step_(last_step) {
  file_ = std::fopen(path.c_str(), mode == FileMode::append ? "a" : "w");
  CHECK(file_ != nullptr, "{}: cannot be written: {}", path.string(), std::strerror(errno));
}

JsonlSink::~JsonlSink() { std::fclose(file_); }

void JsonlSink::write_line(const nlohmann::ordered_json& object) {
  const std::string line = dump(object, -1) + "\n";
  const bool is_written = std::fwrite(line.data(), 1, line.size(), file_) == line.size() && std::fflush(file_) == 0;
  CHECK(is_written, "{}: cannot be written: {}", path_.string(), std::strerror(errno));
}

void JsonlSink::log(const MetricRecord& record) {
  last_step_ = record.step;
  nlohmann::ordered_json object = {{"step", record.step}, {"time", record.time}};
  for (const auto& [name, value] : record.values) object[name] = json_number(value);
  write_line(object);
}

void JsonlSink::text(const std::string& name, const std::string& value) {
  write_line({{"step", last_step_}, {"time", unix_seconds()}, {name, value}});
}

void SummarySink::finish() {
  const std::string text = dump(values_, 2) + "\n";
  std::filesystem::path temporary = path_;
  temporary += ".tmp";
  std::FILE* file = std::fopen(temporary.c_str(), "w");
  CHECK(file != nullptr, "{}: cannot be written: {}", temporary.string(), std::strerror(errno));
  const bool is_written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  const bool is_closed = std::fclose(file) == 0;
  if (!is_written || !is_closed) {
    const std::string reason = std::strerror(errno);
    std::error_code ignored;
    std::filesystem::remove(temporary, ignored);
    fail("{}: cannot be written: {}", path_.string(), reason);
  }
  std::error_code status;
  std::filesystem::rename(temporary, path_, status);
  CHECK(!status, "{}: cannot be written: {}", path_.string(), status.message());
}

}  // namespace llmfp8
