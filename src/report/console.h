// What a user sees while a run goes on, on standard error: a progress bar on a terminal, else a plain line now and
// then. Called by the trainer through Console; ConsoleSink prints what is logged.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <limits>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "report/metric_names.h"
#include "report/metrics.h"

namespace llmfp8 {

struct Progress {
  std::int64_t step = 0;
  std::int64_t total_steps = 0;                                         // 0: not known
  double work = std::numeric_limits<double>::quiet_NaN();               // done, in steps, begun ones in part; NaN: step
  double loss = std::numeric_limits<double>::quiet_NaN();               // NaN: not shown
  double tokens_per_second = std::numeric_limits<double>::quiet_NaN();  // NaN: not shown
  std::string what = "step";                                            // "step", "evaluation" …
  double useful_share = std::numeric_limits<double>::quiet_NaN();       // 0 … 1, see MetricNames; NaN: not shown
  double memory_bytes = std::numeric_limits<double>::quiet_NaN();       // NaN: not shown
};

struct ConsoleOptions {
  std::FILE* file = stderr;
  bool is_quiet = false;
  std::optional<bool> is_terminal = {};  // default: asks the file (TERM=dumb counts as none)
  std::optional<int> width = {};         // default: COLUMNS, else the terminal, else 80; asked again at each drawing
  std::function<double()> clock = {};    // seconds; default: the steady clock
};

// What of a known total is done, in steps.
inline double work_done(const Progress& progress) {
  return std::isnan(progress.work) ? static_cast<double>(progress.step) : progress.work;
}

// TERM=dumb counts as none.
bool is_a_terminal(std::FILE* file);
// COLUMNS, else the terminal's columns, else 80.
int terminal_width(std::FILE* file);

// Thread-safe. No control character is written unless the file is a terminal.
class Console {
 public:
  explicit Console(ConsoleOptions options = {});
  ~Console();  // finish()
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  // Draws at most ten times a second on a terminal, else a line every ten seconds; the last step always. Counting
  // begins again when `what` changes.
  void update(const Progress& progress);

  // A whole line (without its last newline), above the bar. Control characters print as '?'.
  void line(const std::string& text);

  // Text of this program (log messages, tables) as it is, above the bar, quiet or not.
  void print(const std::string& text);

  // Leaves the bar as it stands, with the cursor on a fresh line. Idempotent.
  void finish();

 private:
  void draw(const Progress& progress, double now);
  void clear_bar();

  ConsoleOptions options_;
  bool is_terminal_ = false;
  std::mutex mutex_;
  std::optional<Progress> shown_;  // the bar that stands on the terminal
  std::string what_;
  double start_time_ = 0.0;  // of counting
  double start_work_ = 0;
  double last_draw_ = 0.0;
};

// One short line per record, "step 50: loss 1.2345, lr 1.41e-05, grad norm 0.8512, 5321 tokens/s": what somebody looks at
// while a run goes on. Everything else is in metrics.jsonl. The console outlives the sink.
class ConsoleSink : public MetricsSink {
 public:
  ConsoleSink(Console& console, const MetricNames& names);
  void log(const MetricRecord& record) override;
  void summary(const std::string&, double) override {}
  void text(const std::string&, const std::string&) override {}

 private:
  struct Shown {
    std::string_view name;    // as logged
    std::string_view before;  // the number
    std::string_view after;
    int decimals;             // -1: three significant digits
  };

  Console& console_;
  std::vector<Shown> shown_;  // in the order of printing
};

// "45s", "3m 20s", "2h 05m", "3d 04h".
std::string duration_text(double seconds);

// The bar, or the plain line where width is 0. seconds_left: NaN when not known. Never longer than width.
std::string progress_text(const Progress& progress, double seconds_left, int width);

}  // namespace llmfp8
