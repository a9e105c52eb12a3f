// bench_train: tokens/s of whole training steps, bf16 beside every FP8 recipe, per core count; what share of the matrix
// engine's raw rate that is, where the rest goes, and peak memory. Run by tools/bench.sh; docs/performance_cpu.md explains it.
#include <cstdio>
#include <string>
#include <vector>

#include "bench_flags.h"
#include "cli/run_main.h"
#include "core/thread_pool.h"
#include "hub/checkpoint_source.h"
#include "measure.h"
#include "report/text_table.h"
#include "train/engine.h"

namespace llmfp8::bench {
namespace {

struct BatchSpec {
  std::int64_t rows = 0, mean_tokens = 0;
  std::string name() const { return fmt::format("{}x{}", rows, mean_tokens); }
};

struct Flags {
  TypedFlags typed;
  CommonFlags common;
  std::string recipes = "bf16,default,hybrid,mxfp8,current";
  std::string batches = "8x140,12x200";
  std::int64_t steps = 4;
  std::int64_t rounds = 1;
  bool raw = true;
};

const std::map<std::string, RecipeKind> kRecipes{{"bf16", RecipeKind::none},
                                                 {"default", RecipeKind::standard},
                                                 {"hybrid", RecipeKind::hybrid},
                                                 {"mxfp8", RecipeKind::mxfp8},
                                                 {"current", RecipeKind::current}};

BatchSpec parse_batch(const std::string& text) {
  BatchSpec spec;
  if (std::sscanf(text.c_str(), "%ldx%ld", &spec.rows, &spec.mean_tokens) != 2 || spec.rows < 1 || spec.rows > 4096 ||
      spec.mean_tokens < 44 || spec.mean_tokens > 65536) {
    fail_usage("--batches {}: wanted ROWSxTOKENS, such as 8x140, with at least 44 tokens", text);
  }
  return spec;
}

// Rows of unequal length around the mean, every token supervised. tools/bench_torch.py makes the same batch.
HostBatch make_batch(const BatchSpec& spec, std::int64_t vocab_size) {
  HostBatch batch;
  std::uint32_t state = 42;
  batch.cu_seqlens.push_back(0);
  for (std::int64_t row = 0; row < spec.rows; ++row) {
    const std::int64_t length = spec.mean_tokens + row * 37 % 81 - 40;
    for (std::int64_t i = 0; i < length; ++i) {
      state = (state * 1103515245u + 12345u) & 0x7FFFFFFFu;
      batch.tokens.push_back(static_cast<std::int32_t>((state >> 8) % static_cast<std::uint32_t>(vocab_size)));
      batch.positions.push_back(static_cast<std::int32_t>(i));
    }
    batch.cu_seqlens.push_back(static_cast<std::int32_t>(batch.tokens.size()));
    batch.max_doc_tokens = std::max(batch.max_doc_tokens, static_cast<std::int32_t>(length));
    batch.rows.push_back(row);
  }
  const std::size_t tokens = batch.tokens.size();
  batch.labels.assign(tokens, kIgnoreLabel);
  for (std::int64_t row = 0; row < spec.rows; ++row) {
    for (std::int32_t t = batch.cu_seqlens[row]; t + 1 < batch.cu_seqlens[row + 1]; ++t) {
      batch.labels[t] = batch.tokens[t + 1];
      batch.supervised_rows.push_back(t);
    }
  }
  batch.counts = {static_cast<std::int32_t>(tokens), static_cast<std::int32_t>(spec.rows),
                  static_cast<std::int32_t>(batch.supervised_rows.size()), 0};
  batch.capacity = static_cast<std::int64_t>((tokens + 127) / 128 * 128);
  for (std::vector<std::int32_t>* v : {&batch.tokens, &batch.labels, &batch.positions, &batch.supervised_rows}) {
    v->resize(static_cast<std::size_t>(batch.capacity), 0);
  }
  return batch;
}

double raw_seconds(const Timings& timings, double* flops) {
  double total = 0;
  for (const auto& [shape, calls] : timings.products) {
    total += static_cast<double>(calls) * raw_product_seconds(shape);
    *flops += static_cast<double>(calls) * shape.flops();
  }
  return total;
}

Json measure(const Flags& flags, const BatchSpec& spec, int threads, const std::string& recipe) {
  set_num_threads(threads);
  Timings timings;
  const std::unique_ptr<Backend> backend = create_timed_cpu_backend(timings);
  const std::unique_ptr<WeightSource> source = open_model(flags.common.model);
  const HostBatch batch = make_batch(spec, source->config().vocab_size);
  EngineOptions options;
  options.recipe = kRecipes.at(recipe);
  options.train_limits = {{batch.capacity}, spec.rows, batch.max_doc_tokens};
  Engine engine(*backend, source->config(), options);
  engine.load(*source);

  const auto step = [&] {
    const StepResult result = engine.train_step({&batch, 1}, 1e-5, 1.0);
    CHECK(result.ok, "the step's loss is not finite");
    return result;
  };
  double first_loss = step().loss, last_loss = 0;  // also measures the first scales and lets oneDNN prepare its kernels
  double best = 1e30, total = 0;
  Timings best_timings;
  for (int i = 0; i < flags.steps; ++i) {
    timings.clear();
    const double start = now();
    last_loss = step().loss;
    const double took = now() - start;
    total += took;
    if (took >= best) continue;
    best = took;
    best_timings = timings;
  }
  const std::size_t peak = peak_memory_bytes();
  double flops = 0, raw = 0;
  if (flags.raw) raw = raw_seconds(best_timings, &flops);

  Json result{{"batch", spec.name()},
              {"tokens", batch.counts.num_tokens},
              {"threads", threads},
              {"recipe", recipe},
              {"matmul", backend->capabilities().matmul},
              {"seconds_per_step", best},
              {"mean_seconds_per_step", total / static_cast<double>(flags.steps)},
              {"tokens_per_second", batch.counts.num_tokens / best},
              {"peak_memory_bytes", peak},
              {"fp8_share_of_flops", engine.ledger().fp8_share()},
              {"first_loss", first_loss},
              {"last_loss", last_loss},
              {"load_average", load_average()}};
  if (flags.raw) {
    result["product_flops"] = flops;
    result["raw_product_seconds"] = raw;
  }
  Json phases = Json::object();
  double named = 0;
  for (const auto& [what, seconds] : best_timings.seconds) {
    named += seconds;
    if (what == "gemm") continue;
    phases[what] = seconds;
  }
  phases["matrix engine"] = best_timings.engine_seconds;
  phases["images, epilogues of products"] = best_timings.seconds["gemm"] - best_timings.engine_seconds;
  phases["rest"] = best - named;
  result["phases"] = phases;
  return result;
}

// The faster of two measurements of the same thing.
void keep_best(std::vector<Json>& results, const Json& result) {
  for (Json& known : results) {
    if (known["batch"] != result["batch"] || known["threads"] != result["threads"] ||
        known["recipe"] != result["recipe"])
      continue;
    if (result["seconds_per_step"].get<double>() < known["seconds_per_step"].get<double>()) known = result;
    return;
  }
  results.push_back(result);
}

// Over bf16 of the same batch and core count; 0 where that was not measured.
double ratio_to_bf16(const std::vector<Json>& results, const Json& result) {
  for (const Json& other : results) {
    if (other["recipe"] == "bf16" && other["batch"] == result["batch"] && other["threads"] == result["threads"])
      return result["seconds_per_step"].get<double>() / other["seconds_per_step"].get<double>();
  }
  return 0;
}

void print_steps(const std::vector<Json>& results) {
  TextTable table({{"batch", Align::left},
                   {"tokens", Align::right},
                   {"cores", Align::right},
                   {"recipe", Align::left},
                   {"s/step", Align::right},
                   {"tokens/s", Align::right},
                   {"x bf16", Align::right},
                   {"raw GFLOP/s", Align::right},
                   {"share of raw", Align::right},
                   {"peak memory", Align::right},
                   {"first loss", Align::right}});
  for (const Json& r : results) {
    const double seconds = r["seconds_per_step"].get<double>(), ratio = ratio_to_bf16(results, r);
    const double raw = r.value("raw_product_seconds", 0.0);
    table.add_row({r["batch"].get<std::string>(), std::to_string(r["tokens"].get<int>()),
                   std::to_string(r["threads"].get<int>()), r["recipe"].get<std::string>(),
                   fmt::format("{:.3f}", seconds), fmt::format("{:.0f}", r["tokens_per_second"].get<double>()),
                   ratio > 0 ? fmt::format("{:.2f}", ratio) : "",
                   raw > 0 ? fmt::format("{:.0f}", r["product_flops"].get<double>() / raw / 1e9) : "",
                   raw > 0 ? fmt::format("{:.0f} %", 100 * raw / seconds) : "",
                   fmt::format("{:.2f} GB", r["peak_memory_bytes"].get<double>() / 1e9),
                   fmt::format("{:.4f}", r["first_loss"].get<double>())});
  }
  std::fputs(table.text(style_of_stdout()).c_str(), stdout);
}

// Where a step's time goes: one column per recipe, for each batch and core count.
void print_phases(const std::vector<Json>& results) {
  std::vector<std::pair<std::string, std::vector<const Json*>>> groups;
  for (const Json& r : results) {
    const std::string title = fmt::format("{}, {} cores", r["batch"].get<std::string>(), r["threads"].get<int>());
    if (groups.empty() || groups.back().first != title) groups.push_back({title, {}});
    groups.back().second.push_back(&r);
  }
  for (const auto& [title, group] : groups) {
    std::vector<TextTable::Column> columns{{"ms of a step, " + title, Align::left}};
    std::map<std::string, double> largest;
    for (const Json* r : group) {
      columns.push_back({(*r)["recipe"].get<std::string>(), Align::right});
      for (const auto& [what, seconds] : (*r)["phases"].items())
        largest[what] = std::max(largest[what], seconds.get<double>());
    }
    std::vector<std::pair<double, std::string>> order;
    for (const auto& [what, seconds] : largest) order.emplace_back(-seconds, what);
    std::sort(order.begin(), order.end());
    TextTable table(columns);
    for (const auto& [unused, what] : order) {
      std::vector<std::string> cells{what};
      for (const Json* r : group) cells.push_back(fmt::format("{:.1f}", 1e3 * (*r)["phases"].value(what, 0.0)));
      table.add_row(cells);
    }
    std::printf("\n%s", table.text(style_of_stdout()).c_str());
  }
}

int run(int argc, char** argv) {
  Flags flags;
  FlagSet declared("bench_train", "tokens/s of training steps, bf16 beside every FP8 recipe", "[flags]", "");
  declare_common_flags(declared, flags.typed);
  declared.text("recipes", "NAME,NAME", &flags.recipes, "any of bf16, default, hybrid, mxfp8, current");
  declared.text("batches", "ROWSxTOKENS,…", &flags.batches, "TOKENS: the mean length of a row");
  declared.whole("steps", {1, 1000}, &flags.steps, "timed steps of each, after one that is not timed; the fastest counts");
  declared.whole("rounds", {1, 100}, &flags.rounds, "times that the whole list is gone through");
  declared.on_off("raw", &flags.raw, "the matrix engine's raw rate; --no-raw leaves it out");
  if (!declared.parse(std::vector<std::string>(argv + 1, argv + argc))) return 0;
  finish_common_flags(flags.typed);
  flags.common = flags.typed.common;
  const std::vector<std::string> recipes = split_list(flags.recipes);
  for (const std::string& recipe : recipes) {
    if (!kRecipes.contains(recipe)) fail_usage("--recipes {}: wanted bf16, default, hybrid, mxfp8 or current", recipe);
  }

  std::vector<Json> results;
  const Json at_start = machine();
  for (std::int64_t round = 0; round < flags.rounds; ++round) {
    for (const std::string& batch : split_list(flags.batches)) {
      const BatchSpec spec = parse_batch(batch);
      for (int threads : flags.common.threads) {
        for (const std::string& recipe : recipes) {
          if (!flags.common.json) std::fprintf(stderr, "%s, %d cores, %s …\n", batch.c_str(), threads, recipe.c_str());
          keep_best(results, in_child([&] { return measure(flags, spec, threads, recipe); }));
        }
      }
    }
  }
  if (flags.common.json) {
    Json document = at_start;
    for (Json& r : results) {
      if (const double ratio = ratio_to_bf16(results, r); ratio > 0) r["times_bf16"] = ratio;
    }
    document["clock"] = flags.common.cpu_time ? "processor" : "wall";
    document["results"] = results;
    std::printf("%s\n", document.dump(2).c_str());
    return 0;
  }
  std::printf("%s, %d cores, load average %.1f at the start and %.1f at the end; %s\n\n",
              at_start["processor"].get<std::string>().c_str(), at_start["cores"].get<int>(),
              at_start["load_average"].get<double>(), load_average(),
              results.front()["matmul"].get<std::string>().c_str());
  if (flags.common.cpu_time) std::printf("processor time instead of wall time\n\n");
  print_steps(results);
  print_phases(results);
  return 0;
}

}  // namespace
}  // namespace llmfp8::bench

int main(int argc, char** argv) {
  return llmfp8::run_main([&] { return llmfp8::bench::run(argc, argv); });
}
