// What a run reads, opened and checked before the device is touched: model, tokenizer, template, data set, batches.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "core/run_config.h"
#include "data/batch_loader.h"
#include "data/tokenize_dataset.h"
#include "hub/checkpoint_source.h"
#include "hub/hub_options.h"
#include "report/console.h"

namespace llmfp8 {

struct RunInputs {
  std::unique_ptr<WeightSource> model;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<ChatTemplate> chat_template;  // null where the rows are plain text and none was asked for
  std::unique_ptr<Dataset> dataset;
  std::unique_ptr<RowEncoder> encoder;
  // Goes before what it is made of, which it may still be encoding.
  std::unique_ptr<TokenizedDataset> rows;  // behind a pointer: the loaders refer to its stores
  std::unique_ptr<BatchLoader> train_loader;
  std::unique_ptr<BatchLoader> eval_loader;  // held-out rows in order; null where the run never evaluates
  std::optional<HubOrigin> model_origin, dataset_origin;  // nothing for local files

  std::string chat_template_name() const;  // "llama3", …, "none"
  // The first training row as text, what is not learnt marked: greyed on a terminal, else between « and ».
  std::string example(bool color, std::size_t max_chars) const;
};

inline constexpr double kHeldOutShare = 0.1;     // of the rows
inline constexpr std::uint64_t kSplitSeed = 42;  // the Python stack's, whatever --seed says, so that the rows agree

// Throws Error for anything that cannot be trained on (see the opened parts), Interrupted when a signal asks to stop;
// warns where little is supervised.
// date: that a chat template is told.
RunInputs open_run_inputs(const RunConfig& config, const TemplateDate& date, Console& console);

// The parts of it that `llm-fp8 eval` shares.
// Whether the rows need a chat template; one that was named (not "auto") is checked even if no row needs it.
bool wants_chat_template(const std::string& name, const Dataset& dataset);
// --eval_max_rows; 0: all stay.
void keep_first(RowSequence& rows, std::int64_t most);
// A line of progress over rows that are tokenised, for as long as the console lives. The call throws Interrupted.
std::function<void(std::int64_t done, std::int64_t total)> tokenising_progress(Console& console);
// With that line of progress, in the user's cache. Throws Interrupted.
TokenizedDataset tokenize_rows(const Dataset& dataset, const SplitRows& split, const RowEncoder& encoder, Console& console,
                               TokenizeOptions options = {});
// Throws Error where a token's id has no row in the model's embedding; rows that are still to be encoded will throw it when read.
void check_vocabulary(TokenizedDataset& rows, const WeightSource& model, const Tokenizer& tokenizer);
// Held-out rows in their order. held_out outlives the loader.
BatchLoader evaluation_loader(const TokenStore& held_out, std::int64_t batch_size, std::int64_t max_seq_length);

// Tokenizer of a model, from the files that go with its weights.
Tokenizer open_tokenizer(const WeightSource& model);

}  // namespace llmfp8
