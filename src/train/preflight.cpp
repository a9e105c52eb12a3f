#include "train/preflight.h"

#include <algorithm>
#include <cmath>
#include <system_error>

#include "core/batch.h"
#include "hub/convert.h"

namespace llmfp8 {
namespace {

constexpr double kUntrainedShare = 0.01;      // of the median norm
constexpr std::size_t kReferenceTokens = 512;  // whose norms make the median
constexpr std::size_t kNamed = 5;              // tokens that a line names

std::string size_text(double bytes) {
  return bytes < 1e9 ? fmt::format("{:.1f} MB", bytes / 1e6) : fmt::format("{:.1f} GB", bytes / 1e9);
}

std::string of_rows(std::int64_t count, std::int64_t rows) {
  return fmt::format("{} of {} rows ({:.1f} %)", count, rows, 100.0 * static_cast<double>(count) / static_cast<double>(rows));
}

// The tokenizer's own beginning of text, which its post-processor puts; < 0: it puts none.
std::int32_t leading_bos(const Tokenizer& tokenizer) {
  const std::vector<std::int32_t> empty = tokenizer.encode("", true);
  return !empty.empty() && tokenizer.bos_id() == empty.front() ? empty.front() : -1;
}

// All that are known, or as many of them as tell as much, evenly spread: their tokens may have to come from a disk.
std::vector<std::int64_t> rows_to_look_at(const TokenStore& rows) {
  constexpr std::int64_t kMost = 20000;
  std::vector<std::int64_t> chosen;
  const std::int64_t count = std::min(rows.known_rows(), kMost);
  for (std::int64_t i = 0; i < count; ++i) chosen.push_back(rows.known_row(i * rows.known_rows() / count));
  return chosen;
}

// What is said of every row holds of those that were looked at.
std::string of_a_sample(const std::vector<std::int64_t>& looked_at, const TokenStore& rows) {
  return std::ssize(looked_at) == rows.rows() ? "" : fmt::format(" ({} of {} looked at)", looked_at.size(), rows.rows());
}

PreflightCheck check_begin(const TokenStore& rows, const Tokenizer& tokenizer) {
  PreflightCheck check{"beginning of text", "", false};
  const std::int32_t bos = leading_bos(tokenizer);
  if (bos < 0) {
    check.found = "the tokenizer puts none";
    return check;
  }
  std::int64_t none = 0, several = 0;
  const std::vector<std::int64_t> looked_at = rows_to_look_at(rows);
  for (const std::int64_t row : looked_at) {
    const auto ids = rows.ids(row);
    none += ids[0] != bos;
    several += ids[0] == bos && ids.size() > 1 && ids[1] == bos;
  }
  check.warns = none > 0 || several > 0;
  check.found = !check.warns  ? fmt::format("one {} in every row{}", tokenizer.id_to_token(bos), of_a_sample(looked_at, rows))
                : several > 0 ? fmt::format("{} begin with {} twice", of_rows(several, std::ssize(looked_at)), tokenizer.id_to_token(bos))
                              : fmt::format("{} do not begin with {}", of_rows(none, std::ssize(looked_at)), tokenizer.id_to_token(bos));
  return check;
}

// Whether one of the last two learnt tokens is special: some templates put a line break behind the end of a turn.
bool learns_to_stop(std::span<const std::int32_t> labels, const Tokenizer& tokenizer) {
  int seen = 0;
  for (std::size_t i = labels.size(); i-- > 0 && seen < 2;) {
    if (labels[i] == kIgnoreLabel) continue;
    if (tokenizer.is_special(labels[i]) || tokenizer.eos_id() == labels[i]) return true;
    ++seen;
  }
  return false;
}

PreflightCheck check_end(const TokenStore& rows, const Tokenizer& tokenizer, std::int64_t max_seq_length) {
  std::int64_t whole = 0, endless = 0;
  const std::vector<std::int64_t> looked_at = rows_to_look_at(rows);
  for (const std::int64_t row : looked_at) {
    const std::vector<std::int32_t> labels = rows.labels(row);
    const bool learns = std::any_of(labels.begin(), labels.end(), [](std::int32_t label) { return label != kIgnoreLabel; });
    if (std::ssize(labels) >= max_seq_length || !learns) continue;
    ++whole;
    endless += !learns_to_stop(labels, tokenizer);
  }
  PreflightCheck check{"end of text", "", endless > 0};
  check.found = whole == 0     ? "no row has its end in max_seq_length tokens"
                : endless == 0 ? fmt::format("every whole row ends in a supervised special token{}", of_a_sample(looked_at, rows))
                               : fmt::format("{} end without a supervised special token: the model does not learn from them when to stop",
                                             of_rows(endless, whole));
  check.warns = check.warns || whole == 0;
  return check;
}

// L2 norm of one row of the embedding.
double embedding_norm(Engine& engine, std::int32_t id) {
  const Tensor row = engine.params().embedding().slice_rows(id, 1);
  std::vector<std::byte> stored(row.bytes());
  engine.backend().copy_to_host(stored.data(), row.data, stored.size(), engine.stream());
  engine.backend().synchronize(engine.stream());
  const auto n = static_cast<std::size_t>(row.numel());
  std::vector<float> values(n);
  convert_elements(stored.data(), row.dtype, values.data(), DType::f32, n);
  double sum = 0;
  for (const float x : values) sum += static_cast<double>(x) * static_cast<double>(x);
  return std::sqrt(sum);
}

}  // namespace

std::vector<PreflightCheck> check_row_ends(const TokenStore& rows, const Tokenizer& tokenizer, std::int64_t max_seq_length) {
  return {check_begin(rows, tokenizer), check_end(rows, tokenizer, max_seq_length)};
}

PreflightCheck check_special_embeddings(const TokenStore& rows, const Tokenizer& tokenizer, Engine& engine) {
  std::vector<bool> used(static_cast<std::size_t>(engine.config().vocab_size));
  for (const std::int64_t row : rows_to_look_at(rows))
    for (const std::int32_t id : rows.ids(row)) used[static_cast<std::size_t>(id)] = true;
  std::vector<std::int32_t> special, others;
  for (std::int32_t id = 0; id < static_cast<std::int32_t>(used.size()); ++id)
    if (used[static_cast<std::size_t>(id)]) (tokenizer.is_special(id) ? special : others).push_back(id);
  PreflightCheck check{"special tokens", "none in the rows", false};
  if (special.empty() || others.empty()) return check;

  std::vector<double> norms;
  const std::size_t step = std::max<std::size_t>(1, others.size() / kReferenceTokens);
  for (std::size_t i = 0; i < others.size(); i += step) norms.push_back(embedding_norm(engine, others[i]));
  std::nth_element(norms.begin(), norms.begin() + static_cast<std::ptrdiff_t>(norms.size() / 2), norms.end());
  const double median = norms[norms.size() / 2];

  std::string names;
  std::size_t untrained = 0;
  for (const std::int32_t id : special) {
    if (embedding_norm(engine, id) >= kUntrainedShare * median) continue;
    if (++untrained <= kNamed) names += (names.empty() ? "" : ", ") + tokenizer.id_to_token(id);
  }
  check.warns = untrained > 0;
  check.found = untrained == 0 ? fmt::format("{} in the rows, each with a trained embedding", special.size())
                               : fmt::format("{}{}: in the rows, but the embedding looks untrained (norm below 1 % of other tokens'); "
                                             "an instruct model, or a template without them, may serve better",
                                             names, untrained > kNamed ? ", …" : "");
  return check;
}

PreflightCheck judge_disk(const std::filesystem::path& folder, const DiskNeed& need, std::uint64_t free_bytes) {
  const double free = static_cast<double>(free_bytes), model = static_cast<double>(need.model_bytes);
  CHECK(free >= model, "--output_dir {}: {} free, saving the model needs {}", folder.string(), size_text(free), size_text(model));
  // An old checkpoint goes when the new one is whole.
  const double on_the_way = need.snapshots > 0 ? static_cast<double>(need.snapshot_bytes) * static_cast<double>(need.snapshots + 1) : 0;
  PreflightCheck check{"disk", "", free < model + on_the_way};
  check.found = fmt::format("the model takes {}{}; {} free", size_text(model),
                            on_the_way > 0 ? fmt::format(", checkpoints up to {}", size_text(on_the_way)) : "", size_text(free));
  if (check.warns) check.found += ": not enough for all (see --save_interval, --keep_checkpoints)";
  return check;
}

PreflightCheck check_disk(const std::filesystem::path& folder, const DiskNeed& need) {
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(folder, error);
  if (error) return {"disk", fmt::format("free space cannot be read: {}", error.message()), true};
  return judge_disk(folder, need, space.available);
}

}  // namespace llmfp8
