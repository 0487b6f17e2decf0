// Says what to do next with which tile, and why to stop; the same as burnish.runtime.controller, by docs/conformance.md.
#pragma once

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "cost.h"
#include "routing.h"

struct Policy {
  std::optional<double> budget_ms;
  std::optional<double> min_quality;
  int max_iterations = 4;
  int min_iterations = 0;
  double min_gain = 0.001;
  bool rollback = true;
};

// Throws std::runtime_error for a key it does not know.
Policy policy_from(const nlohmann::ordered_json& values);

enum class Kind { kLook, kEncode, kMirror, kRecall, kRefine, kStop };

// Mirror images that a tile is restored in: left and right exchanged, upside down, both.
constexpr int kViews = 3;

struct Action {
  Kind kind = Kind::kStop;
  std::size_t tile = 0;
};

struct TileState {
  double area = 1.0;
  int iteration = 0;
  int best_iteration = 0;
  std::optional<double> quality;
  // What the next refine is compared with: the kept picture's quality as encode, not the refine before, saw it, if it did; of a view
  // the best that was said of those it joins.
  double assessed = 0.0;
  Prospect prospect;
  // By how much the next iteration is expected to lower the picture's error.
  double gain = std::numeric_limits<double>::infinity();
  bool original = false;
  bool estimate = false;
  std::string done;

  // Mirror images that it is restored in.
  int views() const { return prospect.upright ? 1 : kViews; }
  // The one that its next iteration restores; 0 where that goes on from the last result.
  int view() const { return iteration <= views() ? iteration : 0; }
  // Looks at the whole picture that its next iteration goes by; all of its views go by the first one's.
  int looks() const { return std::max(1, iteration - views() + 1); }
};

class Controller {
 public:
  Controller(Policy policy, CostModel cost, const std::vector<double>& areas, bool looks, int keep);

  Action choose(double elapsed_ms);
  // `survey`: tiles are to be encoded before the first is refined, as far as time and room allow.
  void looked(double ms, bool survey);
  // `prospect` counts the first time alone.
  void encoded(std::size_t index, double quality, const Prospect& prospect, double ms);
  void mirrored(std::size_t index, double ms);
  void recalled(std::size_t index, double ms);
  // `difference`: of a view, the mean squared difference of its restoration from the mean that it joined.
  void refined(std::size_t index, double quality, double ms, double difference);
  // Whether the picture shall show what a refine gave, by its predicted quality; no when that is NaN.
  bool keeps(std::size_t index, double quality) const;
  void cancel();

  double quality() const;
  int best_iteration() const;
  const std::string& reason() const { return reason_; }
  // Whether tiles are encoded, or were, before the first is refined.
  bool surveys() const { return !surveyed_.empty(); }
  const std::vector<TileState>& tiles() const { return tiles_; }

 private:
  // What is smallest goes first: later; before that its part in the survey, then minus gain; iteration, index.
  using Rank = std::tuple<bool, double, int, std::size_t>;

  Rank rank(std::size_t index) const;
  double predicted_ms(std::size_t index) const;
  bool fits(std::size_t index, double elapsed_ms) const;
  bool has_time_for_all() const;
  std::optional<std::size_t> next(double elapsed_ms) const;
  Action step(std::size_t index) const;
  bool look_is_due(const TileState& tile) const;
  // Whether the next iteration wants features that were given up; that of a mirror image reads none of the original.
  static bool original_is_missing(const TileState& tile);
  bool good_enough() const;
  bool enough(const TileState& tile, double quality) const;
  // Whether a tile of this quality has no iteration to come that is worth it, or forced.
  bool settled(const TileState& tile, double quality) const;
  void finish(std::size_t index, const char* reason);
  void make_room(std::size_t working);
  int weight(std::size_t index) const;

  Policy policy_;
  CostModel cost_;
  bool looks_;
  int keep_;
  int rounds_looked_at_ = 0;
  std::vector<TileState> tiles_;
  std::set<std::size_t> open_, held_, surveyed_;
  std::string reason_, last_ = "iterations";
};
