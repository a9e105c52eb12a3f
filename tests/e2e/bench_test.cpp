// llm-fp8 bench: what it prints, and what it refuses.
#include <gtest/gtest.h>

#include "e2e/workshop.h"

namespace llmfp8::testing {
namespace {

Args bench(const Workshop& shop, const Args& more) {
  Args args = {"bench", "--model", shop.path("model").string(), "--device", "cpu", "--batch_size", "2", "--seq", "24", "--steps", "1"};
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

TEST(Bench, SaysHowFastAndWhereTheTimeGoes) {
  Workshop shop;
  shop.model("llama_tied");
  const Finished run = run_program("llm-fp8", bench(shop, {"--json", "--accumulation", "2", "--profile", shop.path("trace.json").string()}));
  ASSERT_EQ(run.code, 0) << run.err;
  const nlohmann::json result = nlohmann::json::parse(run.out);
  EXPECT_GT(result.at("tokens_per_second").get<double>(), 0.0);
  EXPECT_EQ(result.at("tokens_a_step").get<double>(), 2 * 2 * 24);
  EXPECT_GT(result.at("fp8_gemm_share").get<double>(), 0.0);
  EXPECT_LT(result.at("fp8_gemm_share").get<double>(), 1.0);  // the head stays in bf16
  double split = 0.0, spent = 0.0;
  for (const auto& [kind, ms] : result.at("split_ms").items()) {
    split += ms.get<double>();
    EXPECT_TRUE(result.at("budget_ms").contains(kind)) << kind;
  }
  for (const auto& [name, op] : result.at("operations").items()) spent += op.at("ms").get<double>();
  for (const auto& product : result.at("products")) spent += product.at("calls").get<double>() * product.at("in_step_ms").get<double>();
  // Every operation lies in one part of the split; what is left of it is idle time.
  EXPECT_NEAR(split - result.at("split_ms").at("idle").get<double>(), spent, 1e-6 * spent + 1e-9);
  const nlohmann::json trace = nlohmann::json::parse(read_bytes(shop.path("trace.json")));
  EXPECT_GT(trace.at("traceEvents").size(), 50u);
}

TEST(Bench, TakesRealLengthsAndPacksThem) {
  Workshop shop;
  shop.model("qwen2");
  write_bytes(shop.path("lengths.json"), "[5, 9, 30, 12, 7]");
  const Args lengths = {"--json", "--recipe", "none", "--lengths", shop.path("lengths.json").string(), "--steps", "2"};
  const Finished rows = run_program("llm-fp8", bench(shop, lengths));
  ASSERT_EQ(rows.code, 0) << rows.err;
  Args packing = lengths;
  packing.push_back("--packing");
  const Finished packed = run_program("llm-fp8", bench(shop, packing));
  ASSERT_EQ(packed.code, 0) << packed.err;
  EXPECT_EQ(nlohmann::json::parse(rows.out).at("fp8_gemm_share"), 0.0);
}

TEST(Bench, MeasuresWhatLoggingAndACheckpointCost) {
  Workshop shop;
  shop.model("llama_tied");
  std::filesystem::create_directory(shop.path("scratch"));
  const Finished run = run_program("llm-fp8", bench(shop, {"--json", "--steps", "16", "--run_costs", shop.path("scratch").string()}));
  ASSERT_EQ(run.code, 0) << run.err;
  const nlohmann::json costs = nlohmann::json::parse(run.out).at("run_costs");
  EXPECT_EQ(costs.at("logged_steps"), 16);
  EXPECT_GT(costs.at("log_ms").get<double>(), 0.0);
  EXPECT_LT(costs.at("log_ms").get<double>(), costs.at("logged_step_ms").get<double>());
  EXPECT_GT(costs.at("checkpoint_bytes").get<double>(), 1e5);
  EXPECT_TRUE(costs.at("is_beside_training").get<bool>());
  EXPECT_GE(costs.at("steps_beside").get<int>(), 1);
  EXPECT_GT(costs.at("write_seconds").get<double>(), 0.0);
  EXPECT_TRUE(std::filesystem::is_empty(shop.path("scratch")));
}

TEST(Bench, RefusesInOneLine) {
  Workshop shop;
  shop.model("llama_tied");
  write_bytes(shop.path("lengths.json"), "[5, \"six\"]");
  struct Refusal {
    Args args;
    int code;
    std::string says;
  };
  const std::vector<Refusal> refusals = {
      {{"bench", "--model", "llama-9"}, 2, "llama-3.2-1b"},
      {bench(shop, {"--recipe", "fp4"}), 2, "--recipe"},
      {bench(shop, {"--recipe", "none", "--fp8_lm_head"}), 2, "--fp8_lm_head"},
      {bench(shop, {"--lengths", shop.path("lengths.json").string()}), 1, "\"six\""},
      {bench(shop, {"--lengths", shop.path("absent.json").string()}), 1, "absent.json"},
      {bench(shop, {"--batch_size", "0"}), 2, "--batch_size"},
      {bench(shop, {"--run_costs", shop.path("absent").string()}), 1, "--run_costs"},
  };
  for (const Refusal& refusal : refusals) {
    const Finished run = run_program("llm-fp8", refusal.args);
    EXPECT_EQ(run.code, refusal.code) << run.err;
    EXPECT_EQ(run.errors().size(), 1u) << run.err;
    EXPECT_TRUE(run.says(refusal.says)) << run.err;
  }
}

}  // namespace
}  // namespace llmfp8::testing
