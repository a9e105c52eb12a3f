#include "params/load.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "core/bf16.h"
#include "core/rng.h"
#include "core/thread_pool.h"

namespace llmfp8 {
namespace {

// HF writes lm_head.weight of a tied model only sometimes; a different one would be silently ignored.
void check_tied_head(const WeightSource& source, const WeightTable& table) {
  const std::string head = "lm_head.weight";
  if (!table.config().tie_word_embeddings || !source.has(head)) return;
  const ParamSpec& embedding = table.find(ParamKind::embedding);
  source.check(head, embedding.shape);
  const auto n = static_cast<std::size_t>(embedding.shape.numel());
  std::vector<float> a(n), b(n);
  source.read(head, DType::f32, a.data());
  source.read(embedding.slices.front().name, DType::f32, b.data());
  CHECK(std::memcmp(a.data(), b.data(), n * sizeof(float)) == 0,
        "{}: config.json ties lm_head.weight to the embedding, but the file holds a different one", source.origin());
}

}  // namespace

void load_weights(const WeightSource& source, const LocalParamStore& store, Backend& backend, Stream& stream,
                  const SetMaster& set_master) {
  const WeightTable& table = store.table();
  check_tied_head(source, table);
  std::vector<std::byte> staging;
  for (const ParamSpec& spec : table.params()) {
    const Tensor weight = store.weight(spec.index);
    bool wider = false;
    for (const WeightSlice& slice : spec.slices) {
      CHECK(source.has(slice.name), "{}: tensor {} is missing", source.origin(), slice.name);
      wider = wider || (store.dtype() == DType::bf16 && source.dtype(slice.name) != DType::bf16);
    }
    const DType host_dtype = wider ? DType::f32 : store.dtype();
    const std::size_t element = size_bytes(host_dtype);
    staging.resize(static_cast<std::size_t>(spec.shape.numel()) * element);
    const std::int64_t row = spec.shape.rank() == 1 ? 1 : spec.shape[1];
    for (const WeightSlice& slice : spec.slices) {
      source.read_checked(slice.name, slice.shape, host_dtype, staging.data() + static_cast<std::size_t>(slice.row_begin * row) * element);
    }
    if (wider) {
      set_master(spec, reinterpret_cast<const float*>(staging.data()));
    } else {
      backend.copy_to_device(weight.data, staging.data(), staging.size(), stream);
      backend.synchronize(stream);
    }
  }
}

void fill_random(const LocalParamStore& store, std::uint64_t seed, Backend& backend, Stream& stream) {
  constexpr std::int64_t kValues = std::int64_t{1} << 22;
  constexpr double kDeviation = 0.02;
  std::vector<float> normal(kValues);
  parallel_for(kValues / 2, 1 << 14, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {  // Box and Muller, 1958
      const Philox4 random = philox4x32(seed, static_cast<std::uint64_t>(i), 0);
      const double radius = kDeviation * std::sqrt(-2.0 * std::log((random.x[0] + 1.0) / 4294967296.0));
      const double angle = 2.0 * std::numbers::pi * random.x[1] / 4294967296.0;
      normal[static_cast<std::size_t>(2 * i)] = static_cast<float>(radius * std::cos(angle));
      normal[static_cast<std::size_t>(2 * i + 1)] = static_cast<float>(radius * std::sin(angle));
    }
  });
  const auto stored = [&](const std::vector<float>& values) {
    std::vector<std::byte> bytes(values.size() * size_bytes(store.dtype()));
    if (store.dtype() == DType::f32) {
      std::memcpy(bytes.data(), values.data(), bytes.size());
    } else {
      auto* out = reinterpret_cast<bf16*>(bytes.data());
      for (std::size_t i = 0; i < values.size(); ++i) out[i] = to_bf16(values[i]);
    }
    return bytes;
  };
  const std::vector<std::byte> matrix_values = stored(normal);
  const std::vector<std::byte> ones = stored(std::vector<float>(kValues, 1.0f)), zeros = stored(std::vector<float>(kValues, 0.0f));
  for (const ParamSpec& spec : store.table().params()) {
    const Tensor& weight = store.weight(spec.index);
    const std::vector<std::byte>& values = !spec.is_bias_or_norm                ? matrix_values
                                           : spec.kind == ParamKind::qkv_bias ? zeros
                                                                               : ones;
    for (std::size_t done = 0; done < weight.bytes(); done += values.size()) {
      backend.copy_to_device(static_cast<std::byte*>(weight.data) + done, values.data(),
                             std::min(values.size(), weight.bytes() - done), stream);
    }
  }
  backend.synchronize(stream);
}

}  // namespace llmfp8
