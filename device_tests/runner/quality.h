// The quality scale: 0 to 1 is 10 to 50 dB of PSNR, linearly; the same as burnish.runtime.quality.
#pragma once

#include <algorithm>
#include <cmath>

inline double quality_to_mse(double quality) { return std::pow(10.0, -(10.0 + 40.0 * quality) / 10.0); }

inline double mse_to_quality(double mse) { return (-10.0 * std::log10(mse) - 10.0) / 40.0; }

// Predicted quality of the mean of two restorations, from theirs and their mean squared difference.
inline double quality_of_mean(double one, double other, double difference) {
  const double both = quality_to_mse(one) + quality_to_mse(other);
  return mse_to_quality(both / 2.0 - std::min(difference, both) / 4.0);
}
