// llm-fp8 bench: tokens/s of training a model of a given shape here, where the time goes, and what this device could do.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "backend/registry.h"
#include "cli/commands/choices.h"
#include "cli/commands/commands.h"
#include "cli/commands/flags.h"
#include "core/error.h"
#include "core/log.h"
#include "hub/checkpoint_source.h"
#include "hub/file_io.h"
#include "hub/known_models.h"
#include "report/hardware_source.h"
#include "report/tensorboard.h"
#include "report/text_table.h"
#include "train/benchmark.h"

namespace llmfp8 {
namespace {

constexpr std::int64_t kMostRows = 1 << 22;
const Choices<StepSchedule> kSchedules = {{"auto", StepSchedule::automatic},
                                          {"in_order", StepSchedule::in_order},
                                          {"overlapped", StepSchedule::overlapped},
                                          {"graphs", StepSchedule::graphs}};

struct BenchFlags {
  std::string model, lengths, profile, run_costs, device = "auto", recipe = "default", recompute = "none", grad_dtype = "auto";
  std::string optim_state = "bf16", weight_update = "stochastic", schedule = "auto";
  std::int64_t batch_size = 8, seq = 1024, accumulation = 1, steps = 10;
  bool fp8_lm_head = false, packing = false, json = false;
};

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

void declare(FlagSet& flags, BenchFlags& given) {
  flags.text("model", "NAME", &given.model, joined(known_model_names()) + "; or a folder or .gguf file, of which only the shape is read",
             Presence::required);
  flags.whole("batch_size", {1, 4096}, &given.batch_size, "rows of a micro-batch");
  flags.whole("seq", {2, 131072}, &given.seq, "tokens of a row");
  flags.text("lengths", "FILE", &given.lengths, "a JSON list of row lengths instead, at most --seq each where that is given");
  flags.on_off("packing", &given.packing, "micro-batches of batch_size * longest row tokens instead of batch_size rows");
  flags.choice("recipe", words(kRecipes), &given.recipe, "FP8 recipe, as --fp8_scenario of train_fp8; none: bf16");
  flags.on_off("fp8_lm_head", &given.fp8_lm_head, "the language-model head in FP8 too");
  flags.whole("accumulation", {1, 4096}, &given.accumulation, "micro-batches of a step");
  flags.whole("steps", {1, 100000}, &given.steps, "timed steps, after three others");
  flags.choice("schedule", words(kSchedules), &given.schedule,
               "how steps are given to the GPU; overlapped: AdamW under the next forward pass; auto: as graphs where it has them");
  flags.choice("grad_dtype", {"auto", "fp32", "bf16"}, &given.grad_dtype, "of the gradients of weights; auto: fp32 where they accumulate");
  flags.choice("optim_state", words(kOptimStates), &given.optim_state, "how AdamW keeps its moments");
  flags.choice("weight_update", words(kWeightUpdates), &given.weight_update, "how a bf16 weight takes small updates");
  flags.choice("recompute", words(kRecompute), &given.recompute, "what the backward pass computes again");
  flags.choice("device", {"auto", "cpu", "cuda"}, &given.device, "where it runs");
  flags.text("profile", "FILE", &given.profile, "write a trace of one step for chrome://tracing or Perfetto");
  flags.text("run_costs", "DIR", &given.run_costs,
             "also what logging each step and a checkpoint cost; files lie in a new folder in DIR meanwhile");
  flags.on_off("json", &given.json, "one JSON object on standard output");
}

ModelConfig model_of(const std::string& name) {
  if (const ModelConfig* known = find_known_model(name)) return *known;
  if (!std::filesystem::exists(name)) fail_usage("--model {}: neither a folder or file nor one of {}", name, joined(known_model_names()));
  return open_model(name)->config();
}

std::vector<std::int64_t> lengths_of(const FlagSet& flags, const BenchFlags& given) {
  if (given.lengths.empty()) return {given.seq};
  const nlohmann::json list = nlohmann::json::parse(read_text_file(given.lengths), nullptr, false);
  CHECK(list.is_array() && !list.empty() && list.size() <= kMostRows, "--lengths {}: wanted a JSON list of 1 to {} numbers", given.lengths, kMostRows);
  const std::int64_t most = flags.is_set("seq") ? given.seq : 131072;
  std::vector<std::int64_t> lengths;
  for (const auto& entry : list) {
    CHECK(entry.is_number_integer() && entry.get<std::int64_t>() >= 2, "--lengths {}: found {}, wanted whole numbers from 2", given.lengths, entry.dump());
    lengths.push_back(std::min(entry.get<std::int64_t>(), most));
  }
  return lengths;
}

BenchmarkOptions options_of(const FlagSet& flags, const BenchFlags& given) {
  BenchmarkOptions o;
  o.model = model_of(given.model);
  o.batch_size = given.batch_size;
  o.accumulation = given.accumulation;
  o.steps = given.steps;
  o.lengths = lengths_of(flags, given);
  o.packing = given.packing;
  o.engine.recipe = meaning(kRecipes, given.recipe);
  o.engine.fp8_lm_head = given.fp8_lm_head;
  o.engine.recompute = meaning(kRecompute, given.recompute);
  o.engine.optimizer.state = meaning(kOptimStates, given.optim_state);
  o.engine.optimizer.weight_update = meaning(kWeightUpdates, given.weight_update);
  o.engine.schedule = meaning(kSchedules, given.schedule);
  const bool wide = given.grad_dtype == "auto" ? given.accumulation > 1 : given.grad_dtype == "fp32";
  o.engine.grad_dtype = wide ? DType::f32 : DType::bf16;
  return o;
}

// What a run logs to and saves into, gone afterwards.
class CostsFolder {
 public:
  CostsFolder(const std::string& dir, const Capabilities& device) {
    std::error_code error;
    CHECK(std::filesystem::is_directory(dir, error), "--run_costs {}: no such folder", dir);
    folder_ = std::filesystem::path(dir) / fmt::format("llm-fp8-bench-{}", getpid());
    CHECK(std::filesystem::create_directory(folder_, error), "--run_costs {}: {} cannot be made ({})", dir, folder_.string(),
          error ? error.message() : "it is there already");
    metrics_.add(open_hardware_source(device.device.starts_with("cuda")));
    metrics_.add(std::make_unique<TensorboardSink>(folder_ / "logs"));
    metrics_.add(std::make_unique<JsonlSink>(folder_ / "metrics.jsonl", FileMode::replace));
  }
  ~CostsFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  CostsFolder(const CostsFolder&) = delete;
  CostsFolder& operator=(const CostsFolder&) = delete;

