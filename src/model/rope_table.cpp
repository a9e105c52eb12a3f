#include "model/rope_table.h"

#include <cmath>
#include <numbers>

namespace llmfp8 {

std::vector<float> rope_inv_freq(const ModelConfig& config) {
  const auto half = static_cast<std::size_t>(config.head_dim / 2);
  std::vector<float> inv_freq(half);
  for (std::size_t i = 0; i < half; ++i) {
    double f = std::pow(config.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(config.head_dim));
    if (config.rope_scaling) {
      const Llama3RopeScaling& s = *config.rope_scaling;
      const double original = static_cast<double>(s.original_max_position_embeddings);
      const double wavelength = 2.0 * std::numbers::pi / f;
      if (wavelength > original / s.low_freq_factor) {
        f /= s.factor;
      } else if (wavelength >= original / s.high_freq_factor) {
        const double smooth = (original / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
        f = (1.0 - smooth) * f / s.factor + smooth * f;
      }
    }
    inv_freq[i] = static_cast<float>(f);
  }
  return inv_freq;
}

std::vector<float> rope_cos_sin(const ModelConfig& config, std::int64_t num_positions) {
  const std::vector<float> inv_freq = rope_inv_freq(config);
  const std::size_t half = inv_freq.size();
  std::vector<float> table(static_cast<std::size_t>(num_positions) * 2 * half);
  for (std::size_t p = 0; p < static_cast<std::size_t>(num_positions); ++p) {
    for (std::size_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(p) * inv_freq[i];
      table[p * 2 * half + i] = static_cast<float>(std::cos(static_cast<double>(angle)));
      table[p * 2 * half + half + i] = static_cast<float>(std::sin(static_cast<double>(angle)));
    }
  }
  return table;
}

}  // namespace llmfp8
