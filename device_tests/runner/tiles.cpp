#include "tiles.h"

#include <algorithm>
#include <cmath>

namespace {

constexpr double kPi = 3.14159265358979323846;
// Tiles start on the grid of JPEG's blocks.
constexpr int kGrid = 16;

std::vector<int> starts(int length, int tile, int overlap) {
  if (length <= tile) return {0};
  const int cells = (length + kGrid - 1) / kGrid, wide = tile / kGrid, shared = (overlap + kGrid - 1) / kGrid;
  const int step = wide - shared;
  const int count = (cells - shared + step - 1) / step;
  std::vector<int> result;
  for (int i = 0; i < count; ++i) result.push_back((cells - wide) * i / (count - 1) * kGrid);
  return result;
}

double rise(int position, int length) { return 0.5 - 0.5 * std::cos(kPi * (position + 0.5) / length); }

// Raised cosines over what a tile shares with each neighbour, divided by their sum, where more than two meet.
std::vector<std::vector<float>> ramps(const std::vector<int>& all, int tile, int length) {
  std::vector<std::vector<double>> raw;
  std::vector<double> total(length, 0.0);
  for (std::size_t position = 0; position < all.size(); ++position) {
    std::vector<double> weights(std::min(tile, length - all[position]), 1.0);
    if (position > 0) {
      const int shared = all[position - 1] + tile - all[position];
      for (int i = 0; i < shared; ++i) weights[i] = rise(i, shared);
    }
    if (position + 1 < all.size()) {
      const int shared = all[position] + tile - all[position + 1];
      for (int i = 0; i < shared; ++i) {
        double& weight = weights[tile - 1 - i];
        weight = std::min(weight, rise(i, shared));
      }
    }
    for (std::size_t i = 0; i < weights.size(); ++i) total[all[position] + i] += weights[i];
    raw.push_back(std::move(weights));
  }
  std::vector<std::vector<float>> result;
  for (std::size_t position = 0; position < all.size(); ++position) {
    result.emplace_back();
    for (std::size_t i = 0; i < raw[position].size(); ++i) {
      result.back().push_back(static_cast<float>(raw[position][i] / total[all[position] + i]));
    }
  }
  return result;
}

// The index that mirroring with the edge repeated gives; a picture may be much smaller than a tile.
int mirrored(int index, int length) {
  const int place = index % (2 * length);
  return place < length ? place : 2 * length - 1 - place;
}

// One axis of Pillow's resampling: fixed-point weights of 22 bits over each output pixel's box, rounded to 8 bits.
struct Box {
  int first = 0;
  std::vector<int> weights;
};

std::vector<Box> boxes(int from, int to) {
  constexpr int kBits = 22;
  const double scale = static_cast<double>(from) / to;
  const double filter = std::max(scale, 1.0), support = 0.5 * filter;
  std::vector<Box> result;
  for (int out = 0; out < to; ++out) {
    const double centre = (out + 0.5) * scale;
    const int first = std::max(0, static_cast<int>(centre - support + 0.5));
    const int last = std::min(from, static_cast<int>(centre + support + 0.5));
    std::vector<double> weights;
    double sum = 0.0;
    for (int i = first; i < last; ++i) {
      const double at = (i - centre + 0.5) * (1.0 / filter);
      weights.push_back(at > -0.5 && at <= 0.5 ? 1.0 : 0.0);
      sum += weights.back();
    }
    Box box{first, {}};
    for (const double weight : weights) {
      box.weights.push_back(static_cast<int>(0.5 + (sum != 0.0 ? weight / sum : weight) * (1 << kBits)));
    }
    result.push_back(std::move(box));
  }
  return result;
}

std::uint8_t rounded(int sum) {
  return static_cast<std::uint8_t>(std::clamp((sum + (1 << 21)) >> 22, 0, 255));
}

}  // namespace

Region TilePlan::region(std::size_t index) const {
  const int top = rows[index / columns.size()], left = columns[index % columns.size()];
  return {top, left, std::min(top + tile, height), std::min(left + tile, width)};
}

std::vector<double> TilePlan::areas() const {
  const auto sums = [](const std::vector<std::vector<float>>& all) {
    std::vector<double> result;
    for (const auto& weights : all) {
      double sum = 0.0;
      for (const float weight : weights) sum += weight;
      result.push_back(sum);
    }
    return result;
  };
  const auto vertical = sums(down), horizontal = sums(across);
  std::vector<double> result;
  for (const double d : vertical) {
    for (const double a : horizontal) result.push_back(d * a / (static_cast<double>(height) * width));
  }
  return result;
}

TilePlan plan_tiles(int height, int width, int tile, int overlap) {
  TilePlan plan{height, width, tile, starts(height, tile, overlap), starts(width, tile, overlap), {}, {}};
  plan.down = ramps(plan.rows, tile, height);
  plan.across = ramps(plan.columns, tile, width);
  return plan;
}

Pixels crop(const Pixels& picture, const Region& region) {
  Pixels result{region.height(), region.width(), {}};
  result.data.reserve(3u * result.height * result.width);
  for (int y = region.top; y < region.bottom; ++y) {
    const auto row = picture.data.begin() + 3 * (static_cast<std::ptrdiff_t>(y) * picture.width + region.left);
    result.data.insert(result.data.end(), row, row + 3 * region.width());
  }
  return result;
}

