// Runs the cases of tests/conformance/*.json and prints what this language gives.
#pragma once

#include <string>

void run_conformance(const std::string& file);
