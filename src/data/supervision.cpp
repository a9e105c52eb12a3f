// Tokens and labels of a row. Called by tokenize_dataset, from several threads.
#include "data/supervision.h"

#include <algorithm>

#include "core/batch.h"
#include "core/error.h"

namespace llmfp8 {

TokenizedRow label_tokens(const SupervisedIds& tokens, const SupervisionOptions& options) {
  CHECK(tokens.ids.size() == tokens.supervised.size(), "{} ids and {} marks", tokens.ids.size(), tokens.supervised.size());
  CHECK(options.max_seq_length >= 1, "max_seq_length is {}; it must be at least 1", options.max_seq_length);
  const std::size_t length = std::min(tokens.ids.size(), static_cast<std::size_t>(options.max_seq_length));
  TokenizedRow row;
  row.untruncated_length = static_cast<std::int64_t>(tokens.ids.size());
  row.truncated = length < tokens.ids.size();
  row.ids.assign(tokens.ids.begin(), tokens.ids.begin() + static_cast<std::ptrdiff_t>(length));
  row.labels.assign(length, kIgnoreLabel);
  for (std::size_t t = 0; t + 1 < length; ++t)
    if (options.loss_on == LossOn::all || tokens.supervised[t + 1] != 0) row.labels[t] = row.ids[t + 1];
  return row;
}

RowEncoder::RowEncoder(const Tokenizer& tokenizer, const ChatTemplate* chat_template, const SupervisionOptions& options)
    : tokenizer_(tokenizer), chat_template_(chat_template), options_(options) {
  const std::vector<std::int32_t> added = tokenizer.encode("", true);
  const auto bos = tokenizer.bos_id();
  if (!added.empty() && (!bos || added.front() == *bos)) bos_.assign(1, added.front());
}

TokenizedRow RowEncoder::encode(const DatasetRow& row) const {
  CHECK(row.fault == RowFault::none, "row {} is {}", row.index, name_of(row.fault));
  if (row.messages.empty()) return label_tokens(plain_text(row), options_);
  CHECK(chat_template_ != nullptr, "row {} is a conversation, the rows before it are plain text; give a --chat_template",
        row.index);
  return label_tokens(tokenizer_.encode_segments(conversation(row)), options_);
}

RowFault RowEncoder::fault_of(const DatasetRow& row) const {
  if (row.fault != RowFault::none || row.messages.empty() || chat_template_ == nullptr) return row.fault;
  return chat_template_->takes(row.messages, row.extras) ? RowFault::none : RowFault::bad_messages;
}

std::vector<TextSegment> RowEncoder::conversation(const DatasetRow& row) const {
  const Learnt learnt = options_.loss_on == LossOn::all          ? Learnt::nothing
                        : options_.loss_on == LossOn::completion ? Learnt::completion
                                                                 : Learnt::assistant;
  try {
    return chat_template_->render(row.messages, learnt, row.extras);
  } catch (const Error& error) {
    throw Error(fmt::format("row {}: {}", row.index, error.what()));
  }
}

std::string RowEncoder::description() const {
  constexpr int kVersion = 2;  // of the rules in this file and in text/
  return fmt::format("encoding {}; tokenizer {:016x}; template {}; at most {} tokens; learns {}", kVersion, tokenizer_.fingerprint(),
                     chat_template_ == nullptr ? "none" : chat_template_->description(), options_.max_seq_length,
                     options_.loss_on == LossOn::all          ? "all"
                     : options_.loss_on == LossOn::completion ? "the last completion"
                                                              : "assistant turns");
}

SupervisedIds RowEncoder::plain_text(const DatasetRow& row) const {
  std::vector<TextSegment> segments;
  if (!row.prompt.empty()) segments.push_back({row.prompt, false});
  segments.push_back({row.text, true});
  SupervisedIds tokens = tokenizer_.encode_segments(segments);
  if (!bos_.empty() && (tokens.ids.empty() || tokens.ids.front() != bos_.front())) {
    tokens.ids.insert(tokens.ids.begin(), bos_.front());
    tokens.supervised.insert(tokens.supervised.begin(), 0);
  }
  const auto eos = tokenizer_.eos_id();
  if (eos && (tokens.ids.empty() || tokens.ids.back() != *eos)) {
    tokens.ids.push_back(*eos);
    tokens.supervised.push_back(1);
  }
  return tokens;
}

}  // namespace llmfp8
