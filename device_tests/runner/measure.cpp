#include "measure.h"

#include <executorch/devtools/etdump/etdump_flatcc.h>
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <stdexcept>

namespace {

const Tensor& sample(const Tensors& samples, const std::string& name) {
  const auto found = samples.find(name);
  if (found == samples.end()) throw std::runtime_error("the job's samples lack " + name);
  return found->second;
}

// A sample's picture, the estimate that is refined (the picture itself where none is given) and its gates.
struct Sample {
  const Tensor* image;
  const Tensor* current;
  const Tensor* gates;

  Sample(const Tensors& samples, int index) {
    const std::string prefix = std::to_string(index) + ".";
    image = &sample(samples, prefix + "image");
    gates = &sample(samples, prefix + "gates");
    const auto found = samples.find(prefix + "current");
    current = found == samples.end() ? image : &found->second;
  }
};

int count_of(const Tensors& samples) {
  int count = 0;
  while (samples.count(std::to_string(count) + ".image") != 0) ++count;
  return count;
}

// All outputs of both methods, to compare runs bit by bit.
std::vector<Tensor> outputs_of(const Encoded& encoded, const Refined& refined) {
  std::vector<Tensor> outputs;
  for (const auto& feature : encoded.features) outputs.push_back(copy_of(feature));
  outputs.push_back(encoded.tokens);
  Tensor assessment{{}, {static_cast<float>(encoded.quality), static_cast<float>(encoded.granularity)}};
  for (const double logit : encoded.logits) assessment.data.push_back(static_cast<float>(logit));
  outputs.push_back(std::move(assessment));
  outputs.push_back(copy_of(refined.restored));
  outputs.push_back({{}, {static_cast<float>(refined.quality)}});
  return outputs;
}

bool same(const std::vector<Tensor>& one, const std::vector<Tensor>& other) {
  for (std::size_t i = 0; i < one.size(); ++i) {
    // Bits, not values: NaN must equal itself and -0 must not equal 0.
    if (std::memcmp(one[i].data.data(), other[i].data.data(), 4 * one[i].data.size()) != 0) return false;
  }
  return true;
}

// FNV-1a, 64 bits.
std::string digest(const std::vector<Tensor>& outputs) {
  std::uint64_t hash = 14695981039346656037u;
  for (const auto& tensor : outputs) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(tensor.data.data());
    for (std::size_t i = 0; i < 4 * tensor.data.size(); ++i) hash = (hash ^ bytes[i]) * 1099511628211u;
  }
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

}  // namespace

double now_ms() {
  using namespace std::chrono;
  return duration<double, std::milli>(steady_clock::now().time_since_epoch()).count();
}

Memory memory() {
  std::ifstream status("/proc/self/status");
  Memory result;
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmRSS:", 0) == 0) result.now = 1024 * std::atoll(line.c_str() + 6);
    if (line.rfind("VmHWM:", 0) == 0) result.peak = 1024 * std::atoll(line.c_str() + 6);
  }
  return result;
}

void drop_from_cache(const std::string& path) {
#ifdef POSIX_FADV_DONTNEED
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  fsync(file);  // pages that are still to be written cannot be dropped
  posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
  close(file);
#else
  (void)path;
#endif
}

void run_once(Program& program, const Tensors& samples) {
  const Sample first(samples, 0);
  const Encoded encoded = program.encode(*first.image);
  program.refine(*first.current, encoded, encoded, encoded.tokens, *first.gates);
}

Json measure(Program& program, const Tensors& samples, int warm_up, int runs) {
  const Sample first(samples, 0);
  std::vector<double> encode_ms, refine_ms;
  std::vector<Tensor> expected;
  int distinct = 0;
  for (int run = 0; run < warm_up + runs; ++run) {
    const double began = now_ms();
    const Encoded encoded = program.encode(*first.image);
    const double between = now_ms();
    const Refined refined = program.refine(*first.current, encoded, encoded, encoded.tokens, *first.gates);
    const double ended = now_ms();
    const auto outputs = outputs_of(encoded, refined);
    if (expected.empty()) {
      expected = outputs;
      distinct = 1;
    } else if (!same(expected, outputs)) {
      ++distinct;
    }
    if (run < warm_up) continue;
    encode_ms.push_back(between - began);
    refine_ms.push_back(ended - between);
  }
  return {{"encode_ms", encode_ms}, {"refine_ms", refine_ms}, {"distinct_outputs", distinct}, {"digest", digest(expected)}};
}

Tensors run_samples(Program& program, const Tensors& samples, const std::vector<std::string>& names) {
  Tensors results;
  for (int index = 0; index < count_of(samples); ++index) {
    const Sample given(samples, index);
    const std::string prefix = std::to_string(index) + ".";
    const OwnedEncoded original(program.encode(*given.image));
    Tensors all;
    for (std::size_t i = 0; i < original.get().features.size(); ++i) {
      all["feature" + std::to_string(i + 1)] = copy_of(original.get().features[i]);
    }
    all["tokens"] = original.get().tokens;
    all["assessment"] = {{2}, {static_cast<float>(original.get().quality), static_cast<float>(original.get().granularity)}};
    for (const double logit : original.get().logits) all["assessment"].data.push_back(static_cast<float>(logit));
    all["assessment"].shape = {static_cast<std::int64_t>(all["assessment"].data.size())};
    const bool separate = given.current != given.image;
    const Encoded estimate = separate ? program.encode(*given.current) : original.get();
    const Refined refined = program.refine(*given.current, original.get(), estimate, estimate.tokens, *given.gates);
    all["restored"] = copy_of(refined.restored);
    all["quality"] = {{1}, {static_cast<float>(refined.quality)}};
    for (const auto& name : names) {
      const auto found = all.find(name);
      if (found == all.end()) throw std::runtime_error("the program has no output " + name);
      results[prefix + name] = std::move(found->second);
    }
  }
  return results;
}

void write_etdump(const std::string& path, const Tensors& samples, int runs, const std::string& out) {
  auto tracer = std::make_unique<executorch::etdump::ETDumpGen>();
  auto* events = tracer.get();
  Program program(path, std::move(tracer));
  for (int run = 0; run < runs; ++run) run_once(program, samples);
  const auto dump = events->get_etdump_data();
  if (dump.buf == nullptr || dump.size == 0) throw std::runtime_error("ExecuTorch recorded no events");
  std::ofstream file(out, std::ios::binary);
  file.write(static_cast<const char*>(dump.buf), static_cast<std::streamsize>(dump.size));
  file.close();
  std::free(dump.buf);
  if (!file) throw std::runtime_error("cannot write " + out + "; is the disk full?");
}
