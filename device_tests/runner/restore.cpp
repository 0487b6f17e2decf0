#include "restore.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "quality.h"
#include "rounds.h"

namespace {

// A result this much darker than what it came from is broken, unless that was nearly black itself.
constexpr double kDarker = 0.02, kNearlyBlack = 4.0 / 255.0;

double mean_of(const Tensor& tensor) {
  double sum = 0.0;
  for (const float value : tensor.data) sum += value;
  return sum / static_cast<double>(tensor.data.size());
}

bool broken(const Tensor& restored, const Tensor& source) {
  const double level = mean_of(restored), before = mean_of(source);
  return !std::isfinite(level) || (before > kNearlyBlack && level < kDarker * before);
}

struct Mean {
  Tensor picture;
  double quality, difference;
};

// The mean of `count` restorations, of predicted `quality`, joined by an `other`; the quality to expect of it; the mean squared
// difference of what was joined.
Mean joined(Tensor one, double quality, int count, const Tensor& other, double others) {
  double difference = 0.0;
  for (std::size_t i = 0; i < one.data.size(); ++i) {
    const float second = std::clamp(other.data[i], 0.0f, 1.0f);
    const double apart = one.data[i] - second;
    difference += apart * apart;
    one.data[i] = (static_cast<float>(count) * one.data[i] + second) / static_cast<float>(count + 1);
  }
  difference /= static_cast<double>(one.data.size());
  return {std::move(one), quality_of_mean(quality, count, others, difference), difference};
}

// Mean of tiles' tokens by their shares of the picture.
Tensor mean_tokens(const std::vector<std::pair<double, Tensor>>& survey) {
  Tensor mean = survey.front().second;
  double total = 0.0;
  for (const auto& [area, tokens] : survey) total += area;
  for (std::size_t i = 0; i < mean.data.size(); ++i) {
    double sum = 0.0;
    for (const auto& [area, tokens] : survey) sum += area * tokens.data[i];
    mean.data[i] = static_cast<float>(sum / total);
  }
  return mean;
}

class Run {
 public:
  Run(Program& program, const RestoreTask& task, const Pixels& picture)
      : program_(program),
        task_(task),
        picture_(picture),
        plan_(plan_tiles(picture.height, picture.width, task.tile)),
        controller_(task.policy, {}, plan_.areas(), plan_.count() > 1, task.keep),
        rounds_(plan_.areas()),
        began_(now_ms()) {
    const std::size_t count = plan_.count();
    for (std::size_t i = 0; i < count; ++i) current_.push_back(crop(picture_, plan_.region(i)));
    kept_ = current_;
    predicted_.resize(count);
    originals_.resize(count);
    estimates_.resize(count);
    gates_.resize(count);
    methods_.resize(count);
    beliefs_.resize(count);
    steps_.push_back(picture_);
  }

  Json go() {
    for (Action action = controller_.choose(elapsed()); action.kind != Kind::kStop; action = controller_.choose(elapsed())) {
      if (action.kind == Kind::kLook) {
        look();
      } else if (action.kind == Kind::kEncode || action.kind == Kind::kMirror) {
        encode(action.tile);
      } else if (action.kind == Kind::kRecall) {
        recall(action.tile);
      } else {
        refine(action.tile);
      }
    }
    if (rounds_.open()) steps_.push_back(canvas());
    return {{"iteration", controller_.best_iteration()}, {"quality", controller_.quality()},
            {"reason", controller_.reason()},            {"elapsed_ms", elapsed()},
            {"tiles", plan_.count()},                    {"steps", rounds_.rows(controller_.quality())},
            {"trace", trace_}};
  }

  Pixels canvas() const { return blend(kept_, plan_); }
  const std::vector<Pixels>& steps() const { return steps_; }

 private:
  double elapsed() const { return now_ms() - began_; }

  double calibrated(double quality) const {
    return std::isnan(quality) ? quality : std::clamp(task_.slope * quality + task_.offset, 0.0, 1.0);
  }

