// The table of operation cases on the CPU backend.
#include <algorithm>
#include <memory>

#include <gtest/gtest.h>

#include "backend/registry.h"
#include "op_cases.h"

namespace llmfp8::testing {
namespace {

class CpuOpCase : public ::testing::TestWithParam<OpCase> {};

TEST_P(CpuOpCase, MatchesReference) {
  const std::unique_ptr<Backend> backend = create_cpu_backend();
  GetParam().run(*backend);
}

INSTANTIATE_TEST_SUITE_P(Table, CpuOpCase, ::testing::ValuesIn(op_cases()), [](const auto& one) {
  std::string name = one.param.name;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
});

}  // namespace
}  // namespace llmfp8::testing
