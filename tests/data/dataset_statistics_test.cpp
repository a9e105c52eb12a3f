// Bars of lengths, and rows as a reader sees them.
#include <gtest/gtest.h>

#include "data/dataset_statistics.h"
#include "data/row_tokens.h"

namespace llmfp8 {
namespace {

DatasetStatistics of_lengths(const std::map<std::int64_t, std::int64_t>& rows_by_length) {
  DatasetStatistics statistics;
  statistics.rows_by_length = rows_by_length;
  for (const auto& [length, rows] : rows_by_length) statistics.rows_by_fault[0] += rows;
  return statistics;
}

TEST(DatasetStatistics, QuantilesAreThoseOfTheSortedLengths) {
  const LengthQuantiles q = of_lengths({{1, 50}, {7, 49}, {9000, 1}}).length_quantiles();
  EXPECT_EQ(q.min, 1);
  EXPECT_EQ(q.median, 1);
  EXPECT_EQ(q.p90, 7);
  EXPECT_EQ(q.p99, 7);
  EXPECT_EQ(q.max, 9000);
  EXPECT_EQ(DatasetStatistics().length_quantiles().max, 0);
}

TEST(DatasetStatistics, BarsHoldEveryRowOnce) {
  using Lengths = std::map<std::int64_t, std::int64_t>;
  for (const Lengths& lengths :
       {Lengths{{5, 3}}, {{1, 50}, {7, 49}, {9000, 1}}, {{100, 1}, {1000000, 1}}, {{3, 2}, {64, 5}, {65, 7}, {199, 1}}}) {
    const DatasetStatistics statistics = of_lengths(lengths);
    const std::vector<LengthBar> bars = length_bars(statistics, 64, 20);
    ASSERT_FALSE(bars.empty());
    EXPECT_LE(bars.size(), 21u);
    std::int64_t rows = 0, cut = 0, longer = 0;
    for (std::size_t i = 0; i < bars.size(); ++i) {
      EXPECT_LE(bars[i].from, bars[i].to);
      if (i > 0) {
        EXPECT_EQ(bars[i].from, bars[i - 1].to + 1);
      }
      std::int64_t within = 0;
      for (const auto& [length, count] : lengths) within += length >= bars[i].from && length <= bars[i].to ? count : 0;
      EXPECT_EQ(bars[i].rows, within);
      rows += bars[i].rows;
      cut += bars[i].cut_rows;
    }
    for (const auto& [length, count] : lengths) longer += length > 64 ? count : 0;
    EXPECT_EQ(rows, statistics.usable());
    EXPECT_EQ(cut, longer);
  }
  EXPECT_TRUE(length_bars(DatasetStatistics(), 64, 20).empty());
}

TEST(VisibleText, NothingMovesACursorOrHides) {
  EXPECT_EQ(visible_text("a\tb\nc", LineFeeds::marked), "a␉b↵\nc");
  EXPECT_EQ(visible_text(std::string("\x1b[31m\0\x7f", 7), LineFeeds::marked), "␛[31m␀␡");
  EXPECT_EQ(visible_text("\xE2\x80\xAE\xC2\x9B\xEF\xBB\xBF", LineFeeds::marked), "‹U+202E›‹U+009B›‹U+FEFF›");
  EXPECT_EQ(visible_text("b\n\r", LineFeeds::plain), "b\n␍");
  EXPECT_EQ(visible_text("é中😀", LineFeeds::marked), "é中😀");
  EXPECT_EQ(visible_text("a\xFF", LineFeeds::marked), "a\xEF\xBF\xBD");
}

TEST(MarkedText, MarksWhatIsNotLearntAndEndsWithinACharacterNever) {
  const std::vector<ShownToken> tokens = {{"ab", {1}, false, false}, {"é", {2, 3}, false, false}, {"cd", {4}, true, false}, {"e", {5}, false, true}};
  EXPECT_EQ(marked_text(tokens, Marks::quotes, 100), "«abé»cd«e»");
  EXPECT_EQ(marked_text(tokens, Marks::grey, 100), "\x1b[90mabé\x1b[0mcd\x1b[90me\x1b[0m");
  EXPECT_EQ(marked_text(tokens, Marks::quotes, 3), "«ab…»");
  EXPECT_EQ(marked_text(tokens, Marks::quotes, 5), "«abé»c…");
  EXPECT_EQ(marked_text(tokens, Marks::quotes, 6), "«abé»cd…");
  EXPECT_EQ(marked_text({}, Marks::quotes, 6), "");
}

}  // namespace
}  // namespace llmfp8
