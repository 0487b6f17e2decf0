// What a job measures and compares: durations, loading, memory, determinism, and outputs for given inputs.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "program.h"

using Json = nlohmann::ordered_json;

double now_ms();

// Resident bytes now and at most so far; 0 where /proc does not say.
struct Memory {
  long long now = 0;
  long long peak = 0;
};
Memory memory();

// Drops a file from the page cache, so that what is loaded next comes from storage.
void drop_from_cache(const std::string& path);

// One run of both methods on sample 0, as an app's first.
void run_once(Program& program, const Tensors& samples);

// Warm-up and timed runs on sample 0: {encode_ms, refine_ms, distinct_outputs, digest}.
Json measure(Program& program, const Tensors& samples, int warm_up, int runs);

// Outputs of both methods for every sample, under "<sample>.<name>".
Tensors run_samples(Program& program, const Tensors& samples, const std::vector<std::string>& names);

// Per-operation events of `runs` runs of both methods, in ExecuTorch's ETDump format.
void write_etdump(const std::string& program, const Tensors& samples, int runs, const std::string& path);
