#include "tensors.h"

#include <cstdio>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace {

using nlohmann::json;
using Shape = std::vector<std::int64_t>;

constexpr std::uint64_t kMaxHeader = 100u << 20;

std::uint64_t elements(const Shape& shape, const std::string& name) {
  std::uint64_t count = 1;
  for (const auto side : shape) {
    if (side < 0 || (side > 0 && count > (std::uint64_t{1} << 40) / static_cast<std::uint64_t>(side))) {
      throw std::runtime_error("tensor " + name + " has an impossible shape");
    }
    count *= static_cast<std::uint64_t>(side);
  }
  return count;
}

// Calls `take` with every entry's name, shape and bytes; all of them are of `type`, whose elements have `width` bytes.
template <typename Take>
void read(const std::string& path, const std::string& type, std::uint64_t width, const Take& take) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) throw std::runtime_error("cannot read " + path);
  const auto size = static_cast<std::uint64_t>(file.tellg());
  file.seekg(0);
  std::uint64_t length = 0;
  file.read(reinterpret_cast<char*>(&length), sizeof length);
  if (!file || length > kMaxHeader || 8 + length > size) throw std::runtime_error(path + " is no whole safetensors file");
  std::string header(length, '\0');
  file.read(header.data(), static_cast<std::streamsize>(length));
  const std::uint64_t room = size - 8 - length;
  const json entries = json::parse(header);
  for (const auto& item : entries.items()) {
    const std::string& name = item.key();
    const json& entry = item.value();
    if (name == "__metadata__") continue;
    if (entry.at("dtype") != type) throw std::runtime_error(path + ": " + name + " is not of type " + type);
    const auto shape = entry.at("shape").get<Shape>();
    const auto begin = entry.at("data_offsets").at(0).get<std::uint64_t>();
    const auto end = entry.at("data_offsets").at(1).get<std::uint64_t>();
    if (begin > end || end > room || end - begin != width * elements(shape, name)) {
      throw std::runtime_error(path + ": the offsets of " + name + " do not fit the file or its shape");
    }
    file.seekg(static_cast<std::streamoff>(8 + length + begin));
    take(name, shape, [&](void* data) {
      file.read(static_cast<char*>(data), static_cast<std::streamsize>(end - begin));
      if (!file) throw std::runtime_error(path + " ends inside " + name);
    });
  }
}

// Writes a header of `entries` (name → {dtype, shape, data_offsets}) and what `body` writes.
void write(const std::string& path, const json& entries, const std::function<void(std::ofstream&)>& body) {
  std::string header = entries.dump();
  header.append((8 - header.size() % 8) % 8, ' ');
  const std::uint64_t length = header.size();
  const std::string beside = path + ".part";
  std::ofstream file(beside, std::ios::binary);
  file.write(reinterpret_cast<const char*>(&length), sizeof length);
  file.write(header.data(), static_cast<std::streamsize>(length));
  body(file);
  file.close();
  if (!file) throw std::runtime_error("cannot write " + path + "; is the disk full?");
  if (std::rename(beside.c_str(), path.c_str()) != 0) throw std::runtime_error("cannot write " + path);
}

}  // namespace

Tensors read_tensors(const std::string& path) {
  Tensors tensors;
  read(path, "F32", 4, [&](const std::string& name, const Shape& shape, const auto& fill) {
    Tensor tensor{shape, std::vector<float>(elements(shape, name))};
    fill(tensor.data.data());
    tensors.emplace(name, std::move(tensor));
  });
  return tensors;
}

Pictures read_pictures(const std::string& path) {
  Pictures pictures;
  read(path, "U8", 1, [&](const std::string& name, const Shape& shape, const auto& fill) {
    if (shape.size() != 3 || shape[2] != 3 || elements(shape, name) == 0 || shape[0] > 30'000 || shape[1] > 30'000) {
      throw std::runtime_error(path + ": " + name + " is no picture of H×W×3");
    }
    Pixels picture{static_cast<int>(shape[0]), static_cast<int>(shape[1]), {}};
    picture.data.resize(elements(shape, name));
    fill(picture.data.data());
    pictures.emplace(name, std::move(picture));
  });
  return pictures;
}

void write_tensors(const std::string& path, const Tensors& tensors) {
  json entries = json::object();
  std::uint64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    const std::uint64_t end = offset + 4 * tensor.data.size();
    entries[name] = {{"dtype", "F32"}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  write(path, entries, [&](std::ofstream& file) {
    for (const auto& [name, tensor] : tensors) {
      file.write(reinterpret_cast<const char*>(tensor.data.data()), static_cast<std::streamsize>(4 * tensor.data.size()));
    }
  });
}

void write_pictures(const std::string& path, const Pictures& pictures) {
  json entries = json::object();
  std::uint64_t offset = 0;
  for (const auto& [name, picture] : pictures) {
    const std::uint64_t end = offset + picture.data.size();
    entries[name] = {{"dtype", "U8"}, {"shape", {picture.height, picture.width, 3}}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  write(path, entries, [&](std::ofstream& file) {
    for (const auto& [name, picture] : pictures) {
      file.write(reinterpret_cast<const char*>(picture.data.data()), static_cast<std::streamsize>(picture.data.size()));
    }
  });
}
