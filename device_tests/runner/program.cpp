#include "program.h"

#include <sched.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>

#include "routing.h"

// The wheels export the thread pool but ship no header for it.
namespace executorch::extension::threadpool {
class ThreadPool final {
 public:
  std::size_t get_thread_count() const;
  bool _unsafe_reset_threadpool(std::uint32_t count);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

using executorch::extension::from_blob;
using executorch::extension::Module;
using executorch::runtime::EValue;

namespace {

executorch::extension::TensorPtr view(const Tensor& tensor) {
  std::vector<executorch::aten::SizesType> shape(tensor.shape.begin(), tensor.shape.end());
  // ExecuTorch takes mutable pointers to inputs and does not write to them.
  return from_blob(const_cast<float*>(tensor.data.data()), std::move(shape), executorch::aten::ScalarType::Float);
}

void check(executorch::runtime::Error error, const std::string& what) {
  if (error == executorch::runtime::Error::Ok) return;
  throw std::runtime_error(what + " (ExecuTorch: " + executorch::runtime::to_string(error) + ")");
}

}  // namespace

unsigned set_threads(unsigned count) {
  auto* pool = executorch::extension::threadpool::get_threadpool();
  if (pool == nullptr) return 1;
  if (count == 0) {
    // Its own choice are the fast cores of the machine, whether this process may use them or not.
    cpu_set_t usable;
    count = static_cast<unsigned>(pool->get_thread_count());
    if (sched_getaffinity(0, sizeof usable, &usable) == 0) count = std::min(count, static_cast<unsigned>(CPU_COUNT(&usable)));
  }
  if (count != pool->get_thread_count()) pool->_unsafe_reset_threadpool(count);
  return static_cast<unsigned>(pool->get_thread_count());
}

Tensor copy_of(const EValue& value) {
  const auto& tensor = value.toTensor();
  if (tensor.scalar_type() != executorch::aten::ScalarType::Float) throw std::runtime_error("an output is no float32 tensor");
  const auto* data = tensor.const_data_ptr<float>();
  return {{tensor.sizes().begin(), tensor.sizes().end()}, {data, data + tensor.numel()}};
}

OwnedEncoded::OwnedEncoded(const Encoded& encoded) : encoded_(encoded) {
  for (auto& value : encoded_.features) {
    Tensor copy = copy_of(value);
    std::vector<executorch::aten::SizesType> shape(copy.shape.begin(), copy.shape.end());
    storage_.push_back(std::move(copy.data));
    tensors_.push_back(from_blob(storage_.back().data(), std::move(shape), executorch::aten::ScalarType::Float));
    value = EValue(*tensors_.back());
  }
}

Program::Program(const std::string& path, std::unique_ptr<executorch::runtime::EventTracer> tracer)
    : module_(path, Module::LoadMode::Mmap, std::move(tracer)) {
  check(module_.load(), "cannot load " + path);
  auto methods = module_.method_names();
  check(methods.error(), path + ": cannot name its methods");
  methods->insert({"encode", "refine"});
  // A tracer given to the module is not passed on to methods that are loaded by name.
  for (const auto& method : *methods) {
    check(module_.load_method(method, nullptr, module_.event_tracer()), path + ": cannot load the method " + method);
  }
}

std::vector<EValue> Program::execute(const std::string& method, std::vector<EValue> inputs) {
  auto outputs = module_.execute(method, inputs);
  if (!outputs.ok()) check(outputs.error(), method + " failed");
  return std::move(*outputs);
}

Encoded Program::encode(const Tensor& image) {
  const auto input = view(image);
  auto outputs = execute("encode", {EValue(*input)});
  if (outputs.size() < 3) throw std::runtime_error("encode has fewer than three outputs");
  const Tensor assessment = copy_of(outputs.back());
  if (assessment.data.size() < 3) throw std::runtime_error("an assessment has fewer than three values");
  Encoded encoded;
  encoded.features.assign(outputs.begin(), outputs.end() - 2);
  encoded.tokens = copy_of(*(outputs.end() - 2));
  encoded.quality = sigmoid(assessment.data[0]);
  encoded.granularity = assessment.data[1];
  encoded.logits.assign(assessment.data.begin() + 2, assessment.data.end());
  return encoded;
}

Refined Program::refine(const Tensor& current, const Encoded& original, const Encoded& estimate, const Tensor& tokens,
                        const Tensor& gates, const std::string& method) {
  const auto picture = view(current), asked = view(tokens), weights = view(gates);
  std::vector<EValue> inputs{EValue(*picture)};
  inputs.insert(inputs.end(), original.features.begin(), original.features.end());
  inputs.insert(inputs.end(), estimate.features.begin() + 1, estimate.features.end());
  inputs.push_back(EValue(*asked));
  inputs.push_back(EValue(*weights));
  auto outputs = execute(method, std::move(inputs));
  if (outputs.size() != 2) throw std::runtime_error(method + " has other than two outputs");
  return {outputs[0], copy_of(outputs[1]).data.at(0)};
}
