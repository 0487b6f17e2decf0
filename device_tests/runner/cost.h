// What a step will cost: an upper estimate, corrected as steps are observed; the same as burnish.runtime.cost.
#pragma once

#include <optional>

// Mean and mean absolute deviation of a duration in milliseconds. A mean of 0 knows nothing yet and predicts 0.
struct Estimate {
  double mean = 0.0;
  double deviation = 0.0;
  std::optional<double> outlier;

  double upper() const;
  Estimate observe(double value) const;

 private:
  double margin() const;
};

struct CostModel {
  Estimate encode, refine;
};
