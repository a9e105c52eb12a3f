// TensorBoard event files, written natively: a TFRecord of Event messages, protobuf by hand. Sources: tensorboard's
// compat/proto/{event,summary,tensor}.proto and record_writer.py.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <set>
#include <string>
#include <string_view>

#include "core/crc32c.h"
#include "report/metrics.h"

namespace llmfp8 {

// TFRecord's masked form of crc32c.
std::uint32_t masked_crc32c(std::string_view data);

// Scalars of every record; texts for the text plugin; summary values as scalars at the last step, unless their name has a
// curve, which would end in the same point twice. Flushed each record.
class TensorboardSink : public MetricsSink {
 public:
  // Creates folder/events.out.tfevents.<seconds>.<host>.<pid>.0, whose name comes behind those of all files there: readers
  // take them in this order.
  explicit TensorboardSink(const std::filesystem::path& folder);
  ~TensorboardSink() override;
  TensorboardSink(const TensorboardSink&) = delete;
  TensorboardSink& operator=(const TensorboardSink&) = delete;

  // A run that goes on in the folder: readers forget what the files before hold of `step` and later steps. What still
  // counts of that step is to be logged again. Before anything else is logged.
  void forget_from(std::int64_t step);

  void log(const MetricRecord& record) override;
  void summary(const std::string& name, double value) override;
  void text(const std::string& name, const std::string& value) override;

  const std::filesystem::path& path() const { return path_; }

 private:
  void write_summary(std::int64_t step, double time, std::string_view summary);
  void write_record(std::string_view data);

  std::filesystem::path path_;
  std::FILE* file_ = nullptr;
  std::int64_t last_step_ = 0;
  std::set<std::string, std::less<>> curves_;  // names that were logged
};

}  // namespace llmfp8
