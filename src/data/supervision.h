// From a row to tokens and labels: which text is tokenised, where BOS and EOS stand, what is learnt. Called by
// tokenize_dataset.
#pragma once

#include <cstdint>

#include "core/settings.h"
#include "data/dataset.h"
#include "data/token_store.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace llmfp8 {

struct SupervisionOptions {
  std::int64_t max_seq_length = 256;  // BOS counted; what is beyond is cut off
  LossOn loss_on = LossOn::all;
};

// Labels by the shift: labels[t] = ids[t + 1] where that token is supervised, else kIgnoreLabel; the last is kIgnoreLabel.
TokenizedRow label_tokens(const SupervisedIds& tokens, const SupervisionOptions& options);

// Conversations go through the chat template, which writes its own BOS. Plain text and prompt + completion get the BOS
// that the tokenizer's post-processor would add (unless the text begins with it) and end with EOS, where there is one.
class RowEncoder {
 public:
  // Both outlive the encoder. chat_template: null where no row is a conversation.
  RowEncoder(const Tokenizer& tokenizer, const ChatTemplate* chat_template, const SupervisionOptions& options);
  RowEncoder(const Tokenizer& tokenizer, const ChatTemplate& chat_template, const SupervisionOptions& options)
      : RowEncoder(tokenizer, &chat_template, options) {}

  // Thread-safe; row.fault is none, and so is fault_of(row). Throws Error that names the row.
  TokenizedRow encode(const DatasetRow& row) const;
  // Why a row that could be read is of no use: a conversation that the template does not take.
  RowFault fault_of(const DatasetRow& row) const;
  const SupervisionOptions& options() const { return options_; }
  // Everything that the tokens of a row depend on beside the row, as text.
  std::string description() const;

 private:
  std::vector<TextSegment> conversation(const DatasetRow& row) const;
  SupervisedIds plain_text(const DatasetRow& row) const;

  const Tokenizer& tokenizer_;
  const ChatTemplate* chat_template_;
  SupervisionOptions options_;
  std::vector<std::int32_t> bos_;  // what the post-processor puts first: none or one token
};

}  // namespace llmfp8
