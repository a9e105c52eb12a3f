#include "report/text_table.h"

#include <unistd.h>

#include <algorithm>

#include "core/error.h"

namespace llmfp8 {
namespace {

struct Glyphs {
  std::string_view horizontal, vertical_left, vertical, vertical_right;
  std::string_view top_left, top, top_right;
  std::string_view left, cross, right;
  std::string_view bottom_left, bottom, bottom_right;
};

constexpr Glyphs kLines = {"─", "│ ", " │ ", " │", "┌─", "─┬─", "─┐", "├─", "─┼─", "─┤", "└─", "─┴─", "─┘"};
constexpr Glyphs kPlain = {"-", "", "  ", "", "", "", "", "", "  ", "", "", "", ""};

std::string repeated(std::string_view piece, std::size_t count) {
  std::string out;
  for (std::size_t i = 0; i < count; ++i) out += piece;
  return out;
}

std::string without_trailing_blanks(std::string line) {
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

}  // namespace

TableStyle style_of_stdout() { return isatty(STDOUT_FILENO) ? TableStyle::lines : TableStyle::plain; }

void TextTable::add_row(std::vector<std::string> cells) {
  CHECK(!cells.empty() && cells.size() == columns_.size(), "a table row of {} cells, {} columns", cells.size(),
        columns_.size());
  for (std::string& cell : cells) cell = one_line(std::move(cell));
  rows_.push_back(std::move(cells));
}

void TextTable::add_rule() { rows_.emplace_back(); }

std::string TextTable::text(TableStyle style) const {
  const Glyphs& g = style == TableStyle::lines ? kLines : kPlain;
  std::vector<std::size_t> widths;
  for (const Column& column : columns_) widths.push_back(display_width(column.title));
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], display_width(row[i]));
  }
  const auto rule = [&](std::string_view left, std::string_view middle, std::string_view right) {
    std::string out(left);
    for (std::size_t i = 0; i < widths.size(); ++i) {
      if (i > 0) out += middle;
      out += repeated(g.horizontal, widths[i]);
    }
    return without_trailing_blanks(out + std::string(right));
  };
  const auto cells = [&](const auto& text_of) {
    std::string out(g.vertical_left);
    for (std::size_t i = 0; i < widths.size(); ++i) {
      const std::string& cell = text_of(i);
      const std::string blanks(widths[i] - display_width(cell), ' ');
      if (i > 0) out += g.vertical;
      out += columns_[i].align == Align::right ? blanks + cell : cell + blanks;
    }
    return without_trailing_blanks(out + std::string(g.vertical_right));
  };
  std::string out;
  if (style == TableStyle::lines) out += rule(g.top_left, g.top, g.top_right);
  out += cells([&](std::size_t i) -> const std::string& { return columns_[i].title; });
  out += rule(g.left, g.cross, g.right);
  for (const auto& row : rows_) {
    out += row.empty() ? rule(g.left, g.cross, g.right)
                       : cells([&](std::size_t i) -> const std::string& { return row[i]; });
  }
  if (style == TableStyle::lines) out += rule(g.bottom_left, g.bottom, g.bottom_right);
  return out;
}

std::string one_line(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7F; }, '?');
  return text;
}

std::size_t display_width(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::vector<std::string> wrap_text(std::string_view text, std::size_t width) {
  std::vector<std::string> lines(1);
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (word.empty()) continue;
    if (!lines.back().empty() && display_width(lines.back()) + 1 + display_width(word) > width) lines.emplace_back();
    if (!lines.back().empty()) lines.back() += ' ';
    lines.back() += word;
  }
  return lines;
}

}  // namespace llmfp8
