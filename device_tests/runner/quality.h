// The quality scale: 0 to 1 is 10 to 50 dB of PSNR, linearly; the same as burnish.runtime.quality.
#pragma once

#include <cmath>

inline double quality_to_mse(double quality) { return std::pow(10.0, -(10.0 + 40.0 * quality) / 10.0); }

inline double mse_to_quality(double mse) { return (-10.0 * std::log10(mse) - 10.0) / 40.0; }
