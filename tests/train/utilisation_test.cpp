// What utilisation is made of: the operations that tokens need, held against what the engine's products did, and the device's
// rate.
#include "train/utilisation.h"

#include <gtest/gtest.h>

#include "train/engine_support.h"

namespace llmfp8::testing {
namespace {

// The engine counts the products of tokens that exist, and of the head those of supervised tokens alone.
TEST(Utilisation, CountsWhatTheProductsOfAStepDo) {
  const std::unique_ptr<Backend> backend = create_backend("cpu");
  for (const char* model : {"llama_tied", "llama_untied", "qwen2"}) {
    SCOPED_TRACE(model);
    const std::unique_ptr<Engine> engine = golden_engine(*backend, golden_dir() / "models" / model, {}, {{128}, 2, 128});
    const ModelConfig& c = engine->config();
    const ParityBatch batch = random_batch(c, {90, 30}, 1);
    engine->ledger().clear();
    const StepResult step = engine->train_step({&batch.host, 1}, 0.0, 0.0);
    double products = 0;
    for (const GemmRecord& record : engine->ledger().records()) products += record.flops;
    const double head = 6.0 * static_cast<double>(c.vocab_size * c.hidden_size);
    const ModelFlops flops(engine->params().table());
    EXPECT_DOUBLE_EQ(flops.of(static_cast<double>(step.num_tokens), 0), products + head * static_cast<double>(step.num_tokens - step.num_supervised));
    // Pairs of two documents; 2 products of 2 operations forward, twice that backward.
    EXPECT_EQ(step.num_pairs, 90 * 91 / 2 + 30 * 31 / 2);
    EXPECT_DOUBLE_EQ(flops.of(0, static_cast<double>(step.num_pairs)),
                     12.0 * static_cast<double>(step.num_pairs * c.num_hidden_layers * c.num_attention_heads * c.head_dim));
  }
}

TEST(Utilisation, TheDevicesRateIsThatOfALargeProduct) {
  const std::unique_ptr<Backend> backend = create_backend("cpu");
  const double rate = measured_matrix_rate(*backend);
  EXPECT_GT(rate, 1e8);
  EXPECT_LT(rate, 1e15);
}

}  // namespace
}  // namespace llmfp8::testing
