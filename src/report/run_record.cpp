#include "report/run_record.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <optional>
#include <system_error>

#include "core/error.h"
#include "report/json_values.h"

namespace llmfp8 {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr std::uintmax_t kMaxJsonBytes = std::uintmax_t{16} << 20;    // of run.json and summary.json
constexpr std::string_view kShadowCosine = "shadow/gradient_cosine/";  // train/shadow_check.h
constexpr std::size_t kMaxShadowKinds = 100;
constexpr std::uintmax_t kMaxMetricsBytes = std::uintmax_t{2} << 30;  // ten million records

Json read_object(const fs::path& path) {
  std::error_code error;
  const std::uintmax_t bytes = fs::file_size(path, error);
  CHECK(!error, "{}: cannot be read ({})", path.string(), error.message());
  CHECK(bytes <= kMaxJsonBytes, "{}: {} bytes, wanted at most {}", path.string(), bytes, kMaxJsonBytes);
  std::ifstream file(path, std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(file), {});
  CHECK(!file.bad() && text.size() == bytes, "{}: cannot be read", path.string());
  Json json = parse_bounded(text);
  CHECK(json.is_object(), "{}: not a JSON object", path.string());
  return json;
}

// Steps, rows: never beyond what a double counts exactly.
std::int64_t count_of(const Json& value) {
  const double number = number_of(value);
  return number >= 0 && number <= 9007199254740992.0 ? static_cast<std::int64_t>(number) : 0;
}

// Puts the records of metrics.jsonl into series.
class MetricsReader {
 public:
  explicit MetricsReader(RunRecord& run) : run_(run) {}

  void read(const fs::path& path) {
    std::error_code error;
    const std::uintmax_t bytes = fs::file_size(path, error);
    if (error) {
      run_.left_out.push_back("metrics.jsonl is missing: no curves");
      return;
    }
    CHECK(bytes <= kMaxMetricsBytes, "{}: {} bytes, wanted at most {}", path.string(), bytes, kMaxMetricsBytes);
    std::ifstream file(path, std::ios::binary);
    CHECK(file.good(), "{}: cannot be read", path.string());
    std::int64_t number = 0, good = 0, broken = 0, last_broken = 0;
    for (std::string line; std::getline(file, line);) {
      ++number;
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      const Json record = parse_bounded(line);
      const bool is_record = record.is_object() && std::isfinite(number_at(record, "step"));
      if (is_record) {
        ++good;
        add(record);
      } else {
        ++broken;
        last_broken = number;
      }
    }
    CHECK(good > 0 || broken == 0, "{}: not one line is a record of a run", path.string());
    if (broken > 0) {
      run_.left_out.push_back(
          broken == 1 && last_broken == number
              ? fmt::format("metrics.jsonl: the last line (line {}) is cut off", number)
              : fmt::format("metrics.jsonl: {} broken lines (the last is line {})", broken, last_broken));
    }
  }

 private:
  void add(const Json& record) {
    const double time = number_at(record, "time");
    if (!std::isfinite(first_time_)) first_time_ = time;
    if (!std::isfinite(run_.started)) run_.started = time;
    SeriesPoint point;
    point.step = number_at(record, "step");
    point.seconds = std::isfinite(time) && std::isfinite(first_time_) ? time - first_time_ : 0;
    point.tokens = tokens_until(record, point.step);
    for (const auto& [name, value] : record.items()) {
      if (name == "step" || name == "time") continue;
      point.value = number_of(value);
      // A text is no value, except the names that stand for numbers that JSON does not have.
      if (value.is_string() && value != "NaN" && value != "Infinity" && value != "-Infinity") continue;
      file_under(name, point);
    }
  }

  void file_under(std::string_view name, SeriesPoint point) {
    if (name.starts_with(kShadowCosine)) {
      const std::string kind(name.substr(kShadowCosine.size()));
      const bool has_room = run_.shadow_cosine.size() < kMaxShadowKinds || run_.shadow_cosine.contains(kind);
      if (has_room) append(run_.shadow_cosine[kind], point);
      return;
    }
    for (const SeriesSpec& spec : kSeriesSpecs) {
      for (const auto& logged : spec.logged) {
        if (name != logged.name) continue;
        point.value *= logged.factor;
        append(run_.series[std::string(spec.id)], point);
        return;
      }
    }
  }

  // Tokens/s and the time per step are means since the last record, so their product counts the tokens between the two.
  double tokens_until(const Json& record, double step) {
    const double rate = number_at(record, kTrainFp8Names.tokens_per_second);
    const double step_ms = number_at(record, kTrainFp8Names.time_per_step_ms);
    if (std::isfinite(rate) && std::isfinite(step_ms)) {
      while (!counted_.empty() && counted_.back().first >= step) counted_.pop_back();
      const auto [last_step, tokens] = counted_.empty() ? std::pair{0.0, 0.0} : counted_.back();
      counted_.emplace_back(step, tokens + std::round(rate * step_ms / 1000.0 * (step - last_step)));
    }
    return counted_.empty() ? kUnknown : counted_.back().second;
  }

