// A job: a folder with job.json and the files it names; its results go into another folder. docs/devices.md has the schema.
#pragma once

#include <string>

// Runs the job and writes result.json last, so that whoever finds it finds all the rest. Throws std::exception.
void run_job(const std::string& folder, const std::string& out);
