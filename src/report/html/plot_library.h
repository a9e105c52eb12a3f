// The JavaScript library that draws the curves of a page: one implementation for each state of the build, chosen by CMake
// (dygraphs.cpp, no_plot_library.cpp).
#pragma once

#include <string_view>

namespace llmfp8 {

struct PlotLibrary {
  std::string_view script, style, license;  // empty where there is none
  std::string_view missing;                 // why there is none, and what to do; empty where there is one
};

PlotLibrary plot_library();

}  // namespace llmfp8
