// The native half of org.pytorch.executorch.Module on a desktop: ExecuTorch's Android library is built for phones only.
//
// As there, inputs are read where Java's direct buffers lie, and outputs are windows on the method's own memory, which its
// next execution overwrites.
#include <jni.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

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
using executorch::extension::TensorPtr;
using executorch::runtime::Error;
using executorch::runtime::EValue;

namespace {

constexpr const char* kModule = "org/pytorch/executorch/Module";
constexpr const char* kTensor = "org/pytorch/executorch/Tensor";
constexpr const char* kEValue = "org/pytorch/executorch/EValue";
constexpr const char* kHybrid = "com/facebook/jni/HybridData";
constexpr const char* kMakesTensor =
    "(Ljava/nio/ByteBuffer;[JILcom/facebook/jni/HybridData;)Lorg/pytorch/executorch/Tensor;";

void raise(JNIEnv* env, Error error, const std::string& what) {
  jclass type = env->FindClass("org/pytorch/executorch/ExecutorchRuntimeException");
  jmethodID make = env->GetStaticMethodID(type, "makeExecutorchException", "(ILjava/lang/String;)Ljava/lang/RuntimeException;");
  const auto code = static_cast<jint>(error);
  env->Throw(static_cast<jthrowable>(env->CallStaticObjectMethod(type, make, code, env->NewStringUTF(what.c_str()))));
}

std::string text(JNIEnv* env, jstring value) {
  const char* chars = env->GetStringUTFChars(value, nullptr);
  std::string result(chars);
  env->ReleaseStringUTFChars(value, chars);
  return result;
}

jfieldID pointer_field(JNIEnv* env) { return env->GetFieldID(env->FindClass(kHybrid), "pointer", "J"); }

Module& module_of(JNIEnv* env, jobject self) {
  jfieldID hybrid = env->GetFieldID(env->FindClass(kModule), "mHybridData", "Lcom/facebook/jni/HybridData;");
  return *reinterpret_cast<Module*>(env->GetLongField(env->GetObjectField(self, hybrid), pointer_field(env)));
}

jobjectArray strings(JNIEnv* env, const std::vector<std::string>& values) {
  jobjectArray array = env->NewObjectArray(static_cast<jsize>(values.size()), env->FindClass("java/lang/String"), nullptr);
  for (std::size_t i = 0; i < values.size(); ++i) {
    env->SetObjectArrayElement(array, static_cast<jsize>(i), env->NewStringUTF(values[i].c_str()));
  }
  return array;
}

TensorPtr tensor_from(JNIEnv* env, jobject value) {
  jclass value_type = env->FindClass(kEValue), tensor_type = env->FindClass(kTensor);
  jobject tensor = env->CallObjectMethod(
      value, env->GetMethodID(value_type, "toTensor", "()Lorg/pytorch/executorch/Tensor;"));
  jobject buffer = env->CallObjectMethod(tensor, env->GetMethodID(tensor_type, "getRawDataBuffer", "()Ljava/nio/Buffer;"));
  auto shape = static_cast<jlongArray>(env->CallObjectMethod(tensor, env->GetMethodID(tensor_type, "shape", "()[J")));
  std::vector<jlong> sizes(static_cast<std::size_t>(env->GetArrayLength(shape)));
  env->GetLongArrayRegion(shape, 0, static_cast<jsize>(sizes.size()), sizes.data());
  return from_blob(
      env->GetDirectBufferAddress(buffer),
      std::vector<executorch::aten::SizesType>(sizes.begin(), sizes.end()),
      executorch::aten::ScalarType::Float);
}

jobject value_from(JNIEnv* env, const EValue& output) {
  const auto& tensor = output.toTensor();
  jobject bytes = env->NewDirectByteBuffer(const_cast<void*>(tensor.const_data_ptr()), static_cast<jlong>(tensor.nbytes()));
  jclass order_type = env->FindClass("java/nio/ByteOrder");
  jobject order = env->CallStaticObjectMethod(
      order_type, env->GetStaticMethodID(order_type, "nativeOrder", "()Ljava/nio/ByteOrder;"));
  env->CallObjectMethod(
      bytes,
      env->GetMethodID(env->FindClass("java/nio/ByteBuffer"), "order", "(Ljava/nio/ByteOrder;)Ljava/nio/ByteBuffer;"),
      order);
  const std::vector<jlong> sizes(tensor.sizes().begin(), tensor.sizes().end());
  jlongArray shape = env->NewLongArray(static_cast<jsize>(sizes.size()));
  env->SetLongArrayRegion(shape, 0, static_cast<jsize>(sizes.size()), sizes.data());
  jclass tensor_type = env->FindClass(kTensor), value_type = env->FindClass(kEValue);
  jobject made = env->CallStaticObjectMethod(
      tensor_type,
      env->GetStaticMethodID(tensor_type, "nativeNewTensor", kMakesTensor),
      bytes,
      shape,
      static_cast<jint>(tensor.scalar_type()),
      nullptr);
  jmethodID from = env->GetStaticMethodID(
      value_type, "from", "(Lorg/pytorch/executorch/Tensor;)Lorg/pytorch/executorch/EValue;");
  return env->CallStaticObjectMethod(value_type, from, made);
}

}  // namespace

