// The whole loop on pictures of any size, under the controller's decisions; the same as burnish.runtime.run, without threads.
#pragma once

#include "controller.h"
#include "measure.h"
#include "program.h"
#include "routing.h"
#include "tiles.h"

struct RestoreTask {
  int tile = 0;
  std::size_t rank = 0;
  int keep = 0;  // of how many pictures features are kept
  Routing routing;
  Policy policy;
  double slope = 1.0, offset = 0.0;  // the program's calibration of predicted quality
  bool keep_steps = false;
};

RestoreTask restore_task_from(const Json& values);

// How one picture's restoration went; its picture goes into `out` under `name`, with `keep_steps` also every round's under
// "<name>.<round>", round 0 being the picture as it came.
Json restore(Program& program, const RestoreTask& task, const std::string& name, const Pixels& picture, Pictures& out);
