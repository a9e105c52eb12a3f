// What `llm-fp8 data` prints.
#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "report/dataset_view.h"
#include "report/text_table.h"

namespace llmfp8 {
namespace {

std::string repeated(std::string_view glyph, std::int64_t count) {
  std::string out;
  for (std::int64_t i = 0; i < count; ++i) out += glyph;
  return out;
}

std::string span_of(const DatasetView::Bar& bar) {
  return bar.from == bar.to ? std::to_string(bar.from) : fmt::format("{}–{}", bar.from, bar.to);
}

std::string figures_text(const DatasetView& view, std::size_t width) {
  std::size_t left = 0;
  for (const auto& figure : view.figures) left = std::max(left, display_width(figure.what));
  std::string out;
  for (const auto& figure : view.figures) {
    std::string before = figure.what + std::string(left - display_width(figure.what) + 2, ' ');
    for (const std::string& line : wrap_text(one_line(figure.value), width - std::min(width - 20, left + 2))) {
      out += before + line + "\n";
      before.assign(left + 2, ' ');
    }
  }
  return out;
}

std::string bars_text(const DatasetView& view, std::size_t width) {
  std::int64_t most = 1;
  std::size_t left = 0, middle = 0;
  for (const auto& bar : view.bars) {
    most = std::max(most, bar.rows);
    left = std::max(left, display_width(span_of(bar)));
    middle = std::max(middle, std::to_string(bar.rows).size());
  }
  const auto room = static_cast<std::int64_t>(std::max<std::size_t>(width, left + middle + 10) - left - middle - 3);
  // A row more or less is seen only where bars are that long; one that has rows is never empty.
  const auto columns = [&](std::int64_t rows) { return rows == 0 ? 0 : std::max<std::int64_t>(1, rows * room / most); };
  std::string out = "\nrows by length in tokens, before the cut";
  const bool any_cut = std::any_of(view.bars.begin(), view.bars.end(), [](const auto& bar) { return bar.cut_rows > 0; });
  if (any_cut) out += fmt::format(" (░: cut at {})", view.max_seq_length);
  out += "\n";
  for (const auto& bar : view.bars) {
    const std::string span = span_of(bar);
    const std::int64_t all = columns(bar.rows), cut = std::min(all, columns(bar.cut_rows));
    out += std::string(left - display_width(span), ' ') + span;
    out += fmt::format("  {:>{}}{}{}{}\n", bar.rows, middle, all > 0 ? " " : "", repeated("█", all - cut), repeated("░", cut));
  }
  return out;
}

}  // namespace

std::string dataset_text(const DatasetView& view, const DatasetTextOptions& options) {
  const auto width = static_cast<std::size_t>(std::max(40, options.width));
  std::string out = one_line(view.title) + "\n" + one_line(view.subtitle) + "\n\n" + figures_text(view, width);
  if (!view.bars.empty()) out += bars_text(view, width);
  if (!view.examples.empty())
    out += fmt::format("\nrows as the model sees them; what is not learnt {}\n", options.marks == Marks::grey ? "in grey" : "between « and »");
  for (const auto& example : view.examples) {
    out += fmt::format("\nrow {}: {}\n", example.row, one_line(example.remark));
    if (!example.tokens.empty()) out += marked_text(example.tokens, options.marks, std::numeric_limits<std::size_t>::max()) + "\n";
  }
  return out;
}

}  // namespace llmfp8
