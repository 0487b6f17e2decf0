// Named tensors in files: safetensors, of float32, or of bytes for pictures.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

struct Tensor {
  std::vector<std::int64_t> shape;
  std::vector<float> data;
};

// A picture, height × width × 3, 8 bits a channel.
struct Pixels {
  int height = 0, width = 0;
  std::vector<std::uint8_t> data;
};

using Tensors = std::map<std::string, Tensor>;
using Pictures = std::map<std::string, Pixels>;

// Throws std::runtime_error for a file that is truncated, holds another type, or whose offsets leave it.
Tensors read_tensors(const std::string& path);
Pictures read_pictures(const std::string& path);

// Writes beside `path` and renames, so that what is there is whole.
void write_tensors(const std::string& path, const Tensors& tensors);
void write_pictures(const std::string& path, const Pictures& pictures);
