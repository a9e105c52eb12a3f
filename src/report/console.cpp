#include "report/console.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string_view>

#include <fmt/format.h>

#include "core/clock.h"

namespace llmfp8 {
namespace {

constexpr double kBarSeconds = 0.1;
constexpr double kLineSeconds = 10.0;
constexpr int kWidestBar = 30;
constexpr int kNarrowestBar = 6;
constexpr const char* kClearLine = "\r\x1b[K";

// A path or a model's text could otherwise move the cursor.
std::string without_control_characters(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return (c < 0x20 && c != '\n') || c == 0x7F; }, '?');
  return text;
}

std::string memory_text(double bytes) {
  return bytes < 1e9 ? fmt::format("{:.0f} MB", bytes / 1e6) : fmt::format("{:.1f} GB", bytes / 1e9);
}

std::string number_text(double value, int decimals) {
  return decimals < 0 ? fmt::format("{:.3g}", value) : fmt::format("{:.{}f}", value, decimals);
}

}  // namespace

bool is_a_terminal(std::FILE* file) {
  const char* term = std::getenv("TERM");
  return isatty(fileno(file)) == 1 && !(term != nullptr && std::string_view(term) == "dumb");
}

int terminal_width(std::FILE* file) {
  if (const char* columns = std::getenv("COLUMNS")) {
    const int width = std::atoi(columns);
    if (width > 0) return width;
  }
  winsize size{};
  if (ioctl(fileno(file), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

std::string duration_text(double seconds) {
  constexpr double kLongest = 1000.0 * 86400.0;  // beyond, the number means nothing
  if (!(seconds >= 0.0) || seconds > kLongest) return "?";
  const auto s = static_cast<std::int64_t>(seconds + 0.5);
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}m {:02}s", s / 60, s % 60);
  if (s < 86400) return fmt::format("{}h {:02}m", s / 3600, s / 60 % 60);
  return fmt::format("{}d {:02}h", s / 86400, s / 3600 % 24);
}

std::string progress_text(const Progress& progress, double seconds_left, int width) {
  const double share =
      progress.total_steps > 0
          ? std::clamp(work_done(progress) / static_cast<double>(progress.total_steps), 0.0, 1.0)
          : 0.0;
  const std::size_t step_width = std::to_string(progress.total_steps).size();  // parts must not jump while steps go by
  std::string head = progress.total_steps > 0 ? fmt::format("{} {:>{}}/{} {:3.0f}%", progress.what, progress.step,
                                                            step_width, progress.total_steps, std::floor(100.0 * share))
                                              : fmt::format("{} {}", progress.what, progress.step);
  // The most telling parts come first: a narrow terminal loses the others.
  std::vector<std::string> parts;
  if (!std::isnan(progress.loss)) parts.push_back(fmt::format("loss {:.4f}", progress.loss));
  if (!std::isnan(seconds_left)) parts.push_back("ETA " + duration_text(seconds_left));
  if (!std::isnan(progress.tokens_per_second))
    parts.push_back(fmt::format("{:.0f} tokens/s", progress.tokens_per_second));
  if (!std::isnan(progress.useful_share)) parts.push_back(fmt::format("{:.0f}% useful", 100.0 * progress.useful_share));
  if (!std::isnan(progress.memory_bytes)) parts.push_back(memory_text(progress.memory_bytes));
  if (width == 0) {
    for (const std::string& part : parts) head += "  " + part;
    return head;
  }
  const auto room = static_cast<std::size_t>(std::max(width, 1));
  std::string tail;
  for (const std::string& part : parts) {
    if (head.size() + tail.size() + 2 + part.size() > room) break;
    tail += "  " + part;
  }
  const int free = width - static_cast<int>(head.size() + tail.size()) - 3;  // the brackets and a blank
  if (progress.total_steps > 0 && free >= kNarrowestBar) {
    const int cells = std::min(free, kWidestBar);
    const int full = static_cast<int>(share * cells);
    head += " [" + std::string(static_cast<std::size_t>(full), '#') +
            std::string(static_cast<std::size_t>(cells - full), '.') + "]";
  }
  return (head + tail).substr(0, room);
}

Console::Console(ConsoleOptions options) : options_(std::move(options)) {
  is_terminal_ = options_.is_terminal.value_or(is_a_terminal(options_.file));
  if (!options_.clock) options_.clock = now_seconds;
}

Console::~Console() { finish(); }

void Console::update(const Progress& progress) {
  if (options_.is_quiet) return;
  const std::lock_guard lock(mutex_);
  const double now = options_.clock();
  const bool is_new = progress.what != what_ || work_done(progress) < start_work_;
  if (is_new) {
    what_ = progress.what;
    start_time_ = now;
    start_work_ = work_done(progress);
  }
  const bool is_last = progress.total_steps > 0 && progress.step >= progress.total_steps;
  const double interval = is_terminal_ ? kBarSeconds : kLineSeconds;
  if (!is_new && !is_last && now - last_draw_ < interval) {
    if (shown_) shown_ = progress;  // what line() and finish() draw again
    return;
  }
  draw(progress, now);
  last_draw_ = now;
}

void Console::draw(const Progress& progress, double now) {
  double seconds_left = std::numeric_limits<double>::quiet_NaN();
  if (const double done = work_done(progress); progress.total_steps > 0 && done > start_work_) {
    const double per_step = (now - start_time_) / (done - start_work_);
    seconds_left = per_step * std::max(static_cast<double>(progress.total_steps) - done, 0.0);
  }
  if (!is_terminal_) {
    std::fprintf(options_.file, "%s\n", progress_text(progress, seconds_left, 0).c_str());
    std::fflush(options_.file);
    return;
  }
  // One column stays free (a full line would wrap), and the cursor goes back to the first column, so that a line which
  // another part of the program writes begins there.
  const int width = std::max(options_.width.value_or(terminal_width(options_.file)) - 1, 1);
  std::fprintf(options_.file, "%s%s\r", kClearLine, progress_text(progress, seconds_left, width).c_str());
  std::fflush(options_.file);
  shown_ = progress;
}

void Console::clear_bar() {
  if (shown_) std::fputs(kClearLine, options_.file);
}

void Console::line(const std::string& text) {
  if (options_.is_quiet) return;
  const std::lock_guard lock(mutex_);
  clear_bar();
  std::fprintf(options_.file, "%s\n", without_control_characters(text).c_str());
  if (shown_) draw(*shown_, options_.clock());
  std::fflush(options_.file);
}

void Console::print(const std::string& text) {
  const std::lock_guard lock(mutex_);
  clear_bar();
  std::fprintf(options_.file, "%s\n", text.c_str());
  if (shown_) draw(*shown_, options_.clock());
  std::fflush(options_.file);
}

void Console::finish() {
  const std::lock_guard lock(mutex_);
  if (!shown_) return;
  draw(*shown_, options_.clock());
  shown_.reset();
  what_.clear();
  std::fputs("\n", options_.file);
  std::fflush(options_.file);
}

ConsoleSink::ConsoleSink(Console& console, const MetricNames& names)
    : console_(console),
      shown_{{names.loss, "loss ", "", 4},
             {names.learning_rate, "lr ", "", -1},
             {names.grad_norm, "grad norm ", "", 4},
             {names.tokens_per_second, "", " tokens/s", 0},
             {names.eval_loss, "evaluation loss ", "", 4},
             {names.eval_perplexity, "perplexity ", "", 2},
             {names.eval_tokens, "", " tokens", 0}} {}

void ConsoleSink::log(const MetricRecord& record) {
  std::string text;
  for (const Shown& shown : shown_) {
    const auto value = std::find_if(record.values.begin(), record.values.end(),
                                    [&](const auto& entry) { return entry.first == shown.name; });
    if (value == record.values.end()) continue;
    text += fmt::format("{}{}{}{}", text.empty() ? "" : ", ", shown.before, number_text(value->second, shown.decimals),
                        shown.after);
  }
  if (!text.empty()) console_.line(fmt::format("step {}: {}", record.step, text));
}

}  // namespace llmfp8
