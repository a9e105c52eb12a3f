// Every flag has a rule for --resume; the rules themselves are tested in tests/e2e.
#include "train/resume_rules.h"

#include <gtest/gtest.h>

#include "cli/options.h"

namespace llmfp8::testing {
namespace {

TEST(ResumeRules, EveryFlagHasOne) {
  for (const Program program : {Program::train_fp8, Program::train_multi_gpu})
    for (const Option& option : option_table(program)) EXPECT_NE(resume_setting(option.name), nullptr) << option.name;
  EXPECT_EQ(resume_setting("no_such_flag"), nullptr);
}

TEST(ResumeRules, AReasonWhereAValueIsRefused) {
  for (const Option& option : option_table(Program::train_fp8)) {
    const ResumeSetting* setting = resume_setting(option.name);
    ASSERT_NE(setting, nullptr);
    EXPECT_EQ(setting->rule == ResumeRule::same, !setting->why.empty()) << option.name;
  }
}

}  // namespace
}  // namespace llmfp8::testing
