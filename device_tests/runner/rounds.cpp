#include "rounds.h"

#include <algorithm>

#include "quality.h"

using Json = nlohmann::ordered_json;

namespace {

void add_to(Json& total, double share, const Gates& values) {
  for (const auto& [name, value] : values) total[name] = total.value(name, 0.0) + share * value;
}

Json mean(const Json& total, double area) {
  Json result = Json::object();
  for (const auto& [name, value] : total.items()) result[name] = value.get<double>() / area;
  return result;
}

}  // namespace

void Rounds::Sums::add(double share, const Gates& more_gates, const Gates& more_degradations) {
  area += share;
  add_to(gates, share, more_gates);
  add_to(degradations, share, more_degradations);
}

Json Rounds::Sums::row(std::size_t iteration, double quality) const {
  return {{"iteration", iteration},   {"quality", quality},           {"cost_ms", cost_ms},
          {"elapsed_ms", elapsed_ms}, {"gates", mean(gates, area)}, {"degradations", mean(degradations, area)}};
}

Rounds::Rounds(std::vector<double> areas) : areas_(std::move(areas)), iterations_(areas_.size(), 0) {
  for (std::size_t index = 0; index < areas_.size(); ++index) missing_.insert(index);
}

void Rounds::spent(double ms, double elapsed_ms, bool first) {
  Sums& sums = first ? start_ : now_;
  sums.cost_ms += ms;
  sums.elapsed_ms = elapsed_ms;
}

void Rounds::started(std::size_t index, double quality, const Gates& degradations) {
  start_.add(areas_[index], {}, degradations);
  start_.error += areas_[index] * quality_to_mse(quality);
}

void Rounds::refined(std::size_t index, const Gates& gates, const Gates& degradations) {
  now_.add(areas_[index], gates, degradations);
}

bool Rounds::reached(std::size_t index, int iteration, bool done, double quality) {
  iterations_[index] = iteration;
  if (done) done_.insert(index);
  if (iteration >= round() || done) missing_.erase(index);
  if (!missing_.empty() || !open()) return false;
  rows_ = rows(quality);
  now_ = {};
  for (std::size_t i = 0; i < iterations_.size(); ++i) {
    if (iterations_[i] < round() && done_.count(i) == 0) missing_.insert(i);
  }
  return true;
}

Json Rounds::rows(double quality) const {
  Json rows = rows_;
  if (rows.empty() && start_.area > 0) rows.push_back(start_.row(0, mse_to_quality(start_.error / start_.area)));
  if (open()) rows.push_back(now_.row(rows.size(), quality));
  return rows;
}

int Rounds::round() const { return std::max(1, static_cast<int>(rows_.size())); }
