#include "conformance.h"

#include <cmath>
#include <cstdio>
#include <fstream>
#include <stdexcept>

#include "controller.h"
#include "quality.h"
#include "routing.h"
#include "tiles.h"

using Json = nlohmann::ordered_json;

namespace {

// JSON has no NaN: null stands for it.
double number(const Json& value) { return value.is_null() ? std::nan("") : value.get<double>(); }

std::vector<double> numbers(const Json& values) {
  std::vector<double> result;
  for (const auto& value : values) result.push_back(number(value));
  return result;
}

Json play_estimate(const Json& given) {
  Estimate estimate{given.at("start").at(0), given.at("start").at(1), {}};
  for (const auto& value : given.at("observe")) estimate = estimate.observe(value);
  return {{"mean", estimate.mean}, {"deviation", estimate.deviation}, {"upper", estimate.upper()}};
}

Json play_mean(const Json& given) {
  return {{"quality", quality_of_mean(given.at("one"), given.value("count", 1), given.at("other"), given.at("difference"))}};
}

Json play_controller(const Json& given) {
  const Json &cost = given.at("cost"), &tiles = given.at("tiles");
  const auto estimate = [](const Json& pair) { return Estimate{pair.at(0), pair.at(1), {}}; };
  Controller controller(policy_from(given.at("policy")), {estimate(cost.at("encode")), estimate(cost.at("refine"))},
                        given.value("areas", std::vector<double>{1.0}), given.value("looks", false),
                        given.value("keep", 1'000'000));
  double elapsed = given.value("started_ms", 0.0);
  const double idle = given.value("idle_ms", 0.0);
  Json actions = Json::array();
  int looks = 0;
  for (Action action = controller.choose(elapsed); action.kind != Kind::kStop; action = controller.choose(elapsed)) {
    const auto iteration = static_cast<std::size_t>(controller.tiles()[action.tile].iteration);
    const std::string tile = " " + std::to_string(action.tile);
    double ms = 0.0;
    if (action.kind == Kind::kLook) {
      actions.push_back("look");
      ms = given.at("look_ms");
      controller.looked(ms, given.value("survey", false) && looks++ == 0);
    } else if (action.kind == Kind::kEncode) {
      actions.push_back("encode" + tile);
      const auto& row = tiles.at(action.tile).at("encode").at(iteration);
      const auto& promised = tiles.at(action.tile).at("prospect");
      ms = row.at(1);
      controller.encoded(action.tile, number(row.at(0)), {promised.at(0), promised.at(1), promised.at(2)}, ms);
    } else if (action.kind == Kind::kMirror) {
      actions.push_back("mirror" + tile);
      ms = tiles.at(action.tile).at("encode").at(iteration).at(1);
      controller.mirrored(action.tile, ms);
    } else if (action.kind == Kind::kRecall) {
      actions.push_back("recall" + tile);
      ms = tiles.at(action.tile).at("encode").at(0).at(1);
      controller.recalled(action.tile, ms);
    } else {
      actions.push_back("refine" + tile);
      const auto& row = tiles.at(action.tile).at("refine").at(iteration);
      ms = row.at(1);
      controller.refined(action.tile, number(row.at(0)), ms, row.at(2));
    }
    elapsed += ms + idle;
    if (given.contains("cancel_after") && actions.size() == given.at("cancel_after")) controller.cancel();
  }
  Json iterations = Json::array(), kept = Json::array();
  for (const TileState& tile : controller.tiles()) {
    iterations.push_back(tile.iteration);
    kept.push_back(tile.best_iteration);
  }
  return {{"actions", actions},           {"reason", controller.reason()}, {"iterations", iterations},
          {"kept", kept}, {"quality", controller.quality()}, {"elapsed_ms", elapsed}};
}

Json play_routing(const Json& given) {
  const Routing routing = routing_from(given.at("routing"));
  auto logits = numbers(given.at("logits"));
  std::vector<std::vector<double>> looks;
  if (given.contains("looks")) {
    for (const auto& look : given.at("looks")) looks.push_back(numbers(look));
  }
  logits = agreed_logits(routing, looks, logits);
  Json gates = Json::object();
  for (const auto& [name, gate] : route(routing, number(given.at("granularity")), logits)) gates[name] = gate;
  const Prospect promised = prospect(routing, logits);
  Json results = {{"gates", gates},
                  {"method", refiner(routing, logits)},
                  {"prospect", {{"belief", promised.belief}, {"variance", promised.variance}, {"upright", promised.upright}}}};
  constexpr const char* kSources[] = {"own", "look", "mean"};
  if (!looks.empty()) results["tokens"] = kSources[static_cast<int>(token_source(routing, looks.front()))];
  return results;
}

Json play_plan(const Json& given) {
  const TilePlan plan = plan_tiles(given.at("height"), given.at("width"), given.at("tile"), given.at("overlap"));
  auto areas = plan.areas();
  if (areas.size() > 12) areas.resize(3);
  Json weights = Json::array();
  for (const auto& point : given.at("points")) {
    const std::size_t row = point.at(0), column = point.at(1), y = point.at(2), x = point.at(3);
    weights.push_back({row, column, y, x, plan.down.at(row).at(y) * plan.across.at(column).at(x)});
  }
  const Size small = small_size(plan.height, plan.width, plan.tile);
  return {{"rows", plan.rows}, {"columns", plan.columns}, {"areas", areas}, {"weights", weights},
          {"small", {small.height, small.width}}};
}

}  // namespace

void run_conformance(const std::string& path) {
  std::ifstream stream(path);
  if (!stream) throw std::runtime_error("cannot read " + path);
  const Json file = Json::parse(stream);
  Json results = Json::object();
  for (const auto& [section, cases] : file.items()) {
    // A runner keeps no estimate from one restoration to the next.
    if (!cases.is_array() || section == "refusals") continue;
    results[section] = Json::array();
    for (const auto& given : cases) {
      if (section == "estimates") {
        results[section].push_back(play_estimate(given));
      } else if (section == "means") {
        results[section].push_back(play_mean(given));
      } else if (section == "plans") {
        results[section].push_back(play_plan(given));
      } else if (given.contains("routing")) {
        // Gates that a caller states are checked before a job is made; no runner sees them unchecked.
        results[section].push_back(given.contains("given") ? Json() : play_routing(given));
      } else {
        results[section].push_back(play_controller(given));
      }
    }
  }
  std::printf("%s\n", results.dump().c_str());
}
