// The report of one or several runs as one HTML page that needs nothing else: style, scripts, the plotting library and the
// data are in it. Called by `llm-fp8 report`.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include <nlohmann/json.hpp>

#include "report/html/plot_library.h"
#include "report/run_record.h"

namespace llmfp8 {

struct PageOptions {
  std::string title;         // empty: made of the runs' names
  std::size_t baseline = 0;  // index of the run that the others are compared with
  double made = kUnknown;    // when; seconds since 1970
  std::string version;       // of this program
};

// Throws Error where there is no run, or the library is missing. At most about 2 MB, however long the runs were.
std::string report_page(std::span<const RunRecord> runs, const PageOptions& options, const PlotLibrary& library);

// The parts of the page. All text in what they return is escaped.
// What the scripts draw: {"runs": [{"name", "series": {id: {"step", "seconds", "tokens", "value"}}}], "charts": […]}.
nlohmann::ordered_json page_data(std::span<const RunRecord> runs, std::size_t baseline);
std::string verdict_html(std::span<const RunRecord> runs, std::size_t baseline);  // sentences
std::string cards_html(std::span<const RunRecord> runs, std::size_t baseline);    // a card of numbers for each run
std::string charts_html(const nlohmann::ordered_json& data);  // a figure for each chart of page_data
std::string tables_html(std::span<const RunRecord> runs);     // stability, formats, configuration, rows

}  // namespace llmfp8
