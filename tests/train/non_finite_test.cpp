// --debug_mode: a value that is not finite is found where it first appears, with layer, operation and place.
#include "train/non_finite.h"

#include <cmath>
#include <limits>

#include "core/bf16.h"
#include "train/engine_support.h"

namespace llmfp8::testing {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

void expect_parts(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) EXPECT_NE(text.find(part), std::string::npos) << part << " in " << text;
}

// An engine in bf16 that has made a good step.
struct Trained {
  std::unique_ptr<Backend> backend = create_cpu_backend();
  std::vector<ParityBatch> batches;
  std::unique_ptr<Engine> engine;

  explicit Trained(RecipeKind recipe) {
    batches.push_back(random_batch(open_model(model_dir("llama_untied"))->config(), {40, 30, 21}, 5));
    EngineOptions options;
    options.recipe = recipe;
    options.recompute = Recompute::block;  // operations run twice; the first time counts
    const BatchLimits limits = align_batches(batches);
    engine = golden_engine(*backend, model_dir("llama_untied"), options, limits);
    EXPECT_TRUE(engine->train_step(batch(), 1e-4, 1.0).ok);
  }
  std::span<const HostBatch> batch() const { return {&batches[0].host, 1}; }
  Tensor weight(ParamKind kind, int layer = -1) {
    return engine->params().weight(engine->params().table().find(kind, layer).index);
  }

  // Of a step that must not be ok, and whose explanation changes nothing.
  std::string explanation() {
    EXPECT_FALSE(engine->train_step(batch(), 1e-4, 1.0).ok);
    const auto before = state_bytes(*engine);
    const double share = engine->ledger().fp8_share();
    const std::int64_t calls = engine->ledger().find({0, Product::qkv}, GemmPass::fprop).calls;
    const std::string text = explain_not_finite(*engine, batch());
    EXPECT_TRUE(state_bytes(*engine) == before) << text;
    EXPECT_EQ(engine->ledger().fp8_share(), share);
    EXPECT_EQ(engine->ledger().find({0, Product::qkv}, GemmPass::fprop).calls, calls);
    EXPECT_EQ(text.find('\n'), std::string::npos);
    return text;
  }
};

void put(const Tensor& t, std::int64_t row, std::int64_t col, float value) {
  t.as<bf16>()[row * t.cols() + col] = to_bf16(value);
}

TEST(NonFinite, WeightIsNamedAsItsFileNamesIt) {
  Trained run(RecipeKind::none);
  const Tensor gate_up = run.weight(ParamKind::gate_up, 1);
  const std::int64_t intermediate = gate_up.rows() / 2;
  put(gate_up, intermediate + 5, 7, kNan);
  put(gate_up, intermediate + 6, 8, kInfinity);
  expect_parts(run.explanation(), {"weight model.layers.1.mlp.up_proj.weight", "bf16: first NaN at [5, 7], 2 of "});
}

// Weights that are finite and so large that a sum of products is not.
TEST(NonFinite, OverflowDeepInTheForwardPassIsFoundAtItsOperation) {
  for (RecipeKind recipe : {RecipeKind::none, RecipeKind::mxfp8, RecipeKind::current}) {
    Trained run(recipe);
    const Tensor norm = run.weight(ParamKind::final_norm);
    for (std::int64_t i = 0; i < norm.numel(); ++i) norm.as<bf16>()[i] = to_bf16(3e38f);
    const std::string text = run.explanation();
    expect_parts(text, {"model.norm, rmsnorm", "first infinity at ["});
    EXPECT_EQ(text.find("lm_head"), std::string::npos) << text;
  }
  Trained run(RecipeKind::none);
  const Tensor down = run.weight(ParamKind::down, 1);
  for (std::int64_t i = 0; i < down.numel(); ++i) down.as<bf16>()[i] = to_bf16(i % 2 == 0 ? 3e38f : 2e38f);
  const Tensor up = run.weight(ParamKind::gate_up, 1);
  for (std::int64_t i = 0; i < up.numel(); ++i) up.as<bf16>()[i] = to_bf16(to_float(up.as<bf16>()[i]) * 100.0f);
  expect_parts(run.explanation(), {"model.layers.1.mlp.down_proj, gemm fprop [128 x ", "bf16: first "});
}

TEST(NonFinite, GradientIsNamedByItsParameter) {
  Trained run(RecipeKind::standard);
  const ParamSpec& qkv = run.engine->params().table().find(ParamKind::qkv, 1);
  PoisonedReducer poison(*run.engine, ParamKind::qkv, qkv.slices[1].row_begin * qkv.shape[1] + 3, -kInfinity);
  run.engine->set_reducer(&poison);
  expect_parts(run.explanation(),
               {"gradient of model.layers.1.self_attn.k_proj.weight", "f32: first infinity at [0, 3], 1 of "});
}

