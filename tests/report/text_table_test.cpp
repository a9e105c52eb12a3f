#include "report/text_table.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace llmfp8 {
namespace {

TextTable example() {
  TextTable table({{"site"}, {"format"}, {"share", Align::right}});
  table.add_row({"qkv", "E4M3 → bf16", "12 %"});
  table.add_row({"lm_head", "bf16", "8 %"});
  table.add_rule();
  table.add_row({"all", "", "100 %"});
  return table;
}

TEST(TextTable, Plain) {
  EXPECT_EQ(example().text(TableStyle::plain),
            "site     format       share\n"
            "-------  -----------  -----\n"
            "qkv      E4M3 → bf16   12 %\n"
            "lm_head  bf16           8 %\n"
            "-------  -----------  -----\n"
            "all                   100 %\n");
}

TEST(TextTable, Lines) {
  EXPECT_EQ(example().text(TableStyle::lines),
            "┌─────────┬─────────────┬───────┐\n"
            "│ site    │ format      │ share │\n"
            "├─────────┼─────────────┼───────┤\n"
            "│ qkv     │ E4M3 → bf16 │  12 % │\n"
            "│ lm_head │ bf16        │   8 % │\n"
            "├─────────┼─────────────┼───────┤\n"
            "│ all     │             │ 100 % │\n"
            "└─────────┴─────────────┴───────┘\n");
}

TEST(TextTable, RefusesAWrongNumberOfCellsAndMasksControlCharacters) {
  TextTable table({{"a"}, {"b"}});
  EXPECT_THROW(table.add_row({"1"}), Error);
  EXPECT_THROW(table.add_row({}), Error);
  table.add_row({"x\ny", "\x1b[31m"});
  EXPECT_EQ(table.text(TableStyle::plain), "a    b\n---  -----\nx?y  ?[31m\n");
}

TEST(WrapText, BreaksAtBlanks) {
  EXPECT_EQ(wrap_text("one two  three", 7), (std::vector<std::string>{"one two", "three"}));
  EXPECT_EQ(wrap_text("muchtoolong a", 4), (std::vector<std::string>{"muchtoolong", "a"}));
  EXPECT_EQ(wrap_text("", 4), std::vector<std::string>{""});
  EXPECT_EQ(wrap_text("→ → →", 3), (std::vector<std::string>{"→ →", "→"}));
}

}  // namespace
}  // namespace llmfp8
