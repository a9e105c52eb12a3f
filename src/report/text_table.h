// Small text tables (recipe, memory, supported models) and wrapping of text. Called by whoever prints one, and by --help.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace llmfp8 {

enum class Align { left, right };
enum class TableStyle { plain, lines };  // lines: light box characters

// lines when standard output is a terminal, else plain.
TableStyle style_of_stdout();

class TextTable {
 public:
  struct Column {
    std::string title;
    Align align = Align::left;
  };

  explicit TextTable(std::vector<Column> columns) : columns_(std::move(columns)) {}

  void add_row(std::vector<std::string> cells);  // as many as columns
  void add_rule();                               // a line between rows (before a total, say)
  std::string text(
      TableStyle style) const;  // ends with a newline; a line break or control character in a cell prints as '?'

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;  // an empty row is a rule
};

// Control characters as '?', so that a user's value cannot break a line or move a terminal's cursor.
std::string one_line(std::string text);

// Code points of UTF-8 text: what it takes on a terminal, for text without wide or combining characters.
std::size_t display_width(std::string_view text);

// Breaks at blanks; a word longer than width stands on its own line. At least one line.
std::vector<std::string> wrap_text(std::string_view text, std::size_t width);

}  // namespace llmfp8
