#include "controller.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "quality.h"

namespace {

// What is left to gain after a refine nobody has looked at yet: after the first, and after the last view.
constexpr double kUnseen = 0.25, kSettled = 0.025;
// A predicted loss is believed from here on, 2 dB: less is within the heads' scatter.
constexpr double kTolerance = 0.05;

std::optional<double> optional_of(const nlohmann::ordered_json& value) {
  return value.is_null() ? std::nullopt : std::optional<double>(value.get<double>());
}

}  // namespace

Policy policy_from(const nlohmann::ordered_json& values) {
  Policy policy;
  for (const auto& [key, value] : values.items()) {
    if (key == "budget_ms") {
      policy.budget_ms = optional_of(value);
    } else if (key == "min_quality") {
      policy.min_quality = optional_of(value);
    } else if (key == "max_iterations") {
      policy.max_iterations = value;
    } else if (key == "min_iterations") {
      policy.min_iterations = value;
    } else if (key == "min_gain") {
      policy.min_gain = value;
    } else if (key == "rollback") {
      policy.rollback = value;
    } else {
      throw std::runtime_error("policy has the unknown key " + key);
    }
  }
  return policy;
}

Controller::Controller(Policy policy, CostModel cost, const std::vector<double>& areas, bool looks, int keep)
    : policy_(policy), cost_(cost), looks_(looks), keep_(keep) {
  for (std::size_t index = 0; index < areas.size(); ++index) {
    tiles_.emplace_back();
    tiles_.back().area = areas[index];
    if (policy_.max_iterations > 0) open_.insert(index);
  }
}

Action Controller::choose(double elapsed_ms) {
  if (!reason_.empty()) return {};
  if (tiles_.size() > 1 && good_enough()) {
    reason_ = "quality";
  } else if (open_.empty()) {
    reason_ = last_;
  } else if (const auto index = next(elapsed_ms)) {
    return step(*index);
  } else {
    reason_ = "budget";
  }
  return {};
}

void Controller::looked(double ms, bool survey) {
  cost_.encode = cost_.encode.observe(ms);
  ++rounds_looked_at_;
  const std::size_t count = tiles_.size(), kept = std::min<std::size_t>(count, keep_);
  if (!survey || kept <= 1 || !has_time_for_all()) return;
  for (std::size_t index = 0; index < kept; ++index) surveyed_.insert(index * count / kept);
}

void Controller::encoded(std::size_t index, double quality, double belief, double ms, bool upright) {
  cost_.encode = cost_.encode.observe(ms);
  TileState& tile = tiles_[index];
  if (std::isnan(quality)) quality = 0.0;
  tile.belief = belief;
  tile.estimate = true;
  if (tile.iteration == tile.best_iteration) tile.assessed = quality;
  tile.gain = tile.area * quality_to_mse(quality) * belief * belief;
  if (tile.iteration == 0) {
    tile.original = true;
    if (!tile.quality) {
      tile.upright = upright;
      tile.quality = quality;
      if (enough(tile, quality)) finish(index, "quality");
    }
  }
  make_room(index);
}

void Controller::mirrored(std::size_t index, double ms) {
  cost_.encode = cost_.encode.observe(ms);
  TileState& tile = tiles_[index];
  tile.estimate = true;
  tile.assessed = tile.quality.value_or(0.0);
  make_room(index);
}

void Controller::recalled(std::size_t index, double ms) {
  cost_.encode = cost_.encode.observe(ms);
  tiles_[index].original = true;
  make_room(index);
}

void Controller::refined(std::size_t index, double quality, double ms) {
  cost_.refine = cost_.refine.observe(ms);
  TileState& tile = tiles_[index];
  ++tile.iteration;
  tile.estimate = false;
  if (std::isnan(quality)) {
    finish(index, "broken");
    return;
  }
  const double gained = quality - tile.assessed;
  const bool kept = keeps(index, quality);
  if (kept) {
    tile.best_iteration = tile.iteration;
    tile.quality = quality;
  }
  // A mean of n views with errors of their own gains 1 / n (n + 1) by one more.
  const double left = tile.mirrors() ? 2.0 * kUnseen / (tile.iteration * (tile.iteration + 1)) : kSettled;
  tile.gain = left * tile.area * quality_to_mse(quality) * tile.belief * tile.belief;
  const bool forced = tile.iteration < policy_.min_iterations;
  if (kept && enough(tile, quality)) {
    finish(index, "quality");
  } else if (!kept && !forced) {
    finish(index, "regression");
  } else if (gained < policy_.min_gain && !forced) {
    finish(index, "plateau");
  } else if (tile.iteration >= policy_.max_iterations) {
    finish(index, "iterations");
  }
  make_room(index);
}

bool Controller::keeps(std::size_t index, double quality) const {
  return !std::isnan(quality) && (!policy_.rollback || quality - tiles_[index].assessed >= -kTolerance);
}

