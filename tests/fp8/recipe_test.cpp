// The recipes' table: which matrix is cast to what, as the documentation states it.
#include "fp8/recipe.h"

#include <gtest/gtest.h>

namespace llmfp8 {
namespace {

constexpr Product kProducts[] = {Product::qkv, Product::o, Product::gate_up, Product::down, Product::lm_head};
constexpr Role kRoles[] = {Role::input, Role::weight, Role::gradient};

// One row of the table: the formats of gradients in attention, MLP and head; inputs and weights are always E4M3.
struct Row {
  RecipeKind kind;
  const char* name;
  ScalePolicy policy;
  Scaling scaling;
  int history;
  DType attention, mlp, head;
};

constexpr Row kTable[] = {
    {RecipeKind::standard, "default", ScalePolicy::delayed, Scaling::tensor, 16, DType::e5m2, DType::e4m3, DType::e5m2},
    {RecipeKind::hybrid, "hybrid", ScalePolicy::delayed, Scaling::tensor, 16, DType::e5m2, DType::e5m2, DType::e5m2},
    {RecipeKind::mxfp8, "mxfp8", ScalePolicy::mx, Scaling::mx_1x32, 0, DType::e4m3, DType::e4m3, DType::e4m3},
    {RecipeKind::current, "current", ScalePolicy::current, Scaling::tensor, 0, DType::e5m2, DType::e5m2, DType::e5m2},
};

TEST(Recipe, EveryMatrixIsCastAsDocumented) {
  for (const Row& row : kTable) {
    for (bool with_head : {false, true}) {
      const Recipe recipe(row.kind, with_head);
      EXPECT_EQ(recipe.name(), row.name);
      EXPECT_EQ(recipe.delayed(), row.policy == ScalePolicy::delayed);
      for (Product product : kProducts) {
        for (Role role : kRoles) {
          for (int layer : {0, 7}) {
            const QuantSpec spec = recipe.spec({layer, product}, role);
            const bool quantized = with_head || product != Product::lm_head;
            EXPECT_EQ(spec.quantized(), quantized) << row.name << " " << name(product);
            EXPECT_EQ(recipe.quantizes(product), quantized);
            EXPECT_EQ(spec.scaling(), quantized ? row.scaling : Scaling::none);
            if (!quantized) continue;
            const DType gradient = product == Product::lm_head                               ? row.head
                                   : product == Product::gate_up || product == Product::down ? row.mlp
                                                                                             : row.attention;
            EXPECT_EQ(spec.format, role == Role::gradient ? gradient : DType::e4m3)
                << row.name << " " << name(product) << " " << name(role);
            EXPECT_EQ(spec.policy, row.policy);
            EXPECT_EQ(spec.history_length, row.history);
            EXPECT_EQ(spec.algorithm, AmaxAlgorithm::max);
            EXPECT_EQ(spec.margin, 0);
          }
        }
      }
    }
  }
}

TEST(Recipe, NoneLeavesEverythingAlone) {
  for (bool with_head : {false, true}) {
    const Recipe none(RecipeKind::none, with_head);
    EXPECT_EQ(none.name(), "none");
    EXPECT_FALSE(none.delayed());
    for (Product product : kProducts) {
      EXPECT_FALSE(none.quantizes(product));
      for (Role role : kRoles) EXPECT_FALSE(none.spec({0, product}, role).quantized());
    }
  }
}

// Transformer Engine adds fast in the forward pass only: gradients need the bits.
TEST(Recipe, OnlyTheForwardPassAccumulatesFast) {
  for (const Row& row : kTable) {
    const Recipe recipe(row.kind);
    EXPECT_EQ(recipe.accumulation({0, Product::qkv}, GemmPass::fprop), Accumulation::fast);
    EXPECT_EQ(recipe.accumulation({0, Product::qkv}, GemmPass::dgrad), Accumulation::precise);
    EXPECT_EQ(recipe.accumulation({0, Product::qkv}, GemmPass::wgrad), Accumulation::precise);
  }
}

}  // namespace
}  // namespace llmfp8
