// From an assessment to the experts' gates; the same as burnish.runtime.routing.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

// Experts in the order of the stacked ranks: parents, then leaves.
using Gates = std::vector<std::pair<std::string, double>>;

// What the assessment of a picture as it came promises: the belief in its likeliest degradation, the share of a restoration's error
// that differs from view to view, and whether it is not to be turned upside down.
struct Prospect {
  double belief = 0.0;
  double variance = 0.0;
  bool upright = false;
};

struct Routing {
  std::vector<std::pair<std::string, std::vector<std::string>>> tree;
  double threshold = 0.0;
  double softness = 1.0;
  std::size_t top = 1;
  std::set<std::string> whole;   // leaves judged by a look at the whole picture
  std::map<std::string, double> likely;  // logit above which it is believed, by leaf
  std::set<std::string> uneven;  // of these, those that tiles judge too
  std::set<std::string> look_tokens;  // where the first look finds one of these likely, tiles take its tokens
  std::set<std::string> mean_tokens;  // where one of these likelier than not, the mean of all tiles' tokens
  std::set<std::string> specialists;  // leaves with a refiner of their own, for what has nothing else
  std::map<std::string, double> certain;  // belief above which a leaf's specialist is asked, by leaf
  std::map<std::string, double> variance;  // of a prospect, by leaf

  std::vector<std::string> leaves() const;
};

Routing routing_from(const nlohmann::ordered_json& values);
double sigmoid(double x);
// Throws std::runtime_error when there are not as many logits as leaves.
Gates route(const Routing& routing, double granularity, const std::vector<double>& logits);
// A tile's logits: of `whole` leaves the look's of its round, if it says anything, and -inf where that is not likely or the first
// look denied it; of `uneven` ones the larger of both, or where the look's is not likely their sum, if it is above 1. `looks`: of
// every round up to the tile's own; none for a picture of one tile.
std::vector<double> agreed_logits(const Routing& routing, const std::vector<std::vector<double>>& looks,
                                  const std::vector<double>& tile);
// The method that refines what no specialist does.
inline constexpr char kRefine[] = "refine";
// The method that refines a tile which came with these logits: the specialist's of the likeliest leaf where that is believed above
// 0.5, or what `certain` says of it, and no other above 0.5; else refine.
std::string refiner(const Routing& routing, const std::vector<double>& logits);
// Of a tile with these logits. A runner knows no gates that a caller states, and its own open no further than it believes.
Prospect prospect(const Routing& routing, const std::vector<double>& logits);
// Whose tokens a refine of a tile asks.
enum class TokenSource { kOwn, kLook, kMean };

// Whose tokens tiles take after a first look with these logits.
TokenSource token_source(const Routing& routing, const std::vector<double>& look);
