#include "train/run_inputs.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "core/log.h"
#include "core/user_cache.h"
#include "data/row_tokens.h"
#include "train/downloads.h"
#include "train/interrupt.h"

namespace llmfp8 {
namespace {

// Prompt and completion may be texts or lists of messages; the first rows tell.
bool has_conversations(const Dataset& dataset) {
  if (dataset.format() == RowFormat::text) return false;
  if (dataset.format() != RowFormat::prompt_completion) return true;
  const std::vector<DatasetRow> rows = dataset.read(0, std::min<std::int64_t>(dataset.rows(), 64));
  return std::any_of(rows.begin(), rows.end(), [](const DatasetRow& row) { return !row.messages.empty(); });
}

// LLMFP8_SEGMENT_TOKENS, for tests: small data sets that are treated as large ones.
std::int64_t segment_tokens() {
  const char* text = std::getenv("LLMFP8_SEGMENT_TOKENS");
  if (text == nullptr) return TokenizeOptions().segment_tokens;
  std::int64_t tokens = 0;
  const auto [end, error] = std::from_chars(text, text + std::strlen(text), tokens);
  CHECK(error == std::errc() && *end == 0 && tokens >= 1 && tokens <= INT32_MAX, "LLMFP8_SEGMENT_TOKENS is \"{}\"; a number from 1 to {} is wanted", text, INT32_MAX);
  return tokens;
}

void report_rows(const RunInputs& inputs) {
  const TokenStore& train = inputs.rows->train;
  log::info("training data: {}", train.summary());
  if (inputs.rows->held_out.rows() > 0) log::info("held out for evaluation: {} rows", inputs.rows->held_out.rows());
  const std::string faults = fault_summary(inputs.rows->rows_by_fault);
  if (!faults.empty()) log::warning("{}{}", train.knows_all() ? "" : "of those, ", faults);
  if (train.is_filling()) log::info("the other rows are tokenised while training runs");
}

}  // namespace

bool wants_chat_template(const std::string& name, const Dataset& dataset) { return name != "auto" || has_conversations(dataset); }

void keep_first(RowSequence& rows, std::int64_t most) {
  if (most > 0) rows.keep_first(most);
}

std::function<void(std::int64_t, std::int64_t)> tokenising_progress(Console& console) {
  return [&console](std::int64_t done, std::int64_t total) {
    Progress progress;
    progress.step = done;
    progress.total_steps = total;
    progress.what = "tokenising row";
    console.update(progress);
    throw_if_interrupted();
  };
}

TokenizedDataset tokenize_rows(const Dataset& dataset, const SplitRows& split, const RowEncoder& encoder, Console& console,
                               TokenizeOptions options) {
  options.segment_tokens = segment_tokens();
  if (const std::filesystem::path cache = user_cache_folder(); !cache.empty()) options.cache = cache / "tokens";
  options.progress = tokenising_progress(console);
  TokenizedDataset tokenized = tokenize_dataset(dataset, split, encoder, options);
  console.finish();
  return tokenized;
}

void check_vocabulary(TokenizedDataset& rows, const WeightSource& model, const Tokenizer& tokenizer) {
  const std::int64_t vocab = model.config().vocab_size;
  const std::int32_t largest = std::max(rows.train.largest_id(), rows.held_out.largest_id());
  CHECK(largest < vocab, "{}: the tokenizer gives id {} ('{}'), but the embedding has {} rows", model.origin(), largest,
        tokenizer.id_to_token(largest), vocab);
  rows.train.limit_ids(vocab);
  rows.held_out.limit_ids(vocab);
}

BatchLoader evaluation_loader(const TokenStore& held_out, std::int64_t batch_size, std::int64_t max_seq_length) {
  BatchLoaderOptions options;
  options.batch_size = batch_size;
  options.max_seq_length = max_seq_length;
  options.order = RowOrder::as_stored;
  return BatchLoader(held_out, options);
}

Tokenizer open_tokenizer(const WeightSource& model) {
  if (std::filesystem::is_directory(model.origin())) return Tokenizer::from_folder(model.origin());
  const auto files = model.companion_files();
  return Tokenizer::from_json(files.at("tokenizer.json"), files.at("tokenizer_config.json"), model.origin());
}

RunInputs open_run_inputs(const RunConfig& config, const TemplateDate& date, Console& console) {
  RunInputs inputs;
  const RunFiles files = fetch_run_files(config, console);
  inputs.model_origin = files.model_origin;
  inputs.dataset_origin = files.dataset_origin;
  inputs.model = open_model(files.model);
  inputs.tokenizer = std::make_unique<Tokenizer>(open_tokenizer(*inputs.model));

  DatasetOptions dataset_options;
  dataset_options.config = config.dataset_config;
  dataset_options.text_field = config.dataset_text_field;
  dataset_options.num_of_samples = config.num_of_samples;
  inputs.dataset = std::make_unique<Dataset>(open_dataset(files.dataset, dataset_options));
  CHECK(inputs.dataset->rows() >= 2, "--dataset_name {}: split {} has {} row, at least 2 are wanted (one is held out)",
        config.dataset_name, config.split_name, inputs.dataset->rows());

  if (config.num_of_samples > inputs.dataset->rows()) {
    log::warning("--num_of_samples {}: split {} has {} rows, all of them are taken", config.num_of_samples, config.split_name,
                 inputs.dataset->rows());
  }

  if (wants_chat_template(config.chat_template, *inputs.dataset)) {
    inputs.chat_template = std::make_unique<ChatTemplate>(ChatTemplate::choose(config.chat_template, *inputs.tokenizer, date));
  }
  throw_if_interrupted();
  SplitRows split = train_test_split(inputs.dataset->rows(), kHeldOutShare, kSplitSeed);
  if (config.eval_interval == 0 && config.eval_interval_steps == 0) split.test = {};
  keep_first(split.test, config.eval_max_rows);
  inputs.encoder = std::make_unique<RowEncoder>(*inputs.tokenizer, inputs.chat_template.get(), SupervisionOptions{config.max_seq_length, config.loss_on});
  TokenizeOptions tokenizing;
  if (!config.packing) tokenizing.rows = TokenizeOptions::Rows::while_used;
  tokenizing.why_before = "--packing needs the length of every row";
  inputs.rows = std::make_unique<TokenizedDataset>(tokenize_rows(*inputs.dataset, split, *inputs.encoder, console, tokenizing));
  check_vocabulary(*inputs.rows, *inputs.model, *inputs.tokenizer);
  report_rows(inputs);

  BatchLoaderOptions train;
  train.batch_size = config.batch_size;
  train.max_seq_length = config.max_seq_length;
  train.accumulation = config.gradient_accumulation_steps;
  train.seed = static_cast<std::uint64_t>(config.seed);
  train.last_batch = program_rules(config.program).drop_last ? LastBatch::drop : LastBatch::keep;
  train.packing = config.packing ? Packing::fill : Packing::off;
  inputs.train_loader = std::make_unique<BatchLoader>(inputs.rows->train, train);
  if (inputs.rows->held_out.rows() > 0) {
    inputs.eval_loader = std::make_unique<BatchLoader>(evaluation_loader(inputs.rows->held_out, config.eval_batch_size, config.max_seq_length));
  }
  return inputs;
}

std::string RunInputs::chat_template_name() const {
  return chat_template ? std::string(chat_template->name()) : "none";
}

std::string RunInputs::example(bool color, std::size_t max_chars) const {
  const auto [ids, labels] = rows->train.read(rows->train.known_row(0));
  const std::vector<ShownToken> tokens = row_tokens(*tokenizer, ids, labels);
  return marked_text(visible(tokens, LineFeeds::plain), color ? Marks::grey : Marks::quotes, max_chars);
}

}  // namespace llmfp8
