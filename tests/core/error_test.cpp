// What a user sees of an error, and which exit code its kind means.
#include "core/error.h"

#include <gtest/gtest.h>

namespace llmfp8 {
namespace {

template <typename Body>
Error caught(Body body) {
  try {
    body();
  } catch (const Error& error) {
    return error;
  }
  return Error("nothing was thrown");
}

TEST(Error, CarriesItsTextAndKind) {
  const Error run = caught([] { fail("{}: {} tensors, {} wanted", "model.safetensors", 3, 4); });
  EXPECT_STREQ(run.what(), "model.safetensors: 3 tensors, 4 wanted");
  EXPECT_EQ(run.kind(), ErrorKind::run);
  const Error usage = caught([] { fail_usage("--batch_size {}: at least 1 is wanted", 0); });
  EXPECT_STREQ(usage.what(), "--batch_size 0: at least 1 is wanted");
  EXPECT_EQ(usage.kind(), ErrorKind::usage);
}

TEST(Check, ThrowsWithValuesAndOnlyThen) {
  const int rows = 3;
  EXPECT_NO_THROW(CHECK(rows == 3, "rows {}", rows));
  EXPECT_STREQ(caught([&] { CHECK(rows == 4, "rows {}, 4 wanted", rows); }).what(), "rows 3, 4 wanted");
}

TEST(Check, IsOneStatement) {
  bool other = false;
  if (false)
    CHECK(false, "not reached");
  else
    other = true;
  EXPECT_TRUE(other);
}

}  // namespace
}  // namespace llmfp8
