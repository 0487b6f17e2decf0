// The quality scale: 0 to 1 is 10 to 50 dB of PSNR, linearly; the same as burnish.runtime.quality.
#pragma once

#include <algorithm>
#include <cmath>

inline double quality_to_mse(double quality) { return std::pow(10.0, -(10.0 + 40.0 * quality) / 10.0); }

inline double mse_to_quality(double mse) { return (-10.0 * std::log10(mse) - 10.0) / 40.0; }

// Predicted quality when `other` joins `one`, the mean of `count` restorations; from theirs and their mean squared difference.
inline double quality_of_mean(double one, int count, double other, double difference) {
  const double mine = quality_to_mse(one), others = quality_to_mse(other), share = 1.0 / (count + 1);
  const double apart = std::min(difference, mine + others);
  return mse_to_quality(share * (count * mine + others) - share * share * count * apart);
}
