#include "fp8/recipe.h"

namespace llmfp8 {

inline constexpr int kAmaxHistoryLength = 16;

Scaling QuantSpec::scaling() const {
  switch (policy) {
    case ScalePolicy::none: return Scaling::none;
    case ScalePolicy::delayed: case ScalePolicy::current: return Scaling::tensor;
    case ScalePolicy::mx: return Scaling::mx_1x32;
  }
  return Scaling::none;
}

std::string_view Recipe::name() const {
  switch (kind_) {
    case RecipeKind::none: return "none";
    case RecipeKind::standard: return "default";
    case RecipeKind::hybrid: return "hybrid";
    case RecipeKind::mxfp8: return "mxfp8";
    case RecipeKind::current: return "current";
  }
  return "?";
}

bool Recipe::quantizes(Product product) const {
  return kind_ != RecipeKind::none && (product != Product::lm_head || fp8_lm_head_);
}

QuantSpec Recipe::spec(Site site, Role role) const {
  if (!quantizes(site.product)) return QuantSpec{};
  const bool is_mlp = site.product == Product::gate_up || site.product == Product::down;
  const bool wide_gradient = kind_ == RecipeKind::mxfp8 ? false : (kind_ == RecipeKind::standard ? !is_mlp : true);
  QuantSpec spec;
  spec.format = role == Role::gradient && wide_gradient ? DType::e5m2 : DType::e4m3;
  spec.policy = kind_ == RecipeKind::mxfp8     ? ScalePolicy::mx
                : kind_ == RecipeKind::current ? ScalePolicy::current
                                               : ScalePolicy::delayed;
  if (spec.policy == ScalePolicy::delayed) spec.history_length = kAmaxHistoryLength;
  return spec;
}

Accumulation Recipe::accumulation(Site, GemmPass pass) const {
  return pass == GemmPass::fprop ? Accumulation::fast : Accumulation::precise;
}

std::string_view name(Product product) {
  switch (product) {
    case Product::qkv: return "qkv";
    case Product::o: return "o";
    case Product::gate_up: return "gate_up";
    case Product::down: return "down";
    case Product::lm_head: return "lm_head";
  }
  return "?";
}

std::string_view name(Role role) {
  switch (role) {
    case Role::input: return "input";
    case Role::weight: return "weight";
    case Role::gradient: return "gradient";
  }
  return "?";
}

}  // namespace llmfp8
