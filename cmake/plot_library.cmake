# Finds the plotting library that `llm-fp8 report` writes into its pages: dygraphs, from Debian's libjs-dygraphs. Sets
# LLMFP8_DYGRAPHS_JS, _CSS and _LICENSE where it is found; without it the command says what is missing.
find_file(LLMFP8_DYGRAPHS_JS dygraph.min.js PATHS /usr/share/javascript/dygraphs NO_DEFAULT_PATH)
find_file(LLMFP8_DYGRAPHS_CSS dygraph.min.css PATHS /usr/share/javascript/dygraphs NO_DEFAULT_PATH)
# Its licence must go with every page.
find_file(LLMFP8_DYGRAPHS_LICENSE copyright PATHS /usr/share/doc/libjs-dygraphs NO_DEFAULT_PATH)
if(LLMFP8_DYGRAPHS_JS AND LLMFP8_DYGRAPHS_CSS AND LLMFP8_DYGRAPHS_LICENSE)
  set(LLMFP8_WITH_PLOTS ON)
else()
  set(LLMFP8_WITH_PLOTS OFF)
  message(STATUS "llm-fp8 report: no plotting library (Debian package libjs-dygraphs)")
endif()
