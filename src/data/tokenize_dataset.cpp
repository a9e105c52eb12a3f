// Reading and tokenising by chunks: memory holds one chunk of text and the tokens so far. Called by the trainer.
#include "data/tokenize_dataset.h"

#include <numeric>

#include "core/error.h"
#include "core/log.h"
#include "core/thread_pool.h"

namespace llmfp8 {

namespace {

constexpr std::int64_t kChunkRows = 4096;
constexpr double kFewSupervised = 0.02;

enum class Part : std::uint8_t { none, train, held_out };

std::vector<Part> parts_of(std::int64_t rows, const SplitRows& split) {
  std::vector<Part> parts(static_cast<std::size_t>(rows), Part::none);
  const auto mark = [&](const std::vector<std::int64_t>& indices, Part part) {
    for (const std::int64_t row : indices) {
      CHECK(row >= 0 && row < rows, "the split names row {} of {}", row, rows);
      Part& slot = parts[static_cast<std::size_t>(row)];
      CHECK(slot == Part::none, "the split names row {} twice", row);
      slot = part;
    }
  };
  mark(split.train, Part::train);
  mark(split.test, Part::held_out);
  return parts;
}

}  // namespace

std::int64_t TokenizedDataset::dropped() const {
  return std::accumulate(rows_by_fault.begin() + 1, rows_by_fault.end(), std::int64_t{0});
}

std::string TokenizedDataset::fault_summary() const {
  if (dropped() == 0) return "";
  std::vector<std::string> kinds;
  for (std::size_t fault = 1; fault < kRowFaults; ++fault)
    if (rows_by_fault[fault] > 0)
      kinds.push_back(fmt::format("{} {}", rows_by_fault[fault], name_of(static_cast<RowFault>(fault))));
  return fmt::format("{} row{} left out: {}", dropped(), dropped() == 1 ? "" : "s", fmt::join(kinds, ", "));
}

TokenizedDataset tokenize_dataset(const Dataset& dataset, const SplitRows& split, const RowEncoder& encoder,
                                  const TokenizeProgress& progress) {
  const std::vector<Part> parts = parts_of(dataset.rows(), split);
  TokenizedDataset result;
  for (std::int64_t begin = 0; begin < dataset.rows(); begin += kChunkRows) {
    const std::int64_t end = std::min(dataset.rows(), begin + kChunkRows);
    const std::vector<DatasetRow> rows = dataset.read(begin, end);
    std::vector<TokenizedRow> tokenized(rows.size());
    parallel_for(end - begin, 16, [&](std::int64_t first, std::int64_t last) {
      for (auto i = static_cast<std::size_t>(first); i < static_cast<std::size_t>(last); ++i)
        if (rows[i].fault == RowFault::none && parts[static_cast<std::size_t>(rows[i].index)] != Part::none)
          tokenized[i] = encoder.encode(rows[i]);
    });
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const Part part = parts[static_cast<std::size_t>(rows[i].index)];
      if (part == Part::none) continue;
      const RowFault fault = rows[i].fault == RowFault::none && tokenized[i].ids.empty() ? RowFault::empty : rows[i].fault;
      ++result.rows_by_fault[static_cast<std::size_t>(fault)];
      if (fault == RowFault::none) (part == Part::train ? result.train : result.held_out).add(tokenized[i], rows[i].index);
    }
    if (progress) progress(end, dataset.rows());
  }
  const std::string where = dataset.files().front().string();
  CHECK(result.train.rows() > 0 || split.train.empty(), "{}: no usable row to train on; {}", where, result.fault_summary());
  CHECK(result.held_out.rows() > 0 || split.test.empty(), "{}: no usable row held out; {}", where, result.fault_summary());
  CHECK(result.train.total_supervised() > 0 || split.train.empty(),
        "{}: not one token of the training rows is supervised (max_seq_length {} cuts every answer off?)", where,
        encoder.options().max_seq_length);
  if (!split.train.empty() && result.train.supervised_share() < kFewSupervised)
    log::warning("only {:.2f} % of the training tokens are supervised; look at --loss_on, --max_seq_length and the data set's columns",
                 100 * result.train.supervised_share());
  result.train.arrange(split.train);
  result.held_out.arrange(split.test);
  return result;
}

}  // namespace llmfp8
