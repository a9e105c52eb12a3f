// libllmfp8_onednn.so: matrix products through oneDNN 2 or 3, with one primitive per shape kept. A module, so that the
// program runs where oneDNN is not installed. Called through onednn_module.h by onednn_matmul.cpp.
#include "backend/cpu/onednn/onednn_module.h"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <new>

#include <oneapi/dnnl/dnnl.hpp>

namespace {

using Key = std::array<std::int64_t, 11>;

struct Entry {
  dnnl::matmul primitive;
  dnnl::memory::desc a, b, c, scratch;
};

constexpr std::size_t kMaxEntries = 1024;  // shapes follow the batch; beyond this many all are dropped
constexpr std::size_t kAlignment = 64;

struct Library {
  std::mutex mutex;
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::map<Key, Entry> entries;
  // One scratchpad for all primitives: they run one at a time, and each of its own would add up to gigabytes.
  std::unique_ptr<void, decltype(&std::free)> scratch{nullptr, &std::free};
  std::size_t scratch_bytes = 0;
};

Library& library() {
  static Library* instance = new Library;  // never freed: oneDNN's own statics may be gone first
  return *instance;
}

const char* isa_name() {
  switch (dnnl::get_effective_cpu_isa()) {
    case dnnl::cpu_isa::sse41: return "SSE4.1";
    case dnnl::cpu_isa::avx: return "AVX";
    case dnnl::cpu_isa::avx2: return "AVX2";
    case dnnl::cpu_isa::avx2_vnni: return "AVX2 VNNI";
    case dnnl::cpu_isa::avx512_core: return "AVX512";
    case dnnl::cpu_isa::avx512_core_vnni: return "AVX512 VNNI";
    case dnnl::cpu_isa::avx512_core_bf16: return "AVX512 BF16";
    case dnnl::cpu_isa::avx512_core_amx: return "AMX";
    default: return "newest ISA";
  }
}

dnnl::memory::desc matrix(std::int64_t rows, std::int64_t cols, std::int64_t ld, bool transposed, bool bf16) {
  const auto type = bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
  const dnnl::memory::dims strides = transposed ? dnnl::memory::dims{1, ld} : dnnl::memory::dims{ld, 1};
  return dnnl::memory::desc({rows, cols}, type, strides);
}

Entry create(Library& lib, const Llmfp8OnednnMatmul& call) {
  Entry entry;
  entry.a = matrix(call.m, call.k, call.lda, call.a_transposed != 0, call.in_bf16 != 0);
  entry.b = matrix(call.k, call.n, call.ldb, call.b_transposed != 0, call.in_bf16 != 0);
  entry.c = matrix(call.m, call.n, call.ldc, false, call.out_bf16 != 0);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (call.accumulate != 0) {
    dnnl::post_ops ops;
    ops.append_sum(1.0f);
    attributes.set_post_ops(ops);
  }
#if DNNL_VERSION_MAJOR >= 3
  const dnnl::matmul::primitive_desc desc(lib.engine, entry.a, entry.b, entry.c, attributes);
#else
  const dnnl::matmul::primitive_desc desc(dnnl::matmul::desc(entry.a, entry.b, entry.c), attributes, lib.engine);
#endif
  entry.scratch = desc.scratchpad_desc();
  entry.primitive = dnnl::matmul(desc);
  return entry;
}

void run(const Llmfp8OnednnMatmul& call) {
  Library& lib = library();
  const std::lock_guard lock(lib.mutex);
  const Key key{
      call.m,          call.n,       call.k,       call.lda, call.ldb, call.ldc, call.a_transposed, call.b_transposed,
      call.accumulate, call.in_bf16, call.out_bf16};
  auto found = lib.entries.find(key);
  if (found == lib.entries.end()) {
    if (lib.entries.size() >= kMaxEntries) lib.entries.clear();
    found = lib.entries.emplace(key, create(lib, call)).first;
  }
  const Entry& entry = found->second;
  const std::size_t wanted = entry.scratch.get_size();
  if (wanted > lib.scratch_bytes) {
    const std::size_t rounded = (wanted + kAlignment - 1) / kAlignment * kAlignment;
    lib.scratch.reset(std::aligned_alloc(kAlignment, rounded));
    lib.scratch_bytes = lib.scratch != nullptr ? rounded : 0;
    if (lib.scratch == nullptr) throw std::bad_alloc();
  }
  entry.primitive.execute(lib.stream,
                          {{DNNL_ARG_SRC, dnnl::memory(entry.a, lib.engine, const_cast<void*>(call.a))},
                           {DNNL_ARG_WEIGHTS, dnnl::memory(entry.b, lib.engine, const_cast<void*>(call.b))},
                           {DNNL_ARG_DST, dnnl::memory(entry.c, lib.engine, call.c)},
                           {DNNL_ARG_SCRATCHPAD, dnnl::memory(entry.scratch, lib.engine, lib.scratch.get())}});
  lib.stream.wait();
}

template <typename Body>
int guarded(char* message, std::size_t bytes, const Body& body) {
  try {
    body();
    return 0;
  } catch (const std::exception& error) {
    std::snprintf(message, bytes, "%s", error.what());
    return 1;
  }
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) int llmfp8_onednn_abi() { return kLlmfp8OnednnAbi; }

__attribute__((visibility("default"))) int llmfp8_onednn_describe(char* text, std::size_t text_bytes) {
  return guarded(text, text_bytes, [&] {
    const dnnl_version_t* version = dnnl_version();
    std::snprintf(text, text_bytes, "oneDNN %d.%d.%d, %s", version->major, version->minor, version->patch, isa_name());
  });
}

__attribute__((visibility("default"))) int llmfp8_onednn_matmul(const Llmfp8OnednnMatmul* call, char* message,
                                                                std::size_t message_bytes) {
  return guarded(message, message_bytes, [&] { run(*call); });
}
}
