// llm-fp8 data: a data set before it is trained on: what is left out, cut, learnt, there twice, and some rows token by token.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "cli/commands/commands.h"
#include "cli/commands/flags.h"
#include "cli/commands/model_session.h"
#include "cli/options.h"
#include "core/batch.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/thread_pool.h"
#include "data/dataset_statistics.h"
#include "data/encode_rows.h"
#include "data/row_tokens.h"
#include "hub/file_io.h"
#include "report/console.h"
#include "report/dataset_view.h"
#include "report/text_table.h"
#include "train/downloads.h"
#include "train/run_inputs.h"

namespace llmfp8 {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::int64_t kMostBars = 20;

struct DataFlags {
  RunConfig run = default_config(Program::train_fp8);
  std::int64_t rows = 3, first = 0;
  std::string html;
  bool json = false;
};

void declare(FlagSet& flags, DataFlags& given) {
  for (const char* name : {"model_name", "dataset_name", "split_name", "dataset_config", "dataset_text_field", "num_of_samples", "max_seq_length",
                           "loss_on", "chat_template", "template_date", "weights_cache_dir", "threads"})
    flags.of_trainer(name, &given.run);
  flags.whole("rows", {0, 1000}, &given.rows, "show N rows");
  flags.whole("first", {0}, &given.first, "number of the first row that is shown; the data set's begins with 0");
  flags.text("html", "FILE", &given.html, "write it as one HTML page, which needs no network");
  flags.on_off("json", &given.json, "one JSON object on standard output");
}

// Before all rows are looked at, rather than after.
void check_folder_of(const std::string& html) {
  const std::filesystem::path folder = std::filesystem::path(html).parent_path();
  std::error_code ignored;
  if (!folder.empty() && !std::filesystem::is_directory(folder, ignored)) fail_usage("data: --html {}: there is no folder {}", html, folder.string());
}

// A row that is shown.
struct LookedAt {
  std::int64_t row = 0;
  RowFault fault = RowFault::none;
  TokenizedRow tokens;
  std::vector<ShownToken> shown;