extern "C" {

JNIEXPORT jobject JNICALL
Java_org_pytorch_executorch_Module_initHybrid(JNIEnv* env, jclass, jstring path, jint, jint threads) {
  auto* pool = executorch::extension::threadpool::get_threadpool();
  if (pool != nullptr && threads > 0 && static_cast<std::size_t>(threads) != pool->get_thread_count()) {
    pool->_unsafe_reset_threadpool(static_cast<std::uint32_t>(threads));
  }
  auto module = std::make_unique<Module>(text(env, path), Module::LoadMode::Mmap);
  const Error error = module->load();
  if (error != Error::Ok) {
    raise(env, error, "cannot load the program");
    return nullptr;
  }
  jclass type = env->FindClass(kHybrid);
  jmethodID make = env->GetMethodID(type, "<init>", "(J)V");
  return env->NewObject(type, make, reinterpret_cast<jlong>(module.release()));
}

JNIEXPORT void JNICALL Java_com_facebook_jni_HybridData_resetNative(JNIEnv* env, jobject self) {
  delete reinterpret_cast<Module*>(env->GetLongField(self, pointer_field(env)));
  env->SetLongField(self, pointer_field(env), 0);
}

JNIEXPORT jint JNICALL Java_org_pytorch_executorch_Module_loadMethodNative(JNIEnv* env, jobject self, jstring name) {
  return static_cast<jint>(module_of(env, self).load_method(text(env, name)));
}

JNIEXPORT jobjectArray JNICALL Java_org_pytorch_executorch_Module_getMethodsNative(JNIEnv* env, jobject self) {
  const auto names = module_of(env, self).method_names();
  return strings(env, names.ok() ? std::vector<std::string>(names->begin(), names->end()) : std::vector<std::string>{});
}

JNIEXPORT jobjectArray JNICALL
Java_org_pytorch_executorch_Module_getUsedBackends(JNIEnv* env, jobject self, jstring name) {
  std::vector<std::string> names;
  const auto meta = module_of(env, self).method_meta(text(env, name));
  for (std::size_t i = 0; meta.ok() && i < meta->num_backends(); ++i) names.emplace_back(*meta->get_backend_name(i));
  return strings(env, names);
}

JNIEXPORT jobjectArray JNICALL
Java_org_pytorch_executorch_Module_executeNative(JNIEnv* env, jobject self, jstring name, jobjectArray values) {
  std::vector<TensorPtr> tensors;
  std::vector<EValue> inputs;
  for (jsize i = 0; i < env->GetArrayLength(values); ++i) {
    tensors.push_back(tensor_from(env, env->GetObjectArrayElement(values, i)));
    inputs.emplace_back(*tensors.back());
  }
  const auto outputs = module_of(env, self).execute(text(env, name), inputs);
  if (!outputs.ok()) {
    raise(env, outputs.error(), "the method failed");
    return nullptr;
  }
  jobjectArray results = env->NewObjectArray(static_cast<jsize>(outputs->size()), env->FindClass(kEValue), nullptr);
  for (std::size_t i = 0; i < outputs->size(); ++i) {
    env->SetObjectArrayElement(results, static_cast<jsize>(i), value_from(env, (*outputs)[i]));
  }
  return results;
}

}  // extern "C"
