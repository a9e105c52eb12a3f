// The words that flags of several subcommands take, and what they mean.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/settings.h"
#include "fp8/recipe.h"

namespace llmfp8 {

// In the order of the help.
template <typename T>
using Choices = std::vector<std::pair<std::string, T>>;

inline const Choices<RecipeKind> kRecipes = {{"none", RecipeKind::none},
                                             {"default", RecipeKind::standard},
                                             {"hybrid", RecipeKind::hybrid},
                                             {"mxfp8", RecipeKind::mxfp8},
                                             {"current", RecipeKind::current}};
inline const Choices<Recompute> kRecompute = {{"none", Recompute::none},
                                              {"norm_swiglu", Recompute::norm_swiglu},
                                              {"mlp", Recompute::mlp},
                                              {"block", Recompute::block}};
inline const Choices<LrScheduler> kSchedulers = {
    {"linear", LrScheduler::linear}, {"cosine", LrScheduler::cosine}, {"constant", LrScheduler::constant}};
inline const Choices<OptimState> kOptimStates = {
    {"fp32", OptimState::fp32}, {"bf16", OptimState::bf16}, {"8bit", OptimState::eight_bit}};
inline const Choices<WeightUpdate> kWeightUpdates = {
    {"exact", WeightUpdate::exact}, {"stochastic", WeightUpdate::stochastic}, {"python", WeightUpdate::python}};

inline const Choices<LossOn> kLossOn = {{"all", LossOn::all}, {"completion", LossOn::completion},
                                         {"assistant", LossOn::assistant}};

template <typename T>
std::vector<std::string> words(const Choices<T>& choices) {
  std::vector<std::string> list;
  for (const auto& [word, value] : choices) list.push_back(word);
  return list;
}

template <typename T>
T meaning(const Choices<T>& choices, std::string_view word) {
  for (const auto& [key, value] : choices) {
    if (key == word) return value;
  }
  fail("no choice '{}'", word);
}

}  // namespace llmfp8
