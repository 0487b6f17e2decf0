#include "cost.h"

#include <algorithm>
#include <cmath>

namespace {

constexpr double kWeight = 0.25;
constexpr double kDeviations = 3.0;
constexpr double kLeastDeviation = 0.03;
constexpr double kFirstDeviation = 0.1;

}  // namespace

double Estimate::margin() const { return kDeviations * std::max(deviation, kLeastDeviation * mean); }

double Estimate::upper() const { return mean + margin(); }

Estimate Estimate::observe(double value) const {
  if (mean == 0.0) return {value, kFirstDeviation * value, {}};
  double error = value - mean;
  std::optional<double> held;
  if (std::abs(error) > margin()) {
    if (outlier && (*outlier > mean) == (error > 0)) {
      const double pace = (value + *outlier) / 2;
      return {pace, std::max(std::abs(value - *outlier) / 2, kFirstDeviation * pace), {}};
    }
    held = value;
    error = std::copysign(margin(), error);
  }
  return {mean + kWeight * error, deviation + kWeight * (std::abs(error) - deviation), held};
}