  void ask_for(BenchmarkOptions& options) {
    options.metrics = &metrics_;
    options.checkpoint_folder = folder_;
  }

 private:
  std::filesystem::path folder_;
  Metrics metrics_;
};

std::string product_name(const OpInfo& i) {
  static constexpr const char* kPasses[] = {"fprop", "dgrad", "wgrad"};
  return fmt::format("{} [{}, {}] over {}{}", kPasses[static_cast<int>(i.pass)], i.rows, i.cols, i.contraction, i.fp8 ? " fp8" : "");
}

double tflops(const OpInfo& i, double ms) {
  return 2.0 * static_cast<double>(i.rows) * static_cast<double>(i.cols) * static_cast<double>(i.contraction) / (ms * 1e9);
}

std::size_t total_bytes(const BenchmarkResult& r) {
  std::size_t bytes = 0;
  for (const MemoryLine& line : r.memory) bytes += line.bytes;
  return bytes;
}

// The operations that are no products, by name: calls, time in the step, share of the copy rate.
struct OpTotal {
  std::int64_t calls = 0;
  double ms = 0, bytes = 0;
};
std::map<std::string, OpTotal> totals_by_name(const BenchmarkResult& r, const EngineOptions& options) {
  std::map<std::string, OpTotal> totals;
  for (const TimedOp& op : r.ops) {
    if (op.info.contraction > 0) continue;
    OpTotal& t = totals[std::string(op.info.name)];
    ++t.calls;
    t.ms += op.duration_ms;
    t.bytes += least_bytes(op.info, options);
  }
  return totals;
}

void print_costs(const RunCosts& c) {
  fmt::print("logging every step: {:.3f} ms of the training thread ({:.2f} % of a step); steps {:.2f} ms with it, {:.2f} without (difference {:+.3f}, "
             "standard error {:.3f}, {} steps each)\n",
             c.log_ms, 100 * c.log_ms / c.plain_step_ms, c.logged_step_ms, c.plain_step_ms, c.logged_step_ms - c.plain_step_ms, c.difference_error_ms,
             c.logged_steps);
  fmt::print("a checkpoint of {:.2f} GB: training waited {:.2f} s for {} and {:+.1f} ms beyond it ({:+.1f} % of a step)",
             static_cast<double>(c.checkpoint_bytes) / 1e9, c.copy_seconds, c.is_beside_training ? "the copy" : "the files", c.stall_ms,
             100 * c.stall_ms / c.plain_step_ms);
  if (c.is_beside_training)
    fmt::print("; written in {:.1f} s beside {} steps of {:.2f} ms", c.write_seconds, c.steps_beside, c.beside_step_ms);
  fmt::print("\n");
}

nlohmann::ordered_json costs_json(const RunCosts& c) {
  return {{"log_ms", c.log_ms}, {"logged_steps", c.logged_steps}, {"plain_step_ms", c.plain_step_ms}, {"logged_step_ms", c.logged_step_ms},
          {"difference_error_ms", c.difference_error_ms}, {"checkpoint_bytes", c.checkpoint_bytes},
          {"is_beside_training", c.is_beside_training}, {"copy_seconds", c.copy_seconds}, {"stall_ms", c.stall_ms},
          {"write_seconds", c.write_seconds}, {"steps_beside", c.steps_beside}, {"beside_step_ms", c.beside_step_ms}};
}

void print_text(const BenchmarkResult& r, const BenchmarkOptions& o, const Capabilities& device) {
  fmt::print("{}; {}\n", device.device, device.matmul);
  fmt::print("{:.0f} tokens/s; {:.2f} ms a step of {:.0f} tokens ({:.1f} % of the positions empty); loss {:.4f}; FP8 share of the products {:.1f} %\n",
             r.tokens_per_second, r.step_ms, r.tokens_a_step, 100 * r.padding_share, r.loss, 100 * r.fp8_share);
  fmt::print("first step after {:.1f} s; device memory {:.2f} GB\n", r.start_seconds, static_cast<double>(total_bytes(r)) / 1e9);
  if (r.costs) print_costs(*r.costs);
  const TableStyle style = style_of_stdout();
  TextTable split({{"work", Align::left}, {"ms", Align::right}, {"budget ms", Align::right}});
  double spent = 0, budget = 0;
  for (std::size_t k = 0; k < kWorkKinds; ++k) {
    split.add_row({std::string(name(static_cast<WorkKind>(k))), fmt::format("{:.2f}", r.split_ms[k]), fmt::format("{:.2f}", r.budget_ms[k])});
    spent += r.split_ms[k];
    budget += r.budget_ms[k];
  }
  split.add_rule();
  split.add_row({"one step with a clock", fmt::format("{:.2f}", spent), fmt::format("{:.2f}", budget)});
  fmt::print("\n{}budget: products and attention alone, bytes at the measured copy rate of {:.2f} TB/s; {:.0f} tokens/s\n\n", split.text(style),
             r.copy_bytes_per_second / 1e12, r.tokens_a_step / budget * 1e3);
  TextTable products({{"product", Align::left}, {"calls", Align::right}, {"ms", Align::right}, {"TFLOP/s in the step", Align::right}, {"alone", Align::right}});
  for (const ProductRate& p : r.products) {
    products.add_row({product_name(p.info), std::to_string(p.calls), fmt::format("{:.2f}", static_cast<double>(p.calls) * p.in_step_ms),
                      fmt::format("{:.0f}", tflops(p.info, p.in_step_ms)), fmt::format("{:.0f}", tflops(p.info, p.alone_ms))});
  }
  fmt::print("{}\n", products.text(style));
  TextTable others({{"operation", Align::left}, {"calls", Align::right}, {"ms", Align::right}, {"TB/s", Align::right}});
  for (const auto& [name, t] : totals_by_name(r, o.engine)) {
    others.add_row({name, std::to_string(t.calls), fmt::format("{:.2f}", t.ms), t.bytes > 0 ? fmt::format("{:.2f}", t.bytes / t.ms / 1e9) : "-"});
  }
  fmt::print("{}\n", others.text(style));
  TextTable memory({{"memory", Align::left}, {"GB", Align::right}});
  for (const MemoryLine& line : r.memory) memory.add_row({line.what, fmt::format("{:.2f}", static_cast<double>(line.bytes) / 1e9)});
  fmt::print("{}", memory.text(style));
}

void print_json(const BenchmarkResult& r, const BenchmarkOptions& o, const BenchFlags& given, const Capabilities& device) {
  nlohmann::ordered_json json;
  json["device"] = device.device;
  json["matmul"] = device.matmul;
  json["model"] = given.model;
  json["recipe"] = given.recipe;
  json["fp8_lm_head"] = given.fp8_lm_head;
  json["batch_size"] = given.batch_size;
  json["accumulation"] = given.accumulation;
  json["tokens_per_second"] = r.tokens_per_second;
  json["step_ms"] = r.step_ms;
  json["tokens_a_step"] = r.tokens_a_step;
  json["padding_share"] = r.padding_share;
  json["fp8_gemm_share"] = r.fp8_share;
  json["loss"] = r.loss;
  json["start_seconds"] = r.start_seconds;
  json["memory_bytes"] = total_bytes(r);
  json["copy_bytes_per_second"] = r.copy_bytes_per_second;
  for (std::size_t k = 0; k < kWorkKinds; ++k) {
    json["split_ms"][std::string(name(static_cast<WorkKind>(k)))] = r.split_ms[k];
    json["budget_ms"][std::string(name(static_cast<WorkKind>(k)))] = r.budget_ms[k];
  }
  for (const ProductRate& p : r.products) {
    json["products"].push_back({{"product", product_name(p.info)}, {"calls", p.calls}, {"in_step_ms", p.in_step_ms}, {"alone_ms", p.alone_ms}});
  }
  for (const auto& [name, t] : totals_by_name(r, o.engine)) json["operations"][name] = {{"calls", t.calls}, {"ms", t.ms}};
  if (r.costs) json["run_costs"] = costs_json(*r.costs);
  fmt::print("{}\n", json.dump());
}

}  // namespace

int run_bench(CommandArgs args) {
  BenchFlags given;
  FlagSet flags("bench", "how fast a model of a given shape trains here, with random weights", "--model NAME [flags]");
  declare(flags, given);
  if (!flags.parse(args)) return 0;
  if (given.fp8_lm_head && given.recipe == "none") fail_usage("bench: --fp8_lm_head has no meaning with --recipe none");
  BenchmarkOptions options = options_of(flags, given);
  const std::unique_ptr<Backend> backend = create_backend(given.device);
  if (given.recipe != "none") {
    const FormatSupport& support = given.recipe == "mxfp8" ? backend->capabilities().mxfp8 : backend->capabilities().fp8_tensor;
    CHECK(support.available, "--recipe {} cannot run here: {}", given.recipe, support.reason);
  }
  std::optional<CostsFolder> costs;
  if (!given.run_costs.empty()) costs.emplace(given.run_costs, backend->capabilities()).ask_for(options);
  const BenchmarkResult result = run_benchmark(*backend, options);
  if (!given.profile.empty()) write_chrome_trace(result.ops, given.profile);
  if (given.json) {
    print_json(result, options, given, backend->capabilities());
  } else {
    print_text(result, options, backend->capabilities());
  }
  return 0;
}

}  // namespace llmfp8
