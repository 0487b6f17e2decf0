#include "job.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <stdexcept>

#include "measure.h"
#include "restore.h"

namespace {

constexpr int kFormat = 1;

Json read_json(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path);
  return Json::parse(file);
}

void write_json(const std::string& path, const Json& value) {
  const std::string beside = path + ".part";
  std::ofstream file(beside);
  file << value.dump(1) << "\n";
  file.close();
  if (!file || std::rename(beside.c_str(), path.c_str()) != 0) {
    throw std::runtime_error("cannot write " + path + "; is the disk full?");
  }
}

}  // namespace

void run_job(const std::string& folder, const std::string& out) {
  const Json job = read_json(folder + "/job.json");
  if (job.at("format") != kFormat) throw std::runtime_error("job.json has another format than this runner's");
  // A step that hangs must not outlive the job on a device nobody watches.
  alarm(job.at("limit_s").get<unsigned>());
  const unsigned threads = set_threads(job.at("threads"));
  const std::string path = folder + "/" + job.at("program").get<std::string>();
  Json result{{"format", kFormat}, {"runner", RUNNER_VERSION}, {"threads", threads}};

  Tensors samples;
  const bool sampled = job.contains("measure") || job.contains("samples") || job.contains("etdump_runs");
  if (sampled) samples = read_tensors(folder + "/samples.safetensors");
  drop_from_cache(path);
  const Memory before = memory();
  const double began = now_ms();
  Program program(path);
  if (job.contains("measure")) {
    const double loaded = now_ms();
    run_once(program, samples);
    const double first = now_ms();
    result["memory"] = {{"program_bytes", memory().peak - before.now}, {"process_bytes", memory().peak}};
    const Json& wanted = job.at("measure");
    result["measure"] = measure(program, samples, wanted.at("warm_up"), wanted.at("runs"));
    const double reload = now_ms();
    { Program again(path); }
    result["load"] = {{"cold_ms", loaded - began}, {"first_run_ms", first - loaded}, {"warm_ms", now_ms() - reload}};
  }
  if (job.contains("samples")) {
    write_tensors(out + "/samples.safetensors",
                  run_samples(program, samples, job.at("samples").at("outputs").get<std::vector<std::string>>()));
  }
  if (job.contains("etdump_runs")) write_etdump(path, samples, job.at("etdump_runs"), out + "/etdump.etdp");
  if (job.contains("restore")) {
    const RestoreTask task = restore_task_from(job.at("restore"));
    result["restorations"] = Json::array();
    Pictures restored;
    for (const auto& [name, picture] : read_pictures(folder + "/pictures.safetensors")) {
      result["restorations"].push_back(restore(program, task, name, picture, restored));
    }
    write_pictures(out + "/restored.safetensors", restored);
  }
  write_json(out + "/result.json", result);
}
