# What the project takes from Debian (see docs/dependencies.md). Modules opened on first use (oneDNN, Arrow) are found
# by the folders that build them.
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
if(LLMFP8_TESTS)
  find_package(GTest REQUIRED)
endif()