  std::int64_t supervised() const {
    return std::count_if(tokens.labels.begin(), tokens.labels.end(), [](std::int32_t label) { return label != kIgnoreLabel; });
  }
};

std::vector<LookedAt> look_at(const Dataset& dataset, const RowEncoder& encoder, const Tokenizer& tokenizer, const DataFlags& given) {
  std::vector<LookedAt> rows;
  const std::int64_t end = std::min(dataset.rows(), given.first + given.rows);
  for (const DatasetRow& row : dataset.read(given.first, end)) {
    EncodedRow encoded = encode_row(encoder, row);
    LookedAt looked{row.index, encoded.fault, std::move(encoded.tokens), {}};
    looked.shown = row_tokens(tokenizer, looked.tokens.ids, looked.tokens.labels);
    rows.push_back(std::move(looked));
  }
  return rows;
}

// A name as somebody gave it, on one line.
std::string one_line_of(const std::string& name) { return one_line(visible_text(name, LineFeeds::plain)); }

// What is printed, drawn and written.
struct Found {
  const DataFlags& given;
  const Dataset& dataset;
  std::string chat_template;  // "none" for plain text
  DatasetStatistics statistics;
  std::vector<LengthBar> bars;
  std::vector<LookedAt> rows;
};

// "12 rows (1.5 %)"; what: "row", or nothing.
std::string share_text(std::int64_t part, std::int64_t whole, std::string_view what = "") {
  const double percent = whole == 0 ? 0.0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
  return what.empty() ? fmt::format("{} ({:.1f} %)", part, percent) : fmt::format("{} {}{} ({:.1f} %)", part, what, part == 1 ? "" : "s", percent);
}

std::string repeats_text(const Repeats& repeats, std::int64_t of) {
  std::string text = share_text(repeats.count, of);
  std::vector<std::string> pairs;
  for (const auto& [first, again] : repeats.pairs) pairs.push_back(fmt::format("{} = {}", again, first));
  if (!pairs.empty()) text += fmt::format(": row {}{}", fmt::join(pairs, ", "), repeats.count > std::ssize(pairs) ? ", …" : "");
  return text;
}

std::string files_text(const Dataset& dataset) {
  const auto& files = dataset.files();
  std::string text = fmt::format("{}", files.size());
  for (std::size_t i = 0; i < std::min<std::size_t>(files.size(), 3); ++i)
    text += (i == 0 ? ": " : ", ") + one_line_of(files[i].filename().string());
  return text + (files.size() > 3 ? ", …" : "");
}

std::string left_out_text(const DatasetStatistics& s) {
  std::vector<std::string> kinds;
  for (std::size_t fault = 1; fault < kRowFaults; ++fault)
    if (s.rows_by_fault[fault] > 0) kinds.push_back(fmt::format("{} {}", s.rows_by_fault[fault], name_of(static_cast<RowFault>(fault))));
  return share_text(s.rows - s.usable(), s.rows) + (kinds.empty() ? "" : fmt::format(": {}", fmt::join(kinds, ", ")));
}

std::vector<DatasetView::Figure> figures(const Found& found) {
  const DatasetStatistics& s = found.statistics;
  std::vector<DatasetView::Figure> list = {{"rows", std::to_string(s.rows)},
                                           {"files", files_text(found.dataset)},
                                           {"columns", one_line_of(fmt::format("{}", fmt::join(found.dataset.columns(), ", ")))},
                                           {"left out", left_out_text(s)}};
  if (s.usable() == 0) return list;
  const LengthQuantiles q = s.length_quantiles();
  list.push_back({"tokens", fmt::format("{} after the cut", s.tokens)});
  list.push_back({"row lengths", fmt::format("min {}, median {}, 90 % {}, 99 % {}, max {}", q.min, q.median, q.p90, q.p99, q.max)});
  list.push_back({fmt::format("cut at {}", found.given.run.max_seq_length),
                  share_text(s.truncated_rows, s.usable(), "row") + ", " +
                      share_text(s.truncated_tokens, s.tokens + s.truncated_tokens, "token")});
  list.push_back({"learnt tokens", share_text(s.supervised, s.tokens)});
  list.push_back({"rows that learn nothing", share_text(s.unsupervised_rows, s.usable())});
  list.push_back({"repeated rows", repeats_text(s.repeated_rows, s.usable())});
  if (s.prompts > 0) list.push_back({"repeated prompts", repeats_text(s.repeated_prompts, s.prompts)});
  return list;
}

DatasetView view_of(const Found& found) {
  const RunConfig& run = found.given.run;
  DatasetView view;
  view.title = one_line_of(fmt::format("{}, split {}", run.dataset_name, found.dataset.split_name()));
  view.subtitle = one_line_of(fmt::format("as {} reads it; chat template: {}", run.model_name, found.chat_template));
  view.figures = figures(found);
  for (const LengthBar& bar : found.bars) view.bars.push_back({bar.from, bar.to, bar.rows, bar.cut_rows});
  view.max_seq_length = run.max_seq_length;
  for (const LookedAt& row : found.rows) {
    std::string remark = fmt::format("{} tokens, {} of them learnt", row.tokens.ids.size(), row.supervised());
    if (row.tokens.truncated) remark += fmt::format("; cut, it has {}", row.tokens.untruncated_length);
    if (row.fault != RowFault::none) remark = fmt::format("left out: {}", name_of(row.fault));
    view.examples.push_back({row.row, std::move(remark), visible(row.shown, LineFeeds::marked)});
  }
  return view;
}

Json repeats_json(const Repeats& repeats) {
  Json pairs = Json::array();
  for (const auto& [first, again] : repeats.pairs) pairs.push_back({first, again});
  return {{"rows", repeats.count}, {"pairs", std::move(pairs)}};
}

Json rows_json(const std::vector<LookedAt>& rows) {
  Json list = Json::array();
  for (const LookedAt& row : rows) {
    Json tokens = Json::array();
    for (const ShownToken& token : row.shown)
      tokens.push_back({{"text", token.text}, {"ids", token.ids}, {"supervised", token.is_learnt}, {"special", token.is_special}});
    list.push_back({{"row", row.row},
                    {"left_out", row.fault == RowFault::none ? Json(nullptr) : Json(name_of(row.fault))},
                    {"length", row.tokens.untruncated_length},
                    {"tokens", std::move(tokens)}});
  }
  return list;
}

Json json_of(const Found& found) {
  const DatasetStatistics& s = found.statistics;
  constexpr const char* kFaults[kRowFaults] = {"", "null", "empty", "not_utf8", "bad_messages"};
  Json left_out = Json::object(), files = Json::array(), bars = Json::array();
  for (std::size_t fault = 1; fault < kRowFaults; ++fault) left_out[kFaults[fault]] = s.rows_by_fault[fault];
  for (const auto& file : found.dataset.files()) files.push_back(file.string());
  for (const LengthBar& bar : found.bars) bars.push_back({{"from", bar.from}, {"to", bar.to}, {"rows", bar.rows}, {"truncated", bar.cut_rows}});
  const LengthQuantiles q = s.length_quantiles();
  return {{"dataset", found.given.run.dataset_name},
          {"split", found.dataset.split_name()},
          {"model", found.given.run.model_name},
          {"chat_template", found.chat_template},
          {"rows", s.rows},
          {"files", std::move(files)},
          {"columns", found.dataset.columns()},
          {"left_out", std::move(left_out)},
          {"max_seq_length", found.given.run.max_seq_length},
          {"tokens", s.tokens},
          {"length", {{"min", q.min}, {"median", q.median}, {"p90", q.p90}, {"p99", q.p99}, {"max", q.max}}},
          {"histogram", std::move(bars)},
          {"truncated", {{"rows", s.truncated_rows}, {"tokens", s.truncated_tokens}}},
          {"supervised", {{"tokens", s.supervised}, {"share", s.supervised_share()}}},
          {"rows_without_label", s.unsupervised_rows},
          {"repeated_rows", repeats_json(s.repeated_rows)},
          {"prompts", s.prompts},
          {"repeated_prompts", repeats_json(s.repeated_prompts)},
          {"shown", rows_json(found.rows)}};
}

}  // namespace