  void record(const char* ran, std::size_t tile, int iteration, double ms, std::optional<double> quality, const Json& more = {}) {
    const Json said = quality && !std::isnan(*quality) ? Json(*quality) : Json();
    trace_.push_back({{"ran", ran}, {"tile", tile}, {"iteration", iteration}, {"cost_ms", ms}, {"elapsed_ms", elapsed()},
                      {"quality", said}, {"broken", quality && std::isnan(*quality)}});
    if (more.is_object()) trace_.back().update(more);
    rounds_.spent(ms, elapsed(), (*ran == 'l' || *ran == 'e') && iteration == 0);
  }

  void look() {
    const double before = elapsed();
    const Pixels whole = canvas();
    const Encoded look = program_.encode(to_program(make_small(whole, task_.tile), task_.tile));
    const TokenSource source = looks_.empty() ? token_source(task_.routing, look.logits) : TokenSource::kOwn;
    if (source == TokenSource::kLook) tokens_ = look.tokens;
    looks_.push_back(look.logits);
    const double ms = elapsed() - before;
    controller_.looked(ms, source == TokenSource::kMean);
    record("look", 0, static_cast<int>(looks_.size()) - 1, ms, {});
  }

  Tensor original_of(std::size_t index) const { return to_program(crop(picture_, plan_.region(index)), task_.tile); }

  // What a tile's next iteration starts from.
  Tensor source_of(std::size_t index) const {
    if (const int view = controller_.tiles()[index].view()) return mirror(original_of(index), view);
    return to_program(current_[index], task_.tile);
  }

  void encode(std::size_t index) {
    const double before = elapsed();
    auto encoded = std::make_shared<OwnedEncoded>(program_.encode(source_of(index)));
    const double ms = elapsed() - before;
    const Encoded& said = encoded->get();
    const TileState& tile = controller_.tiles()[index];
    if (controller_.surveys() && !tokens_ && !tile.quality) survey_.emplace_back(tile.area, said.tokens);
    const int iteration = controller_.tiles()[index].iteration;
    const auto rounds = std::min<std::size_t>(tile.looks(), looks_.size());
    const std::vector<std::vector<double>> looks(looks_.begin(), looks_.begin() + rounds);
    const auto logits = agreed_logits(task_.routing, looks, said.logits);
    gates_[index] = route(task_.routing, said.granularity, logits);
    // What a restoration left is not what a specialist learnt from, so that it takes views of the picture as it came alone.
    methods_[index] = tile.view() == iteration ? refiner(task_.routing, logits) : kRefine;
    beliefs_[index].clear();
    const auto leaves = task_.routing.leaves();
    for (std::size_t i = 0; i < leaves.size(); ++i) beliefs_[index].emplace_back(leaves[i], sigmoid(logits[i]));
    estimates_[index] = encoded;
    if (tile.view()) {
      controller_.mirrored(index, ms);
      record("mirror", index, iteration, ms, {});
      forget();
      return;
    }
    if (iteration == 0) originals_[index] = encoded;
    const double quality = calibrated(said.quality);
    const Prospect promised = prospect(task_.routing, logits);
    controller_.encoded(index, quality, promised, ms);
    record("encode", index, iteration, ms, quality, {{"prospect", {promised.belief, promised.variance, promised.upright}}});
    if (iteration == 0) {
      rounds_.started(index, quality, beliefs_[index]);
      ended(index);
    }
    forget();
  }

  void recall(std::size_t index) {
    const double before = elapsed();
    originals_[index] = std::make_shared<OwnedEncoded>(program_.encode(original_of(index)));
    const double ms = elapsed() - before;
    controller_.recalled(index, ms);
    record("recall", index, controller_.tiles()[index].iteration, ms, {});
    forget();
  }

