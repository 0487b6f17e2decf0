#include "controller.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "quality.h"

namespace {

// A predicted loss is believed from here on, 2 dB: less is within the heads' scatter.
constexpr double kTolerance = 0.05;

std::optional<double> optional_of(const nlohmann::ordered_json& value) {
  return value.is_null() ? std::nullopt : std::optional<double>(value.get<double>());
}

// By how much a tile's next iteration is expected to lower its error. A mean of n views has v / n of what differs from view to view,
// and differs from the last one by v n / (n - 1) before that joins; of the first, v is a share of the error. Going on gains nothing.
double expected(const TileState& tile, double quality, double difference) {
  const double count = tile.iteration;
  if (tile.view() == 0) return 0.0;
  if (tile.iteration == 1) return tile.prospect.variance * quality_to_mse(quality) / 2;
  return difference * (count - 1) / (count * count * (count + 1));
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

void Controller::encoded(std::size_t index, double quality, const Prospect& prospect, double ms) {
  cost_.encode = cost_.encode.observe(ms);
  TileState& tile = tiles_[index];
  if (std::isnan(quality)) quality = 0.0;
  tile.estimate = true;
  if (tile.iteration == tile.best_iteration) tile.assessed = quality;
  if (tile.iteration == 0) {
    tile.original = true;
    if (!tile.quality) {
      tile.prospect = prospect;
      tile.gain = tile.area * quality_to_mse(quality) * prospect.belief * prospect.belief;
      tile.quality = quality;
      if (enough(tile, quality)) {
        finish(index, "quality");
      } else if (settled(tile, quality)) {
        finish(index, "plateau");
      }
    }
  }
  make_room(index);
}

void Controller::mirrored(std::size_t index, double ms) {
  cost_.encode = cost_.encode.observe(ms);
  TileState& tile = tiles_[index];
  tile.estimate = true;
  tile.assessed = std::max(tile.assessed, tile.quality.value_or(0.0));
  make_room(index);
}

void Controller::recalled(std::size_t index, double ms) {
  cost_.encode = cost_.encode.observe(ms);
  tiles_[index].original = true;
  make_room(index);
}

void Controller::refined(std::size_t index, double quality, double ms, double difference) {
  cost_.refine = cost_.refine.observe(ms);
  TileState& tile = tiles_[index];
  ++tile.iteration;
  tile.estimate = false;
  if (std::isnan(quality)) {
    finish(index, "broken");
    return;
  }
  const bool kept = keeps(index, quality);
  if (kept) {
    tile.best_iteration = tile.iteration;
    tile.quality = quality;
  }
  tile.gain = tile.area * expected(tile, quality, difference);
  const bool forced = tile.iteration < policy_.min_iterations;
  if (kept && enough(tile, quality)) {
    finish(index, "quality");
  } else if (!kept && !forced) {
    finish(index, "regression");
  } else if (settled(tile, quality)) {
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
  if (reason_.empty()) reason_ = open_.empty() ? last_ : "cancelled";
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
    urgency = -1.0 - tile.gain;
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
  if (look_is_due(tile)) return {Kind::kLook, index};
  if (!tile.estimate) return {tile.view() ? Kind::kMirror : Kind::kEncode, index};
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

bool Controller::settled(const TileState& tile, double quality) const {
  const double worth = quality_to_mse(quality) - quality_to_mse(quality + policy_.min_gain);
  return tile.iteration >= policy_.min_iterations && tile.gain <= tile.area * worth;
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