void Controller::cancel() {
  if (reason_.empty()) reason_ = "cancelled";
}

double Controller::quality() const {
  if (tiles_.size() == 1) return tiles_[0].quality.value_or(0.0);
  double error = 0.0, area = 0.0;
  for (const TileState& tile : tiles_) {
    if (!tile.quality) continue;
    error += tile.area * quality_to_mse(*tile.quality);
    area += tile.area;
  }
  return area > 0.0 ? mse_to_quality(error / area) : 0.0;
}

int Controller::best_iteration() const {
  int best = 0;
  for (const TileState& tile : tiles_) best = std::max(best, tile.best_iteration);
  return best;
}

Controller::Rank Controller::rank(std::size_t index) const {
  const TileState& tile = tiles_[index];
  const bool later = tile.iteration >= std::max(1, policy_.min_iterations);
  double urgency = 0.0;
  if (later) {
    urgency = -tile.gain;
  } else if (!tile.quality) {
    urgency = surveyed_.count(index) > 0 ? -2.0 : 0.0;
  } else if (tile.iteration == 0) {
    urgency = -1.0;
  }
  return {later, urgency, tile.iteration, index};
}

double Controller::predicted_ms(std::size_t index) const {
  const TileState& tile = tiles_[index];
  const int encodes = look_is_due(tile) + !tile.estimate + original_is_missing(tile);
  return encodes * cost_.encode.upper() + cost_.refine.upper();
}

bool Controller::fits(std::size_t index, double elapsed_ms) const {
  const bool forced = tiles_[index].iteration < policy_.min_iterations;
  return !policy_.budget_ms || forced || elapsed_ms + predicted_ms(index) <= *policy_.budget_ms;
}

bool Controller::has_time_for_all() const {
  const double encode = cost_.encode.upper(), refine = cost_.refine.upper();
  const double all = encode + static_cast<double>(tiles_.size()) * (encode + refine);
  return !policy_.budget_ms || policy_.min_iterations > 0 || all <= *policy_.budget_ms;
}

std::optional<std::size_t> Controller::next(double elapsed_ms) const {
  std::vector<Rank> order;
  for (const std::size_t index : open_) order.push_back(rank(index));
  std::sort(order.begin(), order.end());
  for (const Rank& candidate : order) {
    if (fits(std::get<3>(candidate), elapsed_ms)) return std::get<3>(candidate);
  }
  return std::nullopt;
}

Action Controller::step(std::size_t index) const {
  const TileState& tile = tiles_[index];
  if (look_is_due(tile)) return {Kind::kLook, 0};
  if (!tile.estimate) return {tile.mirrors() ? Kind::kMirror : Kind::kEncode, index};
  return {original_is_missing(tile) ? Kind::kRecall : Kind::kRefine, index};
}

bool Controller::original_is_missing(const TileState& tile) { return !tile.original && tile.iteration > tile.views(); }

bool Controller::look_is_due(const TileState& tile) const { return looks_ && rounds_looked_at_ < tile.looks(); }

bool Controller::good_enough() const {
  if (!policy_.min_quality || quality() < *policy_.min_quality) return false;
  return std::all_of(tiles_.begin(), tiles_.end(), [this](const TileState& tile) {
    return tile.quality && (!tile.done.empty() || tile.iteration >= policy_.min_iterations);
  });
}

bool Controller::enough(const TileState& tile, double quality) const {
  return policy_.min_quality && tile.iteration >= policy_.min_iterations && quality >= *policy_.min_quality;
}

void Controller::finish(std::size_t index, const char* reason) {
  TileState& tile = tiles_[index];
  tile.done = last_ = reason;
  tile.original = tile.estimate = false;
  open_.erase(index);
  held_.erase(index);
}

void Controller::make_room(std::size_t working) {
  if (tiles_[working].original || tiles_[working].estimate) held_.insert(working);
  const auto kept = [this] {
    int sum = 0;
    for (const std::size_t index : held_) sum += weight(index);
    return sum;
  };
  while (kept() > keep_ && held_.size() > 1) {
    std::optional<std::size_t> least;
    for (const std::size_t index : held_) {
      // Ascending: of equal gains the highest index goes.
      if (index != working && (!least || tiles_[index].gain <= tiles_[*least].gain)) least = index;
    }
    if (!least) return;
    TileState& tile = tiles_[*least];
    if (tile.estimate && tile.iteration > 0) {
      tile.estimate = false;
    } else {
      tile.original = tile.estimate = false;
    }
    if (!tile.original && !tile.estimate) held_.erase(*least);
  }
}

int Controller::weight(std::size_t index) const {
  // Before its first iteration a tile's estimate is its original.
  const TileState& tile = tiles_[index];
  return tile.original + (tile.estimate && tile.iteration > 0);
}
