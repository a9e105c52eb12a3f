// llm-fp8 report and llm-fp8 runs: what finished and running runs look like, as a page and as a table.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli/commands/commands.h"
#include "cli/commands/flags.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/log.h"
#include "hub/file_io.h"
#include "report/comparison.h"
#include "report/html/page.h"
#include "report/run_record.h"
#include "report/text_table.h"

namespace llmfp8 {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxRunsDepth = 3;  // DIR/project/day/run

// Two runs of one name could not be told apart on the page: they get their folder's path instead.
void make_names_unique(std::vector<RunRecord>& runs) {
  std::vector<std::string> names;
  for (const RunRecord& run : runs) names.push_back(run.name);
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (std::count(names.begin(), names.end(), names[i]) > 1) runs[i].name = runs[i].folder.string();
  }
}

// The folders below `dir` that look like a run's, and dir itself. What lies in a run's folder belongs to the run.
void find_runs(const fs::path& dir, int depth, std::vector<fs::path>& found) {
  if (is_run_folder(dir)) {
    found.push_back(dir);
    return;
  }
  if (depth == 0) return;
  std::error_code error;
  for (fs::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    if (it->is_directory(ignored) && !it->path().filename().string().starts_with('.'))
      find_runs(it->path(), depth - 1, found);
  }
}

std::string decimal(double value, int digits) {
  return std::isfinite(value) ? fmt::format("{:.{}f}", value, digits) : "-";
}

std::string local_time(double seconds) {
  if (!(seconds > 0 && seconds < 1e11)) return "-";
  const auto time = static_cast<std::time_t>(seconds);
  std::tm local{};
  localtime_r(&time, &local);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%d %H:%M", &local);
  return text;
}

nlohmann::ordered_json run_json(const RunRecord& run) {
  const auto number = [](double value) {
    return std::isfinite(value) ? nlohmann::ordered_json(value) : nlohmann::ordered_json(nullptr);
  };
  return {{"name", run.name},
          {"folder", run.folder.string()},
          {"state", run.state},
          {"model", run.model},
          {"precision", run.precision},
          {"device", run.device},
          {"steps_done", run.steps_done},
          {"steps_total", run.steps_total},
          {"loss", number(run.last("loss"))},
          {"eval_loss", number(run.last("eval_loss"))},
          {"tokens_per_second", number(run.tokens_per_second)},
          {"memory_bytes", number(run.memory_bytes)},
          {"started", number(run.started)}};
}

void print_table(const std::vector<RunRecord>& runs) {
  TextTable table({{"run"},
                   {"state"},
                   {"model"},
                   {"precision"},
                   {"steps", Align::right},
                   {"loss", Align::right},
                   {"eval loss", Align::right},
                   {"tokens/s", Align::right},
                   {"started"}});
  for (const RunRecord& run : runs) {
    const std::string total = run.steps_total > 0 ? fmt::format("/{}", run.steps_total) : "";
    table.add_row({run.name, run.state, run.model, run.precision, fmt::format("{}{}", run.steps_done, total),
                   decimal(run.last("loss"), 4), decimal(run.last("eval_loss"), 4), decimal(run.tokens_per_second, 0),
                   local_time(run.started)});
  }
  fmt::print("{}", table.text(style_of_stdout()));
}

}  // namespace

int run_report(CommandArgs args) {
  std::vector<std::string> folders;
  std::string out, title, baseline;
  FlagSet flags("report", "one HTML page of a run, or of several side by side; it needs no network", "RUN… [flags]");
  flags.positionals("RUN", &folders, "the --output_dir of a run; several are compared", Presence::required);
  flags.text("baseline", "NAME", &baseline,
             "the run that the others are compared with; without it the first in bf16, else the first");
  flags.text("out", "FILE", &out, "the page; without it RUN/report.html, for several runs ./report.html");
  flags.text("title", "TEXT", &title, "title of the page; without it the names of the runs");
  if (!flags.parse(args)) return 0;
  const PlotLibrary library = plot_library();
  CHECK(library.missing.empty(), "report: {}", library.missing);

  std::vector<RunRecord> runs;
  for (const std::string& folder : folders) {
    runs.push_back(read_run(folder));
    for (const std::string& what : runs.back().left_out) log::warning("{}: {}", folder, what);
  }
  make_names_unique(runs);
  PageOptions options;
  options.title = title;
  options.baseline = baseline_of(runs, baseline);
  options.made = unix_seconds();
  options.version = LLMFP8_VERSION;
  const fs::path file = !out.empty()       ? fs::path(out)
                        : runs.size() == 1 ? fs::path(folders[0]) / "report.html"
                                           : "report.html";
  write_file_atomically(file, report_page(runs, options, library));
  fmt::print("{}\n", file.string());
  return 0;
}

int run_runs(CommandArgs args) {
  std::vector<std::string> folders;
  bool json = false;
  FlagSet flags("runs", "the runs in a folder, the latest last", "[DIR] [flags]");
  flags.positionals("DIR", &folders, "where to look, three folders deep; without it the current folder",
                    Presence::optional);
  flags.on_off("json", &json, "one JSON list");
  if (!flags.parse(args)) return 0;
  if (folders.empty()) folders.emplace_back(".");
  std::vector<fs::path> found;
  for (const std::string& folder : folders) {
    std::error_code ignored;
    CHECK(fs::is_directory(folder, ignored), "{}: no such folder", folder);
    find_runs(folder, kMaxRunsDepth, found);
  }
  std::sort(found.begin(), found.end());
  std::vector<RunRecord> runs;
  for (const fs::path& folder : found) {
    try {
      runs.push_back(read_run(folder));
    } catch (const Error& error) {
      log::warning("{}", one_line(error.what()));
    }
  }
  // Runs whose start is not known come first.
  const auto start = [](const RunRecord& run) { return std::isfinite(run.started) ? run.started : 0.0; };
  std::stable_sort(runs.begin(), runs.end(),
                   [&](const RunRecord& a, const RunRecord& b) { return start(a) < start(b); });
  if (json) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const RunRecord& run : runs) list.push_back(run_json(run));
    fmt::print("{}\n", list.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
  } else if (runs.empty()) {
    log::info("no run in {} (a run's folder is its --output_dir)", folders[0]);
  } else {
    print_table(runs);
  }
  return 0;
}

}  // namespace llmfp8