TEST(NonFinite, NothingIsFoundInAGoodStep) {
  for (RecipeKind recipe : {RecipeKind::none, RecipeKind::standard, RecipeKind::mxfp8}) {
    Trained run(recipe);
    expect_parts(explain_not_finite(*run.engine, run.batch()), {"finite values everywhere"});
  }
}

// ---- the search by itself

class Searching : public ::testing::Test {
 protected:
  Tensor tensor(DType dtype, Shape shape) {
    buffers_.push_back(backend_->allocate(static_cast<std::size_t>(shape.numel()) * size_bytes(dtype), "test"));
    return buffers_.back().tensor(dtype, shape);
  }
  NonFinite find(const Tensor& t, std::int64_t rows) { return find_non_finite(*backend_, *stream_, t, rows); }

  std::unique_ptr<Backend> backend_ = create_cpu_backend();
  std::unique_ptr<Stream> stream_ = backend_->create_stream();
  std::vector<Buffer> buffers_;
};

TEST_F(Searching, CodesOfEveryFormat) {
  const Tensor e4m3 = tensor(DType::e4m3, Shape{1, 256}), e5m2 = tensor(DType::e5m2, Shape{1, 256});
  for (int code = 0; code < 256; ++code)
    e4m3.as<std::uint8_t>()[code] = e5m2.as<std::uint8_t>()[code] = static_cast<std::uint8_t>(code);
  EXPECT_EQ(find(e4m3, 1).count, 2);  // 0x7F, 0xFF
  EXPECT_EQ(find(e4m3, 1).column, 0x7F);
  EXPECT_TRUE(find(e4m3, 1).is_nan);
  EXPECT_EQ(find(e5m2, 1).count, 8);  // 0x7C..0x7F and 0xFC..0xFF
  EXPECT_EQ(find(e5m2, 1).column, 0x7C);
  EXPECT_FALSE(find(e5m2, 1).is_nan);
  const Tensor f32 = tensor(DType::f32, Shape{3, 5});
  EXPECT_EQ(find(f32, 3).count, 0);
  f32.as<float>()[11] = -kInfinity;
  f32.as<float>()[14] = kNan;
  EXPECT_EQ(find(f32, 3).text(), "first infinity at [2, 1], 2 of 15 values");
  const Tensor i32 = tensor(DType::i32, Shape{2, 2});
  i32.as<std::int32_t>()[0] = 0x7FC00000;
  EXPECT_EQ(find(i32, 2).count, 0);
}

TEST_F(Searching, ColumnsBetweenRowsOfAViewAreNotItsOwn) {
  const Tensor whole = tensor(DType::f32, Shape{4, 8});
  whole.as<float>()[8 + 6] = kNan;
  EXPECT_EQ(find(whole.slice_cols(0, 4), 4).count, 0);
  const NonFinite found = find(whole.slice_cols(4, 4), 4);
  EXPECT_EQ(found.count, 1);
  EXPECT_EQ(found.row, 1);
  EXPECT_EQ(found.column, 2);
}

TEST_F(Searching, RowsBeyondTheCountAreNotReported) {
  const Tensor t = tensor(DType::f32, Shape{4, 2}), count = tensor(DType::i32, Shape{1});
  t.as<float>()[7] = kNan;  // row 3
  count.as<std::int32_t>()[0] = 13;
  NonFiniteSearch search(*backend_, *stream_);
  search.begin({"embedding", 4, 2});
  search.written({&t, nullptr, &count, 10});  // rows 0 to 2
  EXPECT_EQ(search.found(), "");
  count.as<std::int32_t>()[0] = 14;
  search.written({&t, nullptr, &count, 10});
  EXPECT_EQ(search.found(), "embedding [4 x 2] f32: first NaN at [3, 1], 1 of 8 values");
  t.as<float>()[0] = kNan;
  search.begin({"copy", 4, 2});
  search.written({&t});
  EXPECT_TRUE(search.found().starts_with("embedding")) << "the first one stays";
}

TEST_F(Searching, TransposedCodesAreNamedByTheirPlaceInTheMatrix) {
  QTensor q;
  q.scaling = Scaling::tensor;
  q.format = DType::e4m3;
  q.shape = Shape{4, 3};
  q.columnwise = tensor(DType::e4m3, Shape{3, 4});
  q.columnwise.as<std::uint8_t>()[2 * 4 + 1] = 0x7F;
  NonFiniteSearch search(*backend_, *stream_);
  OpInfo info{"quantize", 4, 3};
  info.scope = {"mlp.down_proj", 3};
  search.begin(info);
  search.written({nullptr, &q});
  EXPECT_EQ(search.found(), "model.layers.3.mlp.down_proj, quantize [4 x 3] e4m3: first NaN at [1, 2], 1 of 12 values");
}

}  // namespace
}  // namespace llmfp8::testing
