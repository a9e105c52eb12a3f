// Generation with a cache against the forward pass without one, and a batch whose places are refilled.
#include "model/generator.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>

#include "backend/registry.h"
#include "core/rng.h"

namespace llmfp8 {
namespace {

using Tokens = std::vector<std::int32_t>;

ModelConfig tiny_config(bool qwen2) {
  ModelConfig c;
  c.model_type = qwen2 ? "qwen2" : "llama";
  c.vocab_size = 96;
  c.hidden_size = 64;
  c.intermediate_size = 96;
  c.num_hidden_layers = 3;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 16;
  c.max_position_embeddings = 256;
  c.attention_bias = qwen2;
  c.tie_word_embeddings = !qwen2;
  return c;
}

// Uniform in [-1, 1).
float random_value(std::uint64_t key, std::uint64_t index) {
  return static_cast<float>(philox4x32(key, index, 0).x[0]) / 2147483648.0f - 1.0f;
}

// A model with random weights; attention and rotation matter in it.
class TinyModel {
 public:
  explicit TinyModel(bool qwen2)
      : backend_(create_backend("cpu")),
        stream_(backend_->create_stream()),
        transformer_(tiny_config(qwen2), 128, *backend_, *stream_) {
    Arena none;
    const auto ops = backend_->create_ops(*stream_, none);
    params_ =
        std::make_unique<LocalParamStore>(WeightTable(transformer_.config()), DType::f32, nullptr, *ops, *backend_);
    for (const ParamSpec& spec : params_->table().params()) {
      std::vector<float> values(static_cast<std::size_t>(spec.shape.numel()));
      const bool norm = spec.shape.rank() == 1 && spec.kind != ParamKind::qkv_bias;
      const float width = spec.kind == ParamKind::embedding || spec.kind == ParamKind::lm_head ? 1.0f : 0.3f;
      for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = (norm ? 1.0f : 0.0f) + width * random_value(static_cast<std::uint64_t>(spec.index) + 1, i);
      }
      const Tensor weight = params_->weight(spec.index);
      backend_->copy_to_device(weight.data, values.data(), weight.bytes(), *stream_);
    }
    backend_->synchronize(*stream_);
  }

  Generator generator(std::int64_t max_batch, std::int64_t max_prompt_tokens = 256) {
    return Generator(*backend_, transformer_, *params_, {max_batch, max_prompt_tokens, 128});
  }

 private:
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
  Transformer transformer_;
  std::unique_ptr<LocalParamStore> params_;
};

Tokens random_prompt(std::uint64_t key, std::size_t length) {
  Tokens prompt(length);
  for (std::size_t i = 0; i < length; ++i) prompt[i] = static_cast<std::int32_t>(philox4x32(key, i, 7).x[0] % 96);
  return prompt;
}

std::vector<Tokens> random_prompts(std::size_t count) {
  std::vector<Tokens> prompts;
  for (std::size_t i = 0; i < count; ++i) prompts.push_back(random_prompt(100 + i, 1 + i * 7 % 30));
  return prompts;
}

GenerateOptions greedy(std::int64_t max_new_tokens) {
  GenerateOptions options;
  options.max_new_tokens = max_new_tokens;
  return options;
}

// One token at a time, each from a forward pass over the whole text: nothing is read from a cache.
Tokens without_cache(Generator& generator, Tokens text, std::int64_t count) {
  Tokens result;
  for (std::int64_t i = 0; i < count; ++i) {
    const Generation one = generator.generate(std::vector<Tokens>{text}, greedy(1)).at(0);
    result.push_back(one.ids.at(0));
    text.push_back(one.ids.at(0));
  }
  EXPECT_EQ(generator.times().decoded_tokens, 0);
  return result;
}

class GeneratorTest : public ::testing::TestWithParam<bool> {};

TEST_P(GeneratorTest, CacheGivesTheTokensOfTheFullForwardPass) {
  TinyModel model(GetParam());
  Generator alone = model.generator(1), batched = model.generator(5);
  const std::vector<Tokens> prompts = random_prompts(5);
  const std::vector<Generation> got = batched.generate(prompts, greedy(24));
  int lively = 0;  // a text that repeats one token would hide a wrong cache
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const Tokens expected = without_cache(alone, prompts[i], 24);
    EXPECT_EQ(got[i].ids, expected) << "prompt " << i;
    lively += std::set<std::int32_t>(expected.begin(), expected.end()).size() > 4 ? 1 : 0;
  }
  EXPECT_GE(lively, 3);
}

TEST_P(GeneratorTest, PlacesAreRefilledWithoutMixingSequences) {
  TinyModel model(GetParam());
  Generator few = model.generator(3, 128), many = model.generator(11);
  const std::vector<Tokens> prompts = random_prompts(11);
  GenerateOptions options = greedy(25);
  options.stop_ids = {3, 40, 77};  // so that sequences end at different steps
  const std::vector<Generation> a = few.generate(prompts, options), b = many.generate(prompts, options);
  std::set<std::size_t> lengths;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    EXPECT_EQ(a[i].ids, b[i].ids) << "prompt " << i;
    EXPECT_EQ(a[i].reason, b[i].reason) << "prompt " << i;
    for (std::int32_t id : a[i].ids) EXPECT_TRUE(id != 3 && id != 40 && id != 77);
    lengths.insert(a[i].ids.size());
  }
  EXPECT_GT(lengths.size(), 2u);
  EXPECT_EQ(few.generate(prompts, options).at(10).ids, a[10].ids) << "a generator can be used again";
}

INSTANTIATE_TEST_SUITE_P(Architectures, GeneratorTest, ::testing::Values(false, true),
                         [](const auto& of) { return of.param ? "qwen2" : "llama"; });

TEST(Generator, StopsAtTheLongestLength) {
  TinyModel model(false);
  Generator generator = model.generator(2);
  const Generation long_one = generator.generate(std::vector<Tokens>{random_prompt(1, 120)}, greedy(50)).at(0);
  EXPECT_EQ(long_one.ids.size(), 8u);
  EXPECT_EQ(long_one.reason, StopReason::max_len);
}

TEST(Generator, SamplingFollowsTheSeed) {
  TinyModel model(false);
  Generator generator = model.generator(4);
  const std::vector<Tokens> prompts = random_prompts(4);
  GenerateOptions options = greedy(30);
  options.sampling = {1.0, 0.9, 7};
  const auto ids = [&] {
    std::vector<Tokens> all;
    for (const Generation& g : generator.generate(prompts, options)) all.push_back(g.ids);
    return all;
  };
  const std::vector<Tokens> first = ids();
  EXPECT_EQ(ids(), first);
  options.sampling.seed = 8;
  EXPECT_NE(ids(), first);
}

TEST(Generator, RefusesWhatItCannotHold) {
  TinyModel model(false);
  Generator generator = model.generator(2);
  EXPECT_THROW(generator.generate(std::vector<Tokens>{{}}, greedy(1)), Error);
  EXPECT_THROW(generator.generate(std::vector<Tokens>{random_prompt(1, 128)}, greedy(1)), Error);
  EXPECT_THROW(generator.generate(std::vector<Tokens>{{96}}, greedy(1)), Error);
  EXPECT_EQ(generator.generate(std::vector<Tokens>{{5}}, greedy(2)).at(0).ids.size(), 2u);
}

}  // namespace
}  // namespace llmfp8