  RunRecord& run_;
  double first_time_ = kUnknown;
  std::vector<std::pair<double, double>> counted_;  // (step, tokens until then)
};

void read_flags(const Json& run, RunRecord& record) {
  const Json& flags = member(run, "flags");
  if (!flags.is_object()) return;
  for (const auto& [name, flag] : flags.items()) {
    const bool is_described = flag.is_object() && flag.contains("value");
    record.flags.push_back(
        {name, text_of(is_described ? flag["value"] : flag), is_described ? text_at(flag, "from") : ""});
  }
}

std::string commit_text(const Json& run, const char* what) {
  const Json& origin = member(member(run, "hub"), what);
  const std::string commit = text_at(origin, "commit");
  return commit.empty() ? "" : fmt::format("{} at commit {}", text_at(origin, "repository"), commit);
}

void read_run_json(const Json& run, RunRecord& record) {
  record.state = text_at(run, "state");
  record.error = text_at(run, "error");
  record.model_commit = commit_text(run, "model");
  record.dataset_commit = commit_text(run, "dataset");
  record.program = text_at(run, "program");
  record.precision = text_at(run, "precision");
  record.fallback = text_at(run, "fallback");
  record.device = text_at(run, "device");
  record.version = text_at(member(run, "versions"), "llm-fp8");
  if (const Json& notes = member(run, "notes"); notes.is_array()) {
    for (const Json& note : notes) record.remarks.push_back(text_of(note));
  }
  record.steps_done = count_of(member(member(run, "steps"), "done"));
  record.steps_total = count_of(member(member(run, "steps"), "total"));
  record.parameters = count_of(member(run, "parameters"));
  record.started = number_at(run, "started");
  if (const Json& rows = member(run, "rows"); rows.is_object()) {
    for (const auto& [what, count] : rows.items()) record.rows.emplace_back(what, count_of(count));
  }
  if (const Json& memory = member(run, "memory_bytes"); memory.is_object()) {
    double total = 0;
    for (const auto& [what, bytes] : memory.items()) {
      record.memory.emplace_back(what, number_of(bytes));
      total += std::isfinite(number_of(bytes)) ? number_of(bytes) : 0;
    }
    if (total > 0) record.memory_bytes = total;
  }
  if (const Json& recipe = member(run, "recipe_that_ran"); recipe.is_object()) record.recipe_that_ran = recipe;
  read_flags(run, record);
  record.model = record.flag("model_name");
  if (record.model.empty()) record.model = text_at(member(run, "model"), "origin");
  record.name = record.flag("wandb_run_name");
}

void read_summary(const Json& summary, RunRecord& record) {
  record.tokens_per_second = number_at(summary, "tokens_per_second");
  record.train_seconds = number_at(summary, "train_seconds");
  record.tokens = number_at(summary, "tokens");
  const std::string prefix = std::string(kStabilityReportPrefix) + "/";
  for (const auto& [name, value] : summary.items()) {
    const std::size_t slash = name.rfind('/');
    if (!name.starts_with(prefix) || slash < prefix.size()) continue;
    record.stability[name.substr(prefix.size(), slash - prefix.size())][name.substr(slash + 1)] = number_of(value);
  }
}

// A run that has no summary yet: the mean of the rates that it logged.
double mean_rate(const RunRecord& record) {
  const SeriesPoints* rates = record.find("tokens_per_second");
  if (rates == nullptr) return kUnknown;
  double sum = 0;
  int count = 0;
  for (const SeriesPoint& point : *rates) {
    if (!std::isfinite(point.value)) continue;
    sum += point.value;
    ++count;
  }
  return count > 0 ? sum / count : kUnknown;
}

}  // namespace

const SeriesPoints* RunRecord::find(std::string_view id) const {
  const auto it = series.find(id);
  return it == series.end() || it->second.empty() ? nullptr : &it->second;
}

double RunRecord::last(std::string_view id) const {
  const SeriesPoints* points = find(id);
  if (points == nullptr) return kUnknown;
  const auto it =
      std::find_if(points->rbegin(), points->rend(), [](const SeriesPoint& p) { return std::isfinite(p.value); });
  return it == points->rend() ? kUnknown : it->value;
}

std::string RunRecord::flag(std::string_view flag_name) const {
  const auto it = std::find_if(flags.begin(), flags.end(), [&](const RunFlag& f) { return f.name == flag_name; });
  return it == flags.end() ? "" : it->value;
}

bool is_run_folder(const fs::path& folder) {
  std::error_code ignored;
  return fs::exists(folder / "run.json", ignored) || fs::exists(folder / "metrics.jsonl", ignored);
}

RunRecord read_run(const fs::path& folder) {
  std::error_code ignored;
  CHECK(fs::exists(folder, ignored), "{}: no such folder, wanted the --output_dir of a run", folder.string());
  CHECK(fs::is_directory(folder, ignored), "{}: a file, wanted the --output_dir of a run", folder.string());
  CHECK(fs::exists(folder / "run.json", ignored), "{}: no run.json in it, wanted the --output_dir of a run",
        folder.string());
  RunRecord record;
  record.folder = folder;
  read_run_json(read_object(folder / "run.json"), record);
  if (record.name.empty()) {
    // "runs/bf16/" and "." have no file name of their own.
    const fs::path whole = fs::weakly_canonical(folder, ignored);
    record.name = (whole.has_filename() ? whole : whole.parent_path()).filename().string();
  }
  MetricsReader(record).read(folder / "metrics.jsonl");
  const SeriesPoints* looks = record.find("weights_changed");
  record.health = read_health(folder / "health.jsonl", looks == nullptr ? SeriesPoints() : *looks);
  if (record.health.broken_lines > 0)
    record.left_out.push_back(fmt::format("health.jsonl: {} broken lines", record.health.broken_lines));
  if (fs::exists(folder / "summary.json", ignored)) read_summary(read_object(folder / "summary.json"), record);

  const auto loss = record.find("loss");
  // run.json of a run that goes on, or was killed, is the one from its start.
  if (loss != nullptr) record.steps_done = std::max(record.steps_done, static_cast<std::int64_t>(loss->back().step));
  if (!std::isfinite(record.tokens_per_second)) record.tokens_per_second = mean_rate(record);
  return record;
}

}  // namespace llmfp8
