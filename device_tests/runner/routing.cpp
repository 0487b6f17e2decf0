#include "routing.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>

std::vector<std::string> Routing::leaves() const {
  std::vector<std::string> all;
  for (const auto& [parent, children] : tree) all.insert(all.end(), children.begin(), children.end());
  return all;
}

Routing routing_from(const nlohmann::ordered_json& values) {
  Routing routing;
  // ordered_json: the order of the tree is the order of the experts' ranks.
  for (const auto& [parent, children] : values.at("tree").items()) {
    routing.tree.emplace_back(parent, children.get<std::vector<std::string>>());
  }
  routing.threshold = values.at("threshold");
  routing.softness = values.at("softness");
  routing.top = values.at("top");
  routing.whole = values.at("whole").get<std::set<std::string>>();
  routing.likely = values.value("likely", std::map<std::string, double>());
  routing.uneven = values.at("uneven").get<std::set<std::string>>();
  routing.look_tokens = values.value("look_tokens", std::set<std::string>());
  routing.mean_tokens = values.value("mean_tokens", std::set<std::string>());
  routing.specialists = values.value("specialists", std::set<std::string>());
  routing.certain = values.value("certain", std::map<std::string, double>());
  routing.variance = values.value("variance", std::map<std::string, double>());
  return routing;
}

double sigmoid(double x) {
  if (std::isnan(x)) return 0.0;  // what a broken assessment says is not believed
  return x >= 0 ? 1.0 / (1.0 + std::exp(-x)) : std::exp(x) / (1.0 + std::exp(x));
}

Gates route(const Routing& routing, double granularity, const std::vector<double>& logits) {
  if (logits.size() != routing.leaves().size()) throw std::runtime_error("an assessment has another number of leaves than the tree");
  const double confidence = sigmoid((routing.threshold - granularity) / routing.softness);
  Gates parents, leaves;
  std::size_t next = 0;
  for (const auto& [parent, children] : routing.tree) {
    double strongest = 0.0;
    for (const auto& leaf : children) {
      const double belief = sigmoid(logits[next++]);
      strongest = std::max(strongest, belief);
      leaves.emplace_back(leaf, confidence * belief);
    }
    parents.emplace_back(parent, (1 - confidence) * strongest);
  }
  Gates gates = parents;
  gates.insert(gates.end(), leaves.begin(), leaves.end());
  std::vector<std::size_t> order(gates.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  // Stable: ties go to the expert that comes first.
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return gates[a].second > gates[b].second; });
  for (std::size_t place = routing.top; place < order.size(); ++place) gates[order[place]].second = 0.0;
  return gates;
}

// Logit above which what is said of a whole picture is believed (a belief of 0.73).
static constexpr double kLikely = 1.0;

// Logit above which a look is believed of a leaf.
static double least_likely(const Routing& routing, const std::string& leaf) {
  const auto known = routing.likely.find(leaf);
  return known == routing.likely.end() ? kLikely : known->second;
}

std::vector<double> agreed_logits(const Routing& routing, const std::vector<std::vector<double>>& looks,
                                  const std::vector<double>& tile) {
  if (looks.empty()) return tile;
  const auto &first = looks.front(), &look = looks.back();
  std::vector<double> logits = tile;
  const auto leaves = routing.leaves();
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    if (routing.whole.count(leaves[i]) == 0 || std::isnan(look.at(i))) continue;
    constexpr double kNo = -std::numeric_limits<double>::infinity();
    const bool likely = look.at(i) > least_likely(routing, leaves[i]);
    const double both = look.at(i) + tile.at(i);
    if (routing.uneven.count(leaves[i]) == 0 || std::isnan(tile.at(i))) {
      logits.at(i) = likely && !(first.at(i) <= 0.0) ? look.at(i) : kNo;
    } else if (likely) {
      logits.at(i) = std::max(look.at(i), tile.at(i));
    } else {
      logits.at(i) = both > kLikely ? both : kNo;
    }
  }
  return logits;
}

std::string refiner(const Routing& routing, const std::vector<double>& logits) {
  const auto leaves = routing.leaves();
  std::vector<double> beliefs;
  for (const double logit : logits) beliefs.push_back(sigmoid(logit));
  const auto likeliest = std::max_element(beliefs.begin(), beliefs.end());
  const auto& leaf = leaves.at(likeliest - beliefs.begin());
  const bool alone = std::count_if(beliefs.begin(), beliefs.end(), [](double belief) { return belief > 0.5; }) <= 1;
  const auto certain = routing.certain.find(leaf);
  const double least = certain == routing.certain.end() ? 0.5 : certain->second;
  const bool asked = routing.specialists.count(leaf) > 0 && *likeliest > least;
  return alone && asked ? std::string(kRefine) + "_" + leaf : kRefine;
}

// The share of leaves that `Routing::variance` does not name.
static constexpr double kUnknownVariance = 0.1;

Prospect prospect(const Routing& routing, const std::vector<double>& logits) {
  Prospect promised;
  double total = 0.0, weighted = 0.0;
  const auto leaves = routing.leaves();
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    const double belief = sigmoid(logits.at(i));
    const auto known = routing.variance.find(leaves[i]);
    promised.belief = std::max(promised.belief, belief);
    promised.upright = promised.upright || (routing.whole.count(leaves[i]) > 0 && belief > 0.5);
    total += belief;
    weighted += belief * (known == routing.variance.end() ? kUnknownVariance : known->second);
  }
  if (total > 0.0) promised.variance = weighted / total;
  return promised;
}

TokenSource token_source(const Routing& routing, const std::vector<double>& look) {
  const auto leaves = routing.leaves();
  TokenSource source = TokenSource::kOwn;
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    const double told = look.at(i);
    if (routing.look_tokens.count(leaves[i]) > 0 && told > least_likely(routing, leaves[i])) return TokenSource::kLook;
    if (routing.mean_tokens.count(leaves[i]) > 0 && told > 0.0) source = TokenSource::kMean;
  }
  return source;
}