int run_data(CommandArgs args) {
  DataFlags given;
  FlagSet flags("data", "what a data set is made of, and its rows as the model sees them; nothing is trained, no weights are read",
                "--model_name NAME --dataset_name NAME [flags]");
  declare(flags, given);
  if (!flags.parse(args)) return 0;
  const RunConfig& run = given.run;
  check_folder_of(given.html);
  TemplateDate::parse(run.template_date);  // refuses what is no date
  if (run.threads > 0) set_num_threads(static_cast<int>(run.threads));
  Console console;
  const Tokenizer tokenizer = open_tokenizer_at(fetch_model(run.model_name, run.weights_cache_dir, console, ModelParts::without_weights));
  DatasetOptions options;
  options.config = run.dataset_config;
  options.text_field = run.dataset_text_field;
  options.num_of_samples = run.num_of_samples;
  const Dataset dataset =
      open_dataset(fetch_dataset(run.dataset_name, run.split_name, run.dataset_config, run.weights_cache_dir, console), options);
  if (given.first >= dataset.rows())
    fail_usage("data: --first {}: the data set has {} row{}, the first is 0", given.first, dataset.rows(), dataset.rows() == 1 ? "" : "s");
  std::optional<ChatTemplate> chat_template;
  if (wants_chat_template(run.chat_template, dataset)) chat_template = ChatTemplate::choose(run.chat_template, tokenizer, run.template_date);
  const RowEncoder encoder(tokenizer, chat_template ? &*chat_template : nullptr, {run.max_seq_length, run.loss_on});

  Found found{given, dataset, chat_template ? std::string(chat_template->name()) : "none", {}, {}, {}};
  found.rows = look_at(dataset, encoder, tokenizer, given);
  found.statistics = measure_dataset(dataset, encoder, tokenising_progress(console));
  console.finish();
  found.bars = length_bars(found.statistics, run.max_seq_length, kMostBars);
  const DatasetView view = view_of(found);
  if (!given.html.empty()) write_file_atomically(given.html, dataset_page(view, {unix_seconds(), LLMFP8_VERSION}));
  if (given.json) {
    fmt::print("{}\n", json_of(found).dump(-1, ' ', false, Json::error_handler_t::replace));
  } else {
    const bool is_terminal = is_a_terminal(stdout);
    const DatasetTextOptions text{is_terminal ? terminal_width(stdout) - 1 : 80, is_terminal ? Marks::grey : Marks::quotes};
    fmt::print("{}", dataset_text(view, text));
  }
  CHECK(std::fflush(stdout) == 0, "standard output cannot be written");
  return 0;
}

}  // namespace llmfp8
