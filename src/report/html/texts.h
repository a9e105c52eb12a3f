// The texts that CMake puts into the program: the files of this folder, and the plotting library where the build found
// one (src/report/CMakeLists.txt). Read by page.cpp and dygraphs.cpp.
#pragma once

#include <string_view>

namespace llmfp8 {

extern const std::string_view kPageTemplate;  // page.html
extern const std::string_view kPageStyle;     // page.css
extern const std::string_view kPageScript;    // page.js
extern const std::string_view kChartsScript;  // charts.js
extern const std::string_view kDatasetTemplate;  // dataset_page.html
extern const std::string_view kDatasetStyle;     // dataset_page.css, after page.css

// Only where the build found them.
extern const std::string_view kDygraphsScript, kDygraphsStyle, kDygraphsLicense;

}  // namespace llmfp8
