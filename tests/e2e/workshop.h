// Small models, tokenizers and data sets in a temporary folder, and the command line of a run over them that takes a
// second. The models are those of tests/golden with a tokenizer of 256 bytes and a few special tokens.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "e2e/programs.h"
#include "support/golden.h"

namespace llmfp8::testing {

using Json = nlohmann::ordered_json;

// A .safetensors file taken apart, so that it can be written back with something wrong in it.
struct Safetensors {
  Json header;
  std::string data;

  static Safetensors read(const std::filesystem::path& path);
  void write(const std::filesystem::path& path) const;
  void remove(const std::string& name);  // its bytes too
  std::string bytes_of(const std::string& name) const;
};

std::string read_bytes(const std::filesystem::path& path);
void write_bytes(const std::filesystem::path& path, const std::string& bytes);

// Where the programs run: LLMFP8_TEST_DEVICE, else the CPU.
std::string test_device();

class Workshop {
 public:
  Workshop();

  std::filesystem::path path(const std::string& name) const { return folder_.path() / name; }
  // A model folder: golden weights ("llama_tied", "llama_untied", "qwen2"), config and a tokenizer.
  std::filesystem::path model(const std::string& golden, const std::string& name = "model");
  // Makes `model` an untied one with a token, "@", whose embedding is infinite, and puts it into a row of rows.jsonl: the step
  // that learns from that row is not finite, and no other.
  void poison_row(int row);
  // {"text": …} rows: sums, "3+4=7", so that there is something to learn.
  std::filesystem::path text_rows(int rows, const std::string& name = "rows.jsonl");
  // The columns of the math data set.
  std::filesystem::path math_rows(int rows, const std::string& name = "math.jsonl");

  // --model_name model --dataset_name rows.jsonl …; what `more` names replaces the same flag before it.
  Args args(const Args& more = {}) const;
  std::filesystem::path output() const { return path("out"); }
  std::filesystem::path logs() const { return path("runs"); }

 private:
  TempDir folder_;
};

nlohmann::json byte_tokenizer(const std::vector<std::string>& specials);

// Values of one name in metrics.jsonl, in order.
std::vector<double> metric(const std::filesystem::path& output, const std::string& name);

// Files below a folder, as relative paths, sorted.
std::vector<std::string> files_below(const std::filesystem::path& folder);

}  // namespace llmfp8::testing
