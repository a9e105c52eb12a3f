#include "train/parity_batch.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <set>
#include <string_view>

#include "hub/safetensors.h"

namespace llmfp8 {
namespace {

// What a file may hold: everything in it fits the engine's 32-bit positions.
constexpr std::int64_t kMostTokens = std::numeric_limits<std::int32_t>::max() / 2;

// Values of an i64 or i32 tensor; the mapping may be unaligned.
std::vector<std::int64_t> integers(const SafetensorsFile& file, std::string_view name) {
  const SafetensorsEntry& entry = file.at(name);
  CHECK(entry.dtype == DType::i64 || entry.dtype == DType::i32, "{}: tensor {} is {}, wanted I64 or I32", file.origin(),
        name, safetensors_dtype_name(entry.dtype));
  const std::int64_t n = entry.shape.numel();
  CHECK(n > 0 && n <= kMostTokens, "{}: tensor {} is {}, wanted 1 to {} elements", file.origin(), name,
        to_string(entry.shape), kMostTokens);
  std::vector<std::int64_t> values(static_cast<std::size_t>(n));
  if (entry.dtype == DType::i64) {
    std::memcpy(values.data(), entry.tensor.data, entry.tensor.bytes());
  } else {
    std::vector<std::int32_t> narrow(values.size());
    std::memcpy(narrow.data(), entry.tensor.data, entry.tensor.bytes());
    std::copy(narrow.begin(), narrow.end(), values.begin());
  }
  return values;
}

void check_shape(const SafetensorsFile& file, std::string_view name, const Shape& wanted) {
  const Shape& found = file.at(name).shape;
  CHECK(found == wanted, "{}: tensor {} is {}, wanted {} as input_ids", file.origin(), name, to_string(found),
        to_string(wanted));
}

// The documents of a file as [begin, end) among its B * S places.
struct Layout {
  std::int64_t rows = 0, columns = 0;
  std::vector<std::int64_t> begins, ends;
};

Layout padded_layout(const SafetensorsFile& file) {
  const Shape& shape = file.at("input_ids").shape;
  CHECK(shape.rank() == 2 && shape.numel() > 0,
        "{}: tensor input_ids is {}, wanted [B, S] (or cu_seqlens beside it, for packed documents)", file.origin(),
        to_string(shape));
  check_shape(file, "labels", shape);
  check_shape(file, "attention_mask", shape);
  Layout layout;
  layout.rows = shape[0];
  layout.columns = shape[1];
  const std::vector<std::int64_t> mask = integers(file, "attention_mask");
  for (std::int64_t row = 0; row < layout.rows; ++row) {
    const auto begin = mask.begin() + row * layout.columns, end = begin + layout.columns;
    const auto length = std::find(begin, end, 0) - begin;
    CHECK(length > 0, "{}: attention_mask of row {} begins with 0, wanted 1s, then 0s (padding on the right)",
          file.origin(), row);
    for (auto it = begin; it != end; ++it) {
      CHECK(*it == (it - begin < length ? 1 : 0),
            "{}: attention_mask of row {} holds {} at {}, wanted 1s, then 0s (padding on the right)", file.origin(),
            row, *it, it - begin);
    }
    layout.begins.push_back(row * layout.columns);
    layout.ends.push_back(row * layout.columns + length);
  }
  return layout;
}

Layout packed_layout(const SafetensorsFile& file) {
  const Shape& shape = file.at("input_ids").shape;
  CHECK(shape.rank() == 1, "{}: tensor input_ids is {}, wanted [T] beside cu_seqlens", file.origin(), to_string(shape));
  check_shape(file, "labels", shape);
  const std::vector<std::int64_t> cu_seqlens = integers(file, "cu_seqlens");
  CHECK(cu_seqlens.size() >= 2 && cu_seqlens.front() == 0 && cu_seqlens.back() == shape[0],
        "{}: cu_seqlens goes from {} to {}, wanted 0 to {}, the number of tokens", file.origin(), cu_seqlens.front(),
        cu_seqlens.back(), shape[0]);
  Layout layout;
  layout.rows = 1;
  layout.columns = shape[0];
  for (std::size_t i = 0; i + 1 < cu_seqlens.size(); ++i) {
    CHECK(cu_seqlens[i] < cu_seqlens[i + 1], "{}: cu_seqlens[{}] is {} and cu_seqlens[{}] is {}, wanted rising numbers",
          file.origin(), i, cu_seqlens[i], i + 1, cu_seqlens[i + 1]);
    layout.begins.push_back(cu_seqlens[i]);
    layout.ends.push_back(cu_seqlens[i + 1]);
  }
  if (file.find("position_ids") != nullptr) {
    check_shape(file, "position_ids", shape);
    const std::vector<std::int64_t> positions = integers(file, "position_ids");
    for (std::size_t d = 0; d < layout.begins.size(); ++d) {
      for (std::int64_t t = layout.begins[d]; t < layout.ends[d]; ++t) {
        const std::int64_t found = positions[static_cast<std::size_t>(t)];
        CHECK(found == t - layout.begins[d],
              "{}: position_ids[{}] is {}, wanted {}: positions start at 0 in every document", file.origin(), t, found,
              t - layout.begins[d]);
      }
    }
  }
  return layout;
}

// The document's tokens at the end of the batch. labels as HF has them: position t learns labels[t + 1].
void append(HostBatch& batch, std::span<const std::int64_t> ids, std::span<const std::int64_t> labels) {
  const auto length = static_cast<std::int32_t>(ids.size());
  for (std::int32_t t = 0; t < length; ++t) {
    const bool last = t + 1 == length;
    const std::int64_t label = last ? kIgnoreLabel : labels[static_cast<std::size_t>(t) + 1];
    if (label != kIgnoreLabel) batch.supervised_rows.push_back(static_cast<std::int32_t>(batch.tokens.size()));
    batch.tokens.push_back(static_cast<std::int32_t>(ids[static_cast<std::size_t>(t)]));
    batch.labels.push_back(static_cast<std::int32_t>(label));
    batch.positions.push_back(t);
  }
  batch.cu_seqlens.push_back(static_cast<std::int32_t>(batch.tokens.size()));
  batch.max_doc_tokens = std::max(batch.max_doc_tokens, length);
}

}  // namespace

void close_batch(HostBatch& batch) {
  batch.counts.num_tokens = static_cast<std::int32_t>(batch.tokens.size());
  batch.counts.num_docs = static_cast<std::int32_t>(batch.cu_seqlens.size()) - 1;
  batch.counts.num_supervised = static_cast<std::int32_t>(batch.supervised_rows.size());
  batch.capacity = (static_cast<std::int64_t>(batch.tokens.size()) + 127) / 128 * 128;
  const auto capacity = static_cast<std::size_t>(batch.capacity);
  batch.tokens.resize(capacity, 0);
  batch.labels.resize(capacity, kIgnoreLabel);
  batch.positions.resize(capacity, 0);
  batch.supervised_rows.resize(capacity, 0);
}

ParityBatch read_parity_batch(const std::filesystem::path& path, const ModelConfig& config) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  const Layout layout = file.find("cu_seqlens") != nullptr ? packed_layout(file) : padded_layout(file);
  const std::vector<std::int64_t> ids = integers(file, "input_ids"), labels = integers(file, "labels");
  for (std::size_t i = 0; i < ids.size(); ++i) {
    CHECK(ids[i] >= 0 && ids[i] < config.vocab_size, "{}: input_ids[{}] is {}, the model's vocabulary has {}",
          file.origin(), i, ids[i], config.vocab_size);
    CHECK(labels[i] == kIgnoreLabel || (labels[i] >= 0 && labels[i] < config.vocab_size),
          "{}: labels[{}] is {}, wanted {} or an id below {}", file.origin(), i, labels[i], kIgnoreLabel,
          config.vocab_size);
  }
  ParityBatch batch;
  batch.rows = layout.rows;
  batch.columns = layout.columns;
  batch.host.cu_seqlens = {0};
  for (std::size_t d = 0; d < layout.begins.size(); ++d) {
    const auto begin = static_cast<std::size_t>(layout.begins[d]),
               length = static_cast<std::size_t>(layout.ends[d]) - begin;
    append(batch.host, {&ids[begin], length}, {&labels[begin], length});
    for (std::int64_t t = layout.begins[d]; t < layout.ends[d]; ++t) batch.places.push_back(t);
  }
  CHECK(batch.host.max_doc_tokens <= config.max_position_embeddings, "{}: a row of {} tokens, the model reaches {}",
        file.origin(), batch.host.max_doc_tokens, config.max_position_embeddings);
  close_batch(batch.host);
  CHECK(batch.host.counts.num_supervised > 0, "{}: labels supervise no token", file.origin());
  return batch;
}

