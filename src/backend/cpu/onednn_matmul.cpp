// Opens the oneDNN module and multiplies through it; and chooses the engine of this process. Used by gemm.cpp.
#include <dlfcn.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "backend/cpu/matmul.h"
#include "backend/cpu/onednn/onednn_module.h"
#include "core/bf16.h"
#include "core/error.h"
#include "core/log.h"
#include "core/modules.h"
#include "core/thread_pool.h"

namespace llmfp8::cpu {
namespace {

constexpr const char* kModule = "libllmfp8_onednn.so";

struct Module {
  Llmfp8OnednnRun run = nullptr;
  void (*set_openmp_threads)(int) = nullptr;  // of the libgomp that came with oneDNN
  std::string version;
  std::string why_not;
};

// oneDNN brings OpenMP, whose threads by default spin for milliseconds after each product: they would take the cores from
// the loops between the products, and from everybody else on a shared machine. OpenMP reads this once, when it is loaded.
void keep_openmp_from_spinning() { setenv("GOMP_SPINCOUNT", "2000", 0); }

Module open_module() {
  Module module;
  keep_openmp_from_spinning();
  const std::filesystem::path path = find_module(kModule);
  if (path.empty()) {
    module.why_not = fmt::format("{} was not built, or not found in {}", kModule, module_places());
    return module;
  }
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    module.why_not = dlerror();
    return module;
  }
  const auto abi = reinterpret_cast<Llmfp8OnednnAbiVersion>(dlsym(handle, "llmfp8_onednn_abi"));
  const auto describe = reinterpret_cast<Llmfp8OnednnDescribe>(dlsym(handle, "llmfp8_onednn_describe"));
  const auto run = reinterpret_cast<Llmfp8OnednnRun>(dlsym(handle, "llmfp8_onednn_matmul"));
  char text[256] = {};
  if (abi == nullptr || describe == nullptr || run == nullptr || abi() != kLlmfp8OnednnAbi) {
    module.why_not = std::string(kModule) + " is of another build";
  } else if (describe(text, sizeof text) != 0) {
    module.why_not = text;
  } else {
    module.run = run;
    module.version = text;
    module.set_openmp_threads = reinterpret_cast<void (*)(int)>(dlsym(handle, "omp_set_num_threads"));
  }
  return module;
}

const Module& module() {
  static const Module opened = open_module();
  return opened;
}

class OnednnMatmul : public MatmulEngine {
 public:
  explicit OnednnMatmul(DType images) : images_(images) {}

  std::string describe() const override { return module().version + ", " + std::string(name(images_)); }
  DType image_dtype() const override { return images_; }

  void run(const Matmul& call) const override {
    if (module().set_openmp_threads != nullptr) module().set_openmp_threads(num_threads());
    const Llmfp8OnednnMatmul raw{call.m,
                                 call.n,
                                 call.k,
                                 call.a,
                                 call.b,
                                 call.c,
                                 call.lda,
                                 call.ldb,
                                 call.ldc,
                                 call.a_transposed,
                                 call.b_transposed,
                                 call.accumulate,
                                 call.in == DType::bf16,
                                 call.out == DType::bf16};
    char message[256] = {};
    CHECK(module().run(&raw, message, sizeof message) == 0, "oneDNN: product of [{}, {}] and [{}, {}] in {}: {}",
          call.m, call.k, call.k, call.n, name(call.in), message);
  }

 private:
  DType images_;
};

// Seconds of the best of some small products; infinity where the type is not supported.
double seconds(const MatmulEngine& engine, DType type) {
  constexpr std::int64_t kSize = 384;
  const std::vector<float> a(kSize * kSize), b(kSize * kSize);  // zeros serve as both types
  std::vector<float> c(kSize * kSize);
  double best = std::numeric_limits<double>::infinity();
  try {
    for (int i = 0; i < 8; ++i) {
      const auto start = std::chrono::steady_clock::now();
      engine.run({kSize, kSize, kSize, a.data(), kSize, false, b.data(), kSize, false, c.data(), kSize, false, type,
                  DType::f32});
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      if (i > 0) best = std::min(best, took.count());
    }
  } catch (const Error&) {
    return std::numeric_limits<double>::infinity();
  }
  return best;
}

// Timed only where the processor has no bf16 products of its own: a choice by the clock could differ from run to run.
bool bf16_is_fast(const MatmulEngine& engine) {
  const std::string& version = module().version;
  const bool native = version.find("BF16") != std::string::npos || version.find("AMX") != std::string::npos;
  return native || seconds(engine, DType::bf16) < seconds(engine, DType::f32);
}

std::unique_ptr<MatmulEngine> choose() {
  const char* text = std::getenv("LLMFP8_CPU_MATMUL");
  const std::string forced = text != nullptr ? text : "";
  CHECK(forced.empty() || forced == "bf16" || forced == "f32" || forced == "portable",
        "LLMFP8_CPU_MATMUL={}: wanted bf16, f32 or portable", forced);
  if (forced == "portable") return create_portable_matmul();
  std::string why_not;
  auto f32 = create_onednn_matmul(DType::f32, &why_not);
  if (f32 == nullptr) {
    CHECK(forced.empty(), "LLMFP8_CPU_MATMUL={}: {}", forced, why_not);
    log::info("matrix products: own loops, several times slower than oneDNN ({})", why_not);
    return create_portable_matmul();
  }
  if (forced == "f32") return f32;
  if (forced.empty() && !bf16_is_fast(*f32)) return f32;
  return create_onednn_matmul(DType::bf16, &why_not);
}

}  // namespace

std::unique_ptr<MatmulEngine> create_onednn_matmul(DType images, std::string* why_not) {
  if (module().run == nullptr) {
    *why_not = module().why_not;
    return nullptr;
  }
  return std::make_unique<OnednnMatmul>(images);
}

const MatmulEngine& matmul_engine() {
  static const std::unique_ptr<MatmulEngine> engine = choose();
  return *engine;
}

}  // namespace llmfp8::cpu
