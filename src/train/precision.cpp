#include "train/precision.h"

#include <map>

#include "report/text_table.h"

namespace llmfp8 {
namespace {

constexpr GemmPass kPasses[] = {GemmPass::fprop, GemmPass::dgrad, GemmPass::wgrad};
constexpr Product kProducts[] = {Product::qkv, Product::o, Product::gate_up, Product::down, Product::lm_head};

RecipeKind recipe_of(Fp8Scenario scenario) {
  switch (scenario) {
    case Fp8Scenario::default_: return RecipeKind::standard;
    case Fp8Scenario::hybrid: return RecipeKind::hybrid;
    case Fp8Scenario::mxfp8: return RecipeKind::mxfp8;
    case Fp8Scenario::current: return RecipeKind::current;
  }
  return RecipeKind::standard;
}

std::string describe(const GemmRecord& r) {
  if (r.calls == 0) return "-";
  if (r.scaling == Scaling::none) return std::string(name(r.a));
  const char* how = r.scaling == Scaling::mx_1x32 ? "1x32" : (r.just_in_time ? "current" : "delayed");
  return fmt::format("{} x {} {}", name(r.a), name(r.b), how);
}

// "e4m3 x e4m3 delayed", or "28 of 30 layers …; 2 …" where layers differ.
std::string describe_layers(const GemmLedger& ledger, const ModelConfig& config, Product product, GemmPass pass) {
  if (product == Product::lm_head) return describe(ledger.find({0, product}, pass));
  std::map<std::string, int> kinds;
  const int layers = static_cast<int>(config.num_hidden_layers);
  for (int layer = 0; layer < layers; ++layer) ++kinds[describe(ledger.find({layer, product}, pass))];
  if (kinds.size() == 1) return kinds.begin()->first;
  std::string text;
  for (const auto& [kind, count] : kinds) text += fmt::format("{}{} of {} layers {}", text.empty() ? "" : "; ", count, layers, kind);
  return text;
}

// --use_te where FP8 runs: its rules differ from ours in the first scales alone.
void follow_transformer_engine(const RunConfig& config, PrecisionChoice& choice) {
  const bool is_delayed = choice.recipe == RecipeKind::standard || choice.recipe == RecipeKind::hybrid;
  const char* start = "";
  if (is_delayed && !config.is_set("fp8_start")) {
    choice.fp8_start = Fp8Start::te;
    start = "; first scales 1, as --fp8_start te";
  }
  choice.notes.push_back(fmt::format("--use_te: Transformer Engine's numeric rules, run by this program's own kernels (its "
                                     "library is not built in){}",
                                     start));
}

}  // namespace

PrecisionChoice choose_precision(const RunConfig& config, const Capabilities& device) {
  PrecisionChoice choice;
  choice.fp8_start = config.fp8_start;
  if (config.use_te && config.mixed_precision != MixedPrecision::fp8) {
    choice.notes.push_back("--use_te: no effect without --mixed_precision fp8");
  }
  if (config.mixed_precision == MixedPrecision::fp32) {
    choice.dtype = DType::f32;
    choice.description = "fp32";
    return choice;
  }
  if (config.mixed_precision != MixedPrecision::fp8) {
    choice.description = "bf16";
    return choice;
  }
  choice.recipe = recipe_of(config.fp8_scenario);
  const std::string asked(Recipe(choice.recipe).name());
  const FormatSupport& support = choice.recipe == RecipeKind::mxfp8 ? device.mxfp8 : device.fp8_tensor;
  if (!support.available && config.fp8_emulate && support.can_emulate) {
    choice.notes.push_back(fmt::format("--fp8_emulate: recipe {} runs exactly on bf16 images of its codes, slowly ({})",
                                       asked, support.reason));
  } else if (!support.available) {
    CHECK(!config.fp8_strict, "--fp8_strict: recipe {} cannot run here: {}", asked, support.reason);
    choice.recipe = choice.recipe == RecipeKind::mxfp8 && device.fp8_tensor.available ? RecipeKind::standard : RecipeKind::none;
    choice.fallback = fmt::format("recipe {} cannot run here ({}); {} runs instead{}", asked, support.reason,
                                  choice.recipe == RecipeKind::none ? "bf16" : "the default recipe",
                                  support.can_emulate ? " (--fp8_emulate runs it, slowly)" : "");
  } else if (!support.reason.empty()) {
    choice.notes.push_back(fmt::format("FP8 is {} on this device", support.reason));
  }
  if (config.use_te && choice.recipe != RecipeKind::none) follow_transformer_engine(config, choice);
  choice.description = choice.recipe == RecipeKind::none ? "bf16" : fmt::format("fp8 ({})", Recipe(choice.recipe).name());
  return choice;
}

std::string recipe_table(const GemmLedger& ledger, const ModelConfig& config) {
  TextTable table({{"product", Align::left}, {"forward", Align::left}, {"input gradient", Align::left}, {"weight gradient", Align::left}});
  for (Product product : kProducts) {
    std::vector<std::string> cells{std::string(name(product))};
    for (GemmPass pass : kPasses) cells.push_back(describe_layers(ledger, config, product, pass));
    table.add_row(cells);
  }
  return table.text(TableStyle::plain);
}

nlohmann::ordered_json recipe_json(const GemmLedger& ledger, const ModelConfig& config) {
  nlohmann::ordered_json json;
  static constexpr const char* kNames[] = {"fprop", "dgrad", "wgrad"};
  for (Product product : kProducts)
    for (GemmPass pass : kPasses)
      json[std::string(name(product))][kNames[static_cast<int>(pass)]] = describe_layers(ledger, config, product, pass);
  json["fp8_flop_share"] = ledger.fp8_share();
  return json;
}

}  // namespace llmfp8
