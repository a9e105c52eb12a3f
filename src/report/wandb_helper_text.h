// tools/wandb_helper.py, put into the program by CMake (src/report/CMakeLists.txt). Read by wandb_sink.cpp.
#pragma once

#include <string_view>

namespace llmfp8 {

extern const std::string_view kWandbHelperText;

}  // namespace llmfp8
