// What a run reports, and where it goes: Metrics hands every value to all sinks. Called by the trainer; the sinks are
// put together by src/cli.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace llmfp8 {

using MetricValues = std::vector<std::pair<std::string, double>>;  // in the order of printing

struct MetricRecord {
  std::int64_t step = 0;
  double time = 0.0;  // seconds since 1970
  MetricValues values;
};

class MetricsSink {
 public:
  virtual ~MetricsSink() = default;
  virtual void log(const MetricRecord& record) = 0;
  // One value of the whole run; the last one of a name counts.
  virtual void summary(const std::string& name, double value) = 0;
  virtual void text(const std::string& name, const std::string& value) = 0;
  // The run is over, well or not. Called once.
  virtual void finish() {}
  // What run.json says of where the values go.
  virtual void describe(nlohmann::ordered_json&) const {}
};

// Measured when something is logged, and written beside it: memory and power of a device.
class MetricsSource {
 public:
  virtual ~MetricsSource() = default;
  virtual void append(MetricValues& values) = 0;
};

// Hands on to every sink, in the order in which they were added. Not thread-safe: one thread reports.
class Metrics {
 public:
  void add(std::unique_ptr<MetricsSink> sink) { sinks_.push_back(std::move(sink)); }
  void add(std::unique_ptr<MetricsSource> source) { sources_.push_back(std::move(source)); }

  // Values with an empty name (see metric_names.h) are dropped; a record without values is not logged.
  void log(std::int64_t step, const std::vector<std::pair<std::string_view, double>>& values);
  void summary(std::string_view name, double value);
  void text(std::string_view name, std::string_view value);
  void finish();
  void describe(nlohmann::ordered_json& run_json) const;

 private:
  std::vector<std::unique_ptr<MetricsSink>> sinks_;
  std::vector<std::unique_ptr<MetricsSource>> sources_;
};

// A finite number as a number, else "NaN", "Infinity" or "-Infinity": JSON has no such numbers.
nlohmann::ordered_json json_number(double value);

// What json_number made; nothing for any other value.
std::optional<double> number_from(const nlohmann::ordered_json& json);

enum class FileMode { replace, append };  // append: a resumed run

// metrics.jsonl: {"step": 50, "time": 1730000000.5, "Train/Loss": 1.25, …}, one object a line, flushed each line.
// Texts are lines too.
class JsonlSink : public MetricsSink {
 public:
  // last_step: of what is in the file already; texts that come before the first values belong to it.
  JsonlSink(const std::filesystem::path& path, FileMode mode, std::int64_t last_step = 0);
  ~JsonlSink() override;
  JsonlSink(const JsonlSink&) = delete;
  JsonlSink& operator=(const JsonlSink&) = delete;

  void log(const MetricRecord& record) override;
  void summary(const std::string&, double) override {}
  void text(const std::string& name, const std::string& value) override;

 private:
  void write_line(const nlohmann::ordered_json& object);

  std::filesystem::path path_;
  std::FILE* file_ = nullptr;
  std::int64_t last_step_ = 0;
};

// The records of one step among the first `max_bytes` of such a file, without texts; a broken line is left out.
std::vector<MetricRecord> records_of_step(const std::filesystem::path& path, std::int64_t step, std::uintmax_t max_bytes);

// summary.json: one object of names and values, written at finish() beside the old file and then renamed.
class SummarySink : public MetricsSink {
 public:
  explicit SummarySink(std::filesystem::path path) : path_(std::move(path)) {}

  void log(const MetricRecord&) override {}
  void summary(const std::string& name, double value) override { values_[name] = json_number(value); }
  void text(const std::string& name, const std::string& value) override { values_[name] = value; }
  void finish() override;

 private:
  std::filesystem::path path_;
  nlohmann::ordered_json values_ = nlohmann::ordered_json::object();
};

}  // namespace llmfp8
