// A model opened to generate text or to be measured: files, tokenizer, chat template, device, weights. Called by generate and eval.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "cli/commands/flags.h"
#include "hub/checkpoint_source.h"
#include "data/batch_loader.h"
#include "model/generator.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "train/evaluation.h"

namespace llmfp8 {

struct ModelChoice {
  std::string model;
  std::string device = "auto";
  std::string dtype = "bf16";
  std::string chat_template = "auto";
  std::string template_date;  // "": the template's constant, else today
  std::string weights_cache_dir;
  std::int64_t batch_size = 32;
};

// --model, --device, --dtype, --chat_template, --template_date, --weights_cache_dir, --batch_size.
void declare_model_flags(FlagSet& flags, ModelChoice& choice);

// path: a folder with tokenizer.json, or a .gguf file.
Tokenizer open_tokenizer_at(const std::filesystem::path& path);

class ModelSession {
 public:
  // Reads the weights' header, the tokenizer and the template; the weights when generate() or loss() is first called.
  explicit ModelSession(const ModelChoice& choice);
  ~ModelSession();

  const WeightSource& source() const { return *source_; }
  const ModelConfig& config() const { return source_->config(); }
  const Tokenizer& tokenizer() const { return tokenizer_; }
  const ChatTemplate& chat_template() const;  // throws where --chat_template names one that cannot be used
  bool is_chat_model() const { return !tokenizer_.chat_template().empty(); }

  // Memory is sized for these prompts and options.max_new_tokens, within the model's longest position.
  std::vector<Generation> generate(const std::vector<std::vector<std::int32_t>>& prompts,
                                   const GenerateOptions& options);
  // Of all the loader's rows. Throws Error where no token is supervised.
  EvalResult loss(const BatchLoader& loader, Console& console);
  const GenerateTimes& times() const { return times_; }  // of the last call
  std::string device() const;                            // once generate() or loss() has run

 private:
  void load();  // once

  ModelChoice choice_;
  std::unique_ptr<WeightSource> source_;
  Tokenizer tokenizer_;
  mutable std::unique_ptr<ChatTemplate> chat_template_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<LocalParamStore> params_;
  GenerateTimes times_;
};

// "prompts: 31000 tokens in 12.1 s (2562 tokens/s); decoding: …".
std::string speed_text(const GenerateTimes& times);

}  // namespace llmfp8
