// llm-fp8 info and doctor: what a model is made of; what this machine and build can do.
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "backend/registry.h"
#include "cli/commands/commands.h"
#include "cli/commands/flags.h"
#include "cli/commands/model_session.h"
#include "core/error.h"
#include "core/thread_pool.h"
#include "data/parquet.h"
#include "params/weight_table.h"
#include "report/hardware_source.h"
#include "report/wandb_sink.h"
#include "train/downloads.h"

namespace llmfp8 {
namespace {

using Lines = std::vector<std::pair<std::string, std::string>>;

std::string size_text(std::uintmax_t bytes) { return fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6); }

std::uintmax_t bytes_at(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(path, ignored)) return std::filesystem::file_size(path);
  std::uintmax_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    if (entry.is_regular_file(ignored)) bytes += entry.file_size();
  }
  return bytes;
}

std::string rope_text(const ModelConfig& c) {
  std::string text = fmt::format("theta {}", c.rope_theta);
  if (c.rope_scaling) {
    text += fmt::format(", llama3 scaling: factor {}, from {} positions", c.rope_scaling->factor,
                        c.rope_scaling->original_max_position_embeddings);
  }
  return text;
}

// The tokenizer may be missing or of a kind that is not read: the rest of the model is still worth telling.
void add_tokenizer_lines(const std::filesystem::path& path, Lines& lines) {
  try {
    const Tokenizer tokenizer = open_tokenizer_at(path);
    lines.emplace_back("tokenizer", fmt::format("byte-level BPE, {} ids", tokenizer.vocab_size()));
    const auto token = [&](std::optional<std::int32_t> id) {
      return id ? fmt::format("{} {}", *id, tokenizer.id_to_token(*id)) : "none";
    };
    lines.emplace_back("bos, eos", token(tokenizer.bos_id()) + ", " + token(tokenizer.eos_id()));
    const std::string name(ChatTemplate::choose("auto", tokenizer).name());
    lines.emplace_back("chat template", tokenizer.chat_template().empty() ? "none of its own; auto takes " + name
                                                                          : "its own; auto takes " + name);
  } catch (const Error& error) {
    lines.emplace_back("tokenizer", fmt::format("not usable: {}", error.what()));
  }
}

Lines describe(const std::filesystem::path& path) {
  const std::unique_ptr<WeightSource> source = open_model(path);
  const ModelConfig& c = source->config();
  const WeightTable table(c);
  for (const ParamSpec& param : table.params()) {
    for (const WeightSlice& slice : param.slices) source->check(slice.name, slice.shape);
  }
  Lines lines = {
      {"model", source->origin()},
      {"architecture", c.model_type},
      {"parameters",
       fmt::format("{} ({:.1f} million)", table.num_parameters(), static_cast<double>(table.num_parameters()) / 1e6)},
      {"stored as", source->stored_as()},
      {"size on disk", size_text(bytes_at(path))},
      {"layers", std::to_string(c.num_hidden_layers)},
      {"hidden_size", std::to_string(c.hidden_size)},
      {"intermediate_size", std::to_string(c.intermediate_size)},
      {"attention", fmt::format("{} heads, {} key/value heads, head_dim {}{}", c.num_attention_heads,
                                c.num_key_value_heads, c.head_dim, c.attention_bias ? ", bias on q, k, v" : "")},
      {"rope", rope_text(c)},
      {"positions", std::to_string(c.max_position_embeddings)},
      {"vocab_size", std::to_string(c.vocab_size)},
      {"lm_head", c.tie_word_embeddings ? "tied to the embedding" : "of its own"},
  };
  add_tokenizer_lines(path, lines);
  return lines;
}

void print_lines(const Lines& lines) {
  for (const auto& [name, value] : lines) fmt::print("{:<18} {}\n", name, value);
}

}  // namespace

int run_info(CommandArgs args) {
  std::string model, weights_cache_dir;
  bool json = false;
  FlagSet flags("info", "what a model is made of; every weight's name and shape is checked", "MODEL [flags]");
  flags.positional("MODEL", &model, "a hub name, a folder or a .gguf file");
  flags.text("weights_cache_dir", "DIR", &weights_cache_dir,
             "folder of downloaded models; without it, the hub's default");
  flags.on_off("json", &json, "one JSON object");
  if (!flags.parse(args)) return 0;
  Console console;
  const Lines lines = describe(fetch_model(model, weights_cache_dir, console));
  if (!json) {
    print_lines(lines);
    return 0;
  }
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  for (const auto& [name, value] : lines) object[name] = value;
  fmt::print("{}\n", object.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
  return 0;
}

int run_doctor(CommandArgs args) {
  FlagSet flags("doctor", "what this machine and build can do", "");
  if (!flags.parse(args)) return 0;
  const std::unique_ptr<Backend> cpu = create_cpu_backend();
  const Capabilities& can = cpu->capabilities();
  const auto format = [](const FormatSupport& support) {
    return support.available ? (support.reason.empty() ? "native" : support.reason) : "no: " + support.reason;
  };
  std::string why_not;
  const std::unique_ptr<Backend> cuda = create_cuda_backend(&why_not);
  std::string no_nvml;
  const std::unique_ptr<NvmlGpu> nvml = NvmlGpu::open(&no_nvml);
  const ParquetSupport parquet = parquet_support();
  Lines lines = {
      {"version", LLMFP8_VERSION},
      {"cpu", can.device},
      {"threads", std::to_string(num_threads())},
      {"memory", size_text(can.memory_bytes)},
      {"matrix products", can.matmul},
      {"fp8, tensor scales", format(can.fp8_tensor)},
      {"mxfp8", format(can.mxfp8)},
      {"cuda", cuda ? cuda->capabilities().device : "no: " + why_not},
      {"gpu sensors", nvml ? "NVML" : "no: " + no_nvml},
      {"downloads", describe_downloads()},
      {"--use_wandb", "through " + wandb_python()},
  };
  for (const std::string& file : cuda_backend_files()) lines.emplace_back("cuda file", file);
  lines.emplace_back("parquet", parquet.available ? parquet.detail : "no: " + parquet.detail);
  print_lines(lines);
  return 0;
}

}  // namespace llmfp8
