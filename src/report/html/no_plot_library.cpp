// The plotting library of a build that found none.
#include "report/html/plot_library.h"

namespace llmfp8 {

PlotLibrary plot_library() {
  return {.script = {},
          .style = {},
          .license = {},
          .missing = "this build has no plotting library: install the Debian package libjs-dygraphs and build again"};
}

}  // namespace llmfp8
