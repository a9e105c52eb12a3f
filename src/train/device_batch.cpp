#include "train/device_batch.h"

#include <algorithm>
#include <cstring>

namespace llmfp8 {
namespace {

constexpr int kBatchesUnderWay = 3;

std::int64_t align(std::int64_t n) { return (n + 63) / 64 * 64; }

std::size_t batch_bytes(const BatchLimits& limits) {
  CHECK(!limits.capacities.empty() && limits.max_docs > 0, "a batch needs a capacity and a document slot");
  const std::int64_t capacity = limits.capacities.back();
  CHECK(capacity % 128 == 0, "capacity {}, wanted a multiple of 128", capacity);
  return static_cast<std::size_t>(4 * align(capacity) + align(limits.max_docs + 1) + 64) * sizeof(std::int32_t);
}

Tensor first(const Tensor& vector, std::int64_t n) { return Tensor(vector.data, vector.dtype, Shape{n}); }

}  // namespace

DeviceBatch::DeviceBatch(const BatchLimits& limits, Backend& backend)
    : limits_(limits),
      backend_(backend),
      buffer_(backend.allocate(batch_bytes(limits), "batch")),
      staging_(backend, batch_bytes(limits), kBatchesUnderWay, "batches on their way to the device") {
  const std::int64_t capacity = limits.capacities.back();
  std::int64_t offset = 0;
  const auto take = [&](std::int64_t n) {
    const Tensor vector = buffer_.tensor(DType::i32, Shape{n}, static_cast<std::size_t>(offset) * sizeof(std::int32_t));
    offset += align(n);
    return vector;
  };
  whole_.tokens = take(capacity);
  whole_.labels = take(capacity);
  whole_.positions = take(capacity);
  whole_.supervised_rows = take(capacity);
  whole_.cu_seqlens = take(limits.max_docs + 1);
  whole_.counts = take(4);
  whole_.max_doc_tokens = limits.max_doc_tokens;
}

Batch DeviceBatch::view(std::int64_t capacity) const {
  CHECK(std::find(limits_.capacities.begin(), limits_.capacities.end(), capacity) != limits_.capacities.end(),
        "a batch of capacity {} was not planned for", capacity);
  Batch batch = whole_;
  batch.tokens = first(whole_.tokens, capacity);
  batch.labels = first(whole_.labels, capacity);
  batch.positions = first(whole_.positions, capacity);
  batch.supervised_rows = first(whole_.supervised_rows, capacity);
  return batch;
}

std::vector<Batch> DeviceBatch::kinds() const {
  std::vector<Batch> batches;
  for (std::int64_t capacity : limits_.capacities) {
    batches.push_back(view(capacity));
    if (!limits_.can_be_full(capacity)) continue;
    batches.push_back(view(capacity));
    batches.back().equal_doc_tokens = limits_.equal_doc_tokens;
  }
  return batches;
}

Batch DeviceBatch::upload(const HostBatch& host, Stream& stream) {
  Batch batch = view(host.capacity);
  CHECK(static_cast<std::int64_t>(host.cu_seqlens.size()) == batch.cu_seqlens.numel() && host.max_doc_tokens <= limits_.max_doc_tokens,
        "a batch of {} document slots and up to {} tokens a document, planned for {} and {}", host.cu_seqlens.size() - 1,
        host.max_doc_tokens, limits_.max_docs, limits_.max_doc_tokens);
  auto* const staged = static_cast<std::byte*>(staging_.next());
  const auto copy_bytes = [&](const Tensor& to, const void* from, std::size_t bytes) {
    std::byte* const block = staged + (static_cast<std::byte*>(to.data) - static_cast<std::byte*>(buffer_.data()));
    std::memcpy(block, from, bytes);
    backend_.copy_to_device(to.data, block, bytes, stream);
  };
  const auto copy = [&](const Tensor& to, const std::vector<std::int32_t>& from) {
    CHECK(from.size() <= static_cast<std::size_t>(to.numel()), "{} values for {} places", from.size(), to.numel());
    copy_bytes(to, from.data(), from.size() * sizeof(std::int32_t));
  };
  copy(batch.tokens, host.tokens);
  copy(batch.labels, host.labels);
  copy(batch.positions, host.positions);
  copy(batch.supervised_rows, host.supervised_rows);
  copy(batch.cu_seqlens, host.cu_seqlens);
  copy_bytes(batch.counts, &host.counts, sizeof(BatchCounts));
  staging_.enqueued(stream);
  batch.host_counts = host.counts;
  if (limits_.can_be_full(host.capacity) && host.counts.num_tokens == host.capacity) batch.equal_doc_tokens = limits_.equal_doc_tokens;
  return batch;
}

std::string phase_of_batch(const char* what, const Batch& batch) {
  return fmt::format("{} of {} tokens{}", what, batch.capacity(), batch.equal_doc_tokens > 0 ? " in equal rows" : "");
}

}  // namespace llmfp8
