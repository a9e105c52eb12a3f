#include "e2e/workshop.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <stdexcept>

namespace llmfp8::testing {

namespace fs = std::filesystem;

std::string read_bytes(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot open " + path.string());
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_bytes(const fs::path& path, const std::string& bytes) {
  fs::create_directories(path.parent_path());
  std::ofstream out(path, std::ios::binary);
  out << bytes;
  if (!out.flush()) throw std::runtime_error("cannot write " + path.string());
}

Safetensors Safetensors::read(const fs::path& path) {
  const std::string bytes = read_bytes(path);
  std::uint64_t size = 0;
  std::memcpy(&size, bytes.data(), sizeof size);
  return {Json::parse(bytes.substr(sizeof size, size)), bytes.substr(sizeof size + size)};
}

void Safetensors::write(const fs::path& path) const {
  const std::string text = header.dump();
  const std::uint64_t size = text.size();
  write_bytes(path, std::string(reinterpret_cast<const char*>(&size), sizeof size) + text + data);
}

std::string Safetensors::bytes_of(const std::string& name) const {
  const std::vector<std::size_t> at = header.at(name).at("data_offsets");
  return data.substr(at[0], at[1] - at[0]);
}

void Safetensors::remove(const std::string& name) {
  const std::vector<std::size_t> hole = header.at(name).at("data_offsets");
  header.erase(name);
  data.erase(hole[0], hole[1] - hole[0]);
  for (auto& [other, entry] : header.items()) {
    if (other == "__metadata__") continue;
    for (auto& offset : entry["data_offsets"]) {
      if (offset.get<std::size_t>() >= hole[1]) offset = offset.get<std::size_t>() - (hole[1] - hole[0]);
    }
  }
}

nlohmann::json byte_tokenizer(const std::vector<std::string>& specials) {
  // GPT-2's alphabet: printable bytes stand for themselves, the others for the code points from 256 on.
  nlohmann::json vocab = nlohmann::json::object();
  const auto is_printable = [](int byte) { return (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173); };
  int next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const int code = is_printable(byte) ? byte : next++;
    std::string text;
    if (code < 128) {
      text = static_cast<char>(code);
    } else {
      text = {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3F))};
    }
    vocab[text] = byte;
  }
  nlohmann::json added = nlohmann::json::array();
  for (std::size_t i = 0; i < specials.size(); ++i) {
    added.push_back({{"id", 256 + i},
                     {"content", specials[i]},
                     {"special", true},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false}});
  }
  return {{"version", "1.0"},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", nlohmann::json::array()}}}};
}

Workshop::Workshop() {
  model("llama_tied");
  text_rows(40);
}

fs::path Workshop::model(const std::string& golden, const std::string& name) {
  const fs::path folder = path(name);
  fs::remove_all(folder);
  fs::create_directories(folder);
  for (const char* file : {"config.json", "model.safetensors"}) {
    fs::copy_file(golden_dir() / "models" / golden / file, folder / file);
  }
  const bool qwen = golden == "qwen2";
  const std::vector<std::string> specials =
      qwen ? std::vector<std::string>{"<|endoftext|>", "<|im_start|>", "<|im_end|>"}
           : std::vector<std::string>{"<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
                                      "<|end_header_id|>", "<|eot_id|>"};
  write_bytes(folder / "tokenizer.json", byte_tokenizer(specials).dump(1));
  Json config = {{"bos_token", qwen ? Json(nullptr) : Json(specials[0])}, {"eos_token", specials.back()}};
  write_bytes(folder / "tokenizer_config.json", config.dump(1));
  return folder;
}

void Workshop::poison_row(int row) {
  const fs::path file = model("llama_untied") / "model.safetensors";
  Safetensors weights = Safetensors::read(file);
  const Json& embedding = weights.header.at("model.embed_tokens.weight");
  const std::size_t row_bytes = embedding.at("shape").at(1).get<std::size_t>() * sizeof(float);
  const float infinity = std::numeric_limits<float>::infinity();
  // The tokenizer's ids are the bytes.
  const std::size_t at = embedding.at("data_offsets").at(0).get<std::size_t>() + std::size_t{'@'} * row_bytes;
  std::memcpy(weights.data.data() + at, &infinity, sizeof infinity);
  weights.write(file);

  std::string text;
  int number = 0;
  for (nlohmann::json line : read_jsonl(path("rows.jsonl"))) {
    if (number++ == row) line["text"] = line["text"].get<std::string>().insert(0, 1, '@');
    text += line.dump() + "\n";
  }
  write_bytes(path("rows.jsonl"), text);
}

fs::path Workshop::text_rows(int rows, const std::string& name) {
  std::string text;
  for (int i = 0; i < rows; ++i) {
    const int a = i % 10, b = i / 10 % 10;
    text +=
        Json{{"text", std::to_string(a) + "+" + std::to_string(b) + "=" + std::to_string(a + b) + "; row."}}.dump() +
        "\n";
  }
  write_bytes(path(name), text);
  return path(name);
}

fs::path Workshop::math_rows(int rows, const std::string& name) {
  std::string text;
  for (int i = 0; i < rows; ++i) {
    const int a = i % 10, b = i / 10 % 10;
    text += Json{{"problem", "What is " + std::to_string(a) + " + " + std::to_string(b) + "?"},
                 {"generated_solution", "It is \\boxed{" + std::to_string(a + b) + "}."},
                 {"expected_answer", std::to_string(a + b)},
                 {"problem_source", "sums"}}
                .dump() +
            "\n";
  }
  write_bytes(path(name), text);
  return path(name);
}

std::string test_device() {
  const char* device = std::getenv("LLMFP8_TEST_DEVICE");
  return device == nullptr || *device == '\0' ? "cpu" : device;
}

Args Workshop::args(const Args& more) const {
  Args all = {"--model_name",       path("model").string(),
              "--dataset_name",     path("rows.jsonl").string(),
              "--output_dir",       output().string(),
              "--log_dir",          logs().string(),
              "--batch_size",       "4",
              "--num_epochs",       "1",
              "--num_warmup_steps", "0",
              "--max_seq_length",   "64",
              "--log_interval",     "1",
              "--threads",          "1",
              "--device",           test_device()};
  // Whole runs are compared bit for bit.
  if (test_device() != "cpu") all.push_back("--deterministic");
  for (std::size_t i = 0; i < more.size(); ++i) {
    const auto same = std::find(all.begin(), all.end(), more[i]);
    const bool has_value = i + 1 < more.size() && !more[i + 1].starts_with("--");
    if (more[i].starts_with("--") && same != all.end()) {
      const bool had_value = same + 1 != all.end() && !(same + 1)->starts_with("--");
      all.erase(same, same + (had_value ? 2 : 1));
    }
    all.push_back(more[i]);
    if (has_value) all.push_back(more[++i]);
  }
  return all;
}

std::vector<double> metric(const fs::path& output, const std::string& name) {
  std::vector<double> values;
  for (const nlohmann::json& line : read_jsonl(output / "metrics.jsonl")) {
    if (line.contains(name)) values.push_back(line[name]);
  }
  return values;
}

std::vector<std::string> files_below(const fs::path& folder) {
  std::vector<std::string> files;
  if (!fs::exists(folder)) return files;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_directory()) files.push_back(fs::relative(entry.path(), folder).string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace llmfp8::testing
