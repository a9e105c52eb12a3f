// LossWatch: says when a step's loss stands far above the recent ones. Fed by the trainer, step by step.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <deque>
#include <optional>

namespace llmfp8 {

class LossWatch {
 public:
  static constexpr std::size_t kWindow = 100;  // steps that a loss is compared with
  static constexpr std::size_t kLeast = 30;    // before there are so many, nothing is said
  static constexpr double kSpike = 6.0;        // standard deviations above their mean

  struct Spike {
    double deviations = 0, mean = 0;
    std::int64_t steps = 0;  // that it was compared with
    bool is_first = false;   // none in the window before it: one warning for a row of spikes
  };

  // loss: finite. A loss counts for those behind it whatever it is, so that a new level becomes the normal one.
  std::optional<Spike> add(double loss) {
    std::optional<Spike> spike;
    ++since_spike_;
    if (losses_.size() >= kLeast) {
      double sum = 0, squares = 0;
      for (const double x : losses_) sum += x;
      const double n = static_cast<double>(losses_.size()), mean = sum / n;
      for (const double x : losses_) squares += (x - mean) * (x - mean);
      const double deviation = std::sqrt(squares / (n - 1));
      // Losses that hardly differ (a data set learnt by heart) would make a spike of every rounding.
      const double least = 1e-3 * std::abs(mean);
      const double deviations = (loss - mean) / std::max(deviation, least);
      if (deviations > kSpike) {
        spike = Spike{deviations, mean, static_cast<std::int64_t>(losses_.size()), since_spike_ > kWindow};
        since_spike_ = 0;
        ++spikes_;
      }
    }
    losses_.push_back(loss);
    if (losses_.size() > kWindow) losses_.pop_front();
    return spike;
  }

  std::int64_t spikes() const { return spikes_; }

 private:
  std::deque<double> losses_;
  std::size_t since_spike_ = kWindow;
  std::int64_t spikes_ = 0;
};

}  // namespace llmfp8
