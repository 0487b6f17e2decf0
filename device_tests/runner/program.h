// One loaded program and its methods.
#pragma once

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "tensors.h"

// What `encode` says of a picture. Its features live in the program and are overwritten by the next encode, unless owned.
struct Encoded {
  std::vector<executorch::runtime::EValue> features;
  Tensor tokens;
  double quality = 0.0;
  double granularity = 0.0;
  std::vector<double> logits;
};

// An `Encoded` that keeps its own copies.
class OwnedEncoded {
 public:
  explicit OwnedEncoded(const Encoded& encoded);
  const Encoded& get() const { return encoded_; }

 private:
  std::vector<std::vector<float>> storage_;
  std::vector<executorch::extension::TensorPtr> tensors_;
  Encoded encoded_;
};

struct Refined {
  executorch::runtime::EValue restored;  // overwritten by the next refine
  double quality = 0.0;
};

class Program {
 public:
  // Loads all methods. Throws std::runtime_error naming what cannot be loaded. `tracer` may be null.
  Program(const std::string& path, std::unique_ptr<executorch::runtime::EventTracer> tracer = nullptr);

  Encoded encode(const Tensor& image);
  // `tokens`: those to ask, the estimate's own or others. `method`: refine, or a specialist's.
  Refined refine(const Tensor& current, const Encoded& original, const Encoded& estimate, const Tensor& tokens,
                 const Tensor& gates, const std::string& method = "refine");
  executorch::extension::Module& module() { return module_; }

 private:
  std::vector<executorch::runtime::EValue> execute(const std::string& method, std::vector<executorch::runtime::EValue> inputs);

  executorch::extension::Module module_;
};

// Sets the size of ExecuTorch's thread pool before anything is loaded, 0 for its own choice; returns what it is now.
unsigned set_threads(unsigned count);

// A copy of a float tensor. Throws when it is of another type.
Tensor copy_of(const executorch::runtime::EValue& value);
