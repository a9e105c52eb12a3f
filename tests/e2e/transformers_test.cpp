// A saved model is one that HF transformers loads, with the same logits as ours. Skipped where transformers is not installed:
// Python is test_python().
#include <cmath>
#include <cstdlib>

#include <gtest/gtest.h>

#include "e2e/workshop.h"
#include "support/safetensors_lite.h"

namespace llmfp8::testing {
namespace {

namespace fs = std::filesystem;

constexpr float kTolerance = 1e-5f;  // fp32 logits of these models; see tests/golden

std::string quoted(const fs::path& path) { return "'" + path.string() + "'"; }

TEST(Transformers, LoadsWhatIsSavedWithTheSameLogits) {
  if (const std::string why = why_python_lacks("torch, transformers, safetensors"); !why.empty()) GTEST_SKIP() << why;
  for (const char* golden : {"llama_tied", "llama_untied", "qwen2"}) {
    SCOPED_TRACE(golden);
    Workshop shop;
    shop.model(golden);
    const Finished run = run_program("train_fp8", shop.args({"--mixed_precision", "fp8", "--learning_rate", "1e-3"}));
    ASSERT_EQ(run.code, 0) << run.err;

    const fs::path batch = golden_dir() / "models" / golden / "batch.safetensors";
    const fs::path ours = shop.path("ours.safetensors"), theirs = shop.path("theirs.safetensors");
    const Finished parity = run_program("llm-fp8", {"parity", "--model", shop.output().string(), "--batch",
                                                    batch.string(), "--out", ours.string(), "--dtype", "fp32"});
    ASSERT_EQ(parity.code, 0) << parity.err;
    const std::string command = test_python() + " " + quoted(source_dir() / "tests/e2e/transformers_logits.py") + " " +
                                quoted(shop.output()) + " " + quoted(batch) + " " + quoted(theirs) + " >" +
                                quoted(shop.path("log")) + " 2>&1";
    ASSERT_EQ(std::system(command.c_str()), 0) << read_bytes(shop.path("log"));

    const SafetensorsLite a(ours), b(theirs), given(batch);
    const std::vector<float> x = a.read<float>("logits"), y = b.read<float>("logits");
    const std::vector<std::int64_t> mask = given.read<std::int64_t>("attention_mask");
    ASSERT_EQ(x.size(), y.size());
    const std::size_t vocab = x.size() / mask.size();
    float largest = 0.0f;
    std::size_t compared = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (mask[i / vocab] == 0) continue;
      largest = std::max(largest, std::isfinite(x[i]) ? std::abs(x[i] - y[i]) : INFINITY);
      ++compared;
    }
    EXPECT_GT(compared, 1000u);
    EXPECT_LE(largest, kTolerance);
    std::printf("%s: largest difference of %zu logits %.2e\n", golden, compared, static_cast<double>(largest));
  }
}

}  // namespace
}  // namespace llmfp8::testing
