// Gathers the steps of tiles into rows of the whole picture, a row a round of iterations; the same as burnish.runtime.rounds.
#pragma once

#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "routing.h"

class Rounds {
 public:
  explicit Rounds(std::vector<double> areas);

  bool open() const { return now_.area > 0; }
  // A step took `ms`; `first`: it belongs to the assessment of the picture as it came.
  void spent(double ms, double elapsed_ms, bool first);
  void started(std::size_t index, double quality, const Gates& degradations);
  void refined(std::size_t index, const Gates& gates, const Gates& degradations);
  // A tile got so far; whether that ended the round, with the picture's quality.
  bool reached(std::size_t index, int iteration, bool done, double quality);
  nlohmann::ordered_json rows(double quality) const;

 private:
  struct Sums {
    double cost_ms = 0.0, elapsed_ms = 0.0, area = 0.0, error = 0.0;
    nlohmann::ordered_json gates = nlohmann::ordered_json::object(), degradations = nlohmann::ordered_json::object();

    void add(double share, const Gates& more_gates, const Gates& more_degradations);
    nlohmann::ordered_json row(std::size_t iteration, double quality) const;
  };

  int round() const;

  std::vector<double> areas_;
  nlohmann::ordered_json rows_ = nlohmann::ordered_json::array();
  Sums start_, now_;
  std::set<std::size_t> done_, missing_;
  std::vector<int> iterations_;
};