ParityBatch single_document(const ParityBatch& batch, std::int64_t document) {
  const HostBatch& from = batch.host;
  CHECK(document >= 0 && document < from.counts.num_docs, "document {} of {}", document, from.counts.num_docs);
  const std::int32_t begin = from.cu_seqlens[static_cast<std::size_t>(document)],
                     end = from.cu_seqlens[static_cast<std::size_t>(document) + 1];
  ParityBatch one;
  one.rows = 1;
  one.columns = end - begin;
  one.host.cu_seqlens = {0, end - begin};
  one.host.max_doc_tokens = end - begin;
  for (std::int32_t t = begin; t < end; ++t) {
    const auto i = static_cast<std::size_t>(t);
    if (from.labels[i] != kIgnoreLabel) one.host.supervised_rows.push_back(t - begin);
    one.host.tokens.push_back(from.tokens[i]);
    one.host.labels.push_back(from.labels[i]);
    one.host.positions.push_back(t - begin);
    one.places.push_back(t - begin);
  }
  close_batch(one.host);
  return one;
}

BatchLimits align_batches(std::span<ParityBatch> batches) {
  std::set<std::int64_t> capacities;
  BatchLimits limits;
  for (const ParityBatch& batch : batches) {
    capacities.insert(batch.host.capacity);
    limits.max_docs = std::max(limits.max_docs, static_cast<std::int64_t>(batch.host.cu_seqlens.size()) - 1);
    limits.max_doc_tokens = std::max(limits.max_doc_tokens, batch.host.max_doc_tokens);
  }
  for (ParityBatch& batch : batches) {
    batch.host.cu_seqlens.resize(static_cast<std::size_t>(limits.max_docs) + 1, batch.host.counts.num_tokens);
    batch.host.max_doc_tokens = limits.max_doc_tokens;
  }
  limits.capacities.assign(capacities.begin(), capacities.end());
  return limits;
}

}  // namespace llmfp8
