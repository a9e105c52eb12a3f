// What `llm-fp8 data` shows of a data set, ready to be read: as text for a terminal, or as one HTML page.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "report/marked_text.h"

namespace llmfp8 {

struct DatasetView {
  struct Figure {
    std::string what, value;
  };
  // Rows of a length between two, in tokens.
  struct Bar {
    std::int64_t from = 0, to = 0;
    std::int64_t rows = 0, cut_rows = 0;  // cut_rows: of them, cut at max_seq_length
  };
  struct Example {
    std::int64_t row = 0;
    std::string remark;              // "37 tokens, 12 of them learnt", or why the row is left out
    std::vector<ShownToken> tokens;  // texts already visible; none where the row is left out
  };
  std::string title, subtitle;
  std::vector<Figure> figures;
  std::vector<Bar> bars;
  std::int64_t max_seq_length = 0;
  std::vector<Example> examples;
};

struct DatasetTextOptions {
  int width = 80;  // columns, at least 40 are taken
  Marks marks = Marks::quotes;
};
// Ends with a newline.
std::string dataset_text(const DatasetView& view, const DatasetTextOptions& options);

struct DatasetPageOptions {
  double made = 0;  // seconds since 1970
  std::string version;
};
// A whole document that needs no network and no script.
std::string dataset_page(const DatasetView& view, const DatasetPageOptions& options);

}  // namespace llmfp8
