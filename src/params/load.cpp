#include "params/load.h"

#include <cstring>

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

}  // namespace llmfp8