  void refine(std::size_t index) {
    const double before = elapsed();
    const Tensor source = source_of(index);
    const int view = controller_.tiles()[index].view();
    Tensor weights{{1, static_cast<std::int64_t>(gates_[index].size() * task_.rank), 1, 1}, {}};
    for (const auto& [name, weight] : gates_[index]) {
      weights.data.insert(weights.data.end(), task_.rank, static_cast<float>(weight));
    }
    const auto& original = view ? estimates_[index] : originals_[index];
    const Encoded& estimate = estimates_[index]->get();
    if (!survey_.empty() && !tokens_) tokens_ = mean_tokens(survey_);
    const Tensor& tokens = tokens_ ? *tokens_ : estimate.tokens;
    const Refined refined = program_.refine(source, original->get(), estimate, tokens, weights, methods_[index]);
    Tensor restored = copy_of(refined.restored);
    double quality = calibrated(broken(restored, source) ? std::nan("") : refined.quality), difference = 0.0;
    if (!std::isnan(quality)) {
      if (view) {
        Mean mean = joined(to_program(current_[index], task_.tile), predicted_[index], view, mirror(restored, view), quality);
        restored = std::move(mean.picture);
        quality = mean.quality;
        difference = mean.difference;
      }
      predicted_[index] = quality;
      current_[index] = from_program(restored, current_[index]);
      if (controller_.keeps(index, quality)) kept_[index] = current_[index];
    }
    const double ms = elapsed() - before;
    controller_.refined(index, quality, ms, difference);
    record("refine", index, controller_.tiles()[index].iteration, ms, quality, {{"difference", difference}});
    rounds_.refined(index, gates_[index], beliefs_[index]);
    ended(index);
    forget();
  }

  void ended(std::size_t index) {
    const TileState& tile = controller_.tiles()[index];
    const bool over = rounds_.reached(index, tile.iteration, !tile.done.empty(), controller_.quality());
    if (over && task_.keep_steps) steps_.push_back(canvas());
  }

  // Lets go of the features that the controller gave up.
  void forget() {
    for (std::size_t i = 0; i < plan_.count(); ++i) {
      if (!controller_.tiles()[i].original) originals_[i].reset();
      if (!controller_.tiles()[i].estimate) estimates_[i].reset();
    }
  }

  Program& program_;
  const RestoreTask& task_;
  const Pixels& picture_;
  TilePlan plan_;
  Controller controller_;
  Rounds rounds_;
  double began_;
  // Degradation logits of every round's look: a tile goes by its own round's, since a later one sees others further.
  std::vector<std::vector<double>> looks_;
  // What a tile does not see of the picture it is of: tokens of the first look or, once a tile is refined, the mean of those that
  // were encoded before.
  std::optional<Tensor> tokens_;
  std::vector<std::pair<double, Tensor>> survey_;
  std::vector<Pixels> current_, kept_, steps_;
  std::vector<double> predicted_;  // of `current_`
  std::vector<std::shared_ptr<OwnedEncoded>> originals_, estimates_;
  std::vector<Gates> gates_, beliefs_;
  std::vector<std::string> methods_;  // that refine each tile
  Json trace_ = Json::array();
};

}  // namespace

RestoreTask restore_task_from(const Json& values) {
  RestoreTask task;
  task.tile = values.at("tile");
  task.rank = values.at("rank");
  task.keep = values.at("keep");
  if (task.tile < 1 || task.tile > 4096 || task.rank < 1 || task.keep < 1) {
    throw std::runtime_error("the job's tile, rank or keep is impossible");
  }
  task.routing = routing_from(values.at("routing"));
  task.policy = policy_from(values.at("policy"));
  task.slope = values.at("calibration").at("slope");
  task.offset = values.at("calibration").at("offset");
  task.keep_steps = values.at("keep_steps");
  return task;
}

Json restore(Program& program, const RestoreTask& task, const std::string& name, const Pixels& picture, Pictures& out) {
  Run run(program, task, picture);
  Json trace{{"name", name}};
  trace.update(run.go());
  out[name] = run.canvas();
  if (task.keep_steps) {
    for (std::size_t i = 0; i < run.steps().size(); ++i) out[name + "." + std::to_string(i)] = run.steps()[i];
  }
  return trace;
}
