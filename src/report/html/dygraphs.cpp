// The plotting library of a build that found dygraphs.
#include "report/html/plot_library.h"
#include "report/html/texts.h"

namespace llmfp8 {

PlotLibrary plot_library() {
  return {.script = kDygraphsScript, .style = kDygraphsStyle, .license = kDygraphsLicense, .missing = {}};
}

}  // namespace llmfp8
