// burnish-runner JOB OUT | --conformance FILE | --version
#include <cstdio>
#include <cstring>
#include <exception>

#include "conformance.h"
#include "job.h"

int main(int count, char** arguments) {
  try {
    if (count == 2 && std::strcmp(arguments[1], "--version") == 0) {
      std::printf("%s\n", RUNNER_VERSION);
      return 0;
    }
    if (count != 3) {
      std::fprintf(stderr, "usage: burnish-runner JOB OUT | --conformance FILE | --version\n");
      return 2;
    }
    if (std::strcmp(arguments[1], "--conformance") == 0) {
      run_conformance(arguments[2]);
    } else {
      run_job(arguments[1], arguments[2]);
    }
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