Tensor to_program(const Pixels& pixels, int tile) {
  Tensor planes{{1, 3, tile, tile}, std::vector<float>(3u * tile * tile)};
  std::size_t at = 0;
  for (int channel = 0; channel < 3; ++channel) {
    for (int y = 0; y < tile; ++y) {
      const std::size_t row = mirrored(y, pixels.height);
      for (int x = 0; x < tile; ++x) {
        const std::size_t column = mirrored(x, pixels.width);
        planes.data[at++] = static_cast<float>(pixels.data[(row * pixels.width + column) * 3 + channel]) / 255.0f;
      }
    }
  }
  return planes;
}

Pixels from_program(const Tensor& planes, const Pixels& like) {
  const std::size_t tile = planes.shape.at(3);
  Pixels pixels{like.height, like.width, std::vector<std::uint8_t>(like.data.size())};
  for (int y = 0; y < like.height; ++y) {
    for (int x = 0; x < like.width; ++x) {
      for (int channel = 0; channel < 3; ++channel) {
        const float value = planes.data[(channel * tile + y) * tile + x] * 255.0f;
        const float whole = std::nearbyint(std::clamp(value, 0.0f, 255.0f));
        pixels.data[(static_cast<std::size_t>(y) * like.width + x) * 3 + channel] = static_cast<std::uint8_t>(whole);
      }
    }
  }
  return pixels;
}

Tensor mirror(const Tensor& planes, int view) {
  Tensor result = planes;
  const auto reverse_every = [&result](std::ptrdiff_t length) {
    for (auto at = result.data.begin(); at != result.data.end(); at += length) std::reverse(at, at + length);
  };
  const auto width = static_cast<std::ptrdiff_t>(planes.shape.back());
  // Reversing a whole plane turns both; reversing its lines then leaves it upside down.
  if (view >= 2) reverse_every(width * static_cast<std::ptrdiff_t>(planes.shape[2]));
  if (view <= 2) reverse_every(width);
  return result;
}

Pixels blend(const std::vector<Pixels>& tiles, const TilePlan& plan) {
  if (plan.count() == 1) return tiles[0];
  Pixels picture{plan.height, plan.width, {}};
  std::vector<float> total(3u * plan.height * plan.width, 0.0f);
  for (std::size_t index = 0; index < tiles.size(); ++index) {
    const Region region = plan.region(index);
    const auto& down = plan.down[index / plan.columns.size()];
    const auto& across = plan.across[index % plan.columns.size()];
    for (int y = 0; y < region.height(); ++y) {
      for (int x = 0; x < region.width(); ++x) {
        const float weight = down[y] * across[x];
        const std::size_t to = (static_cast<std::size_t>(region.top + y) * plan.width + region.left + x) * 3;
        const std::size_t from = (static_cast<std::size_t>(y) * region.width() + x) * 3;
        for (int channel = 0; channel < 3; ++channel) {
          total[to + channel] += weight * static_cast<float>(tiles[index].data[from + channel]);
        }
      }
    }
  }
  picture.data.reserve(total.size());
  for (const float value : total) picture.data.push_back(static_cast<std::uint8_t>(std::nearbyint(value)));
  return picture;
}

Size small_size(int height, int width, int tile) {
  const double scale = static_cast<double>(tile) / std::max(height, width);
  return {std::max(1, static_cast<int>(height * scale + 0.5)), std::max(1, static_cast<int>(width * scale + 0.5))};
}

Pixels make_small(const Pixels& picture, int tile) {
  const Size size = small_size(picture.height, picture.width, tile);
  const auto across = boxes(picture.width, size.width), down = boxes(picture.height, size.height);
  Pixels narrow{picture.height, size.width, std::vector<std::uint8_t>(3u * picture.height * size.width)};
  for (int y = 0; y < picture.height; ++y) {
    for (int x = 0; x < size.width; ++x) {
      for (int channel = 0; channel < 3; ++channel) {
        int sum = 0;
        for (std::size_t i = 0; i < across[x].weights.size(); ++i) {
          const std::size_t column = across[x].first + i;
          sum += across[x].weights[i] * picture.data[(static_cast<std::size_t>(y) * picture.width + column) * 3 + channel];
        }
        narrow.data[(static_cast<std::size_t>(y) * size.width + x) * 3 + channel] = rounded(sum);
      }
    }
  }
  Pixels small{size.height, size.width, std::vector<std::uint8_t>(3u * size.height * size.width)};
  for (int y = 0; y < size.height; ++y) {
    for (int x = 0; x < size.width; ++x) {
      for (int channel = 0; channel < 3; ++channel) {
        int sum = 0;
        for (std::size_t i = 0; i < down[y].weights.size(); ++i) {
          const std::size_t row = down[y].first + i;
          sum += down[y].weights[i] * narrow.data[(row * size.width + x) * 3 + channel];
        }
        small.data[(static_cast<std::size_t>(y) * size.width + x) * 3 + channel] = rounded(sum);
      }
    }
  }
  return small;
}
