// A device whose memory does not suffice: the error names the line of the memory table and flags that would help there.
#include "train/engine_support.h"

namespace llmfp8::testing {
namespace {

// The CPU with a budget.
class SmallBackend : public Backend {
 public:
  explicit SmallBackend(std::size_t budget) : free_(budget), total_(budget) {}
  std::string_view name() const override { return real_->name(); }
  const Capabilities& capabilities() const override { return real_->capabilities(); }
  Buffer allocate(std::size_t bytes, std::string_view what) override {
    if (bytes > free_) throw OutOfMemory({"test", std::string(what), bytes, free_, total_});
    free_ -= bytes;
    return real_->allocate(bytes, what);
  }
  Buffer allocate_host(std::size_t bytes, std::string_view what) override { return real_->allocate_host(bytes, what); }
  std::unique_ptr<Stream> create_stream(StreamUse use) override { return real_->create_stream(use); }
  std::unique_ptr<Event> create_event(EventKind kind) override { return real_->create_event(kind); }
  void record(Event& event, Stream& stream) override { real_->record(event, stream); }
  void wait(Stream& stream, Event& event) override { real_->wait(stream, event); }
  void synchronize(Event& event) override { real_->synchronize(event); }
  void synchronize(Stream& stream) override { real_->synchronize(stream); }
  double elapsed_ms(Event& from, Event& to) override { return real_->elapsed_ms(from, to); }
  void copy_to_device(void* to, const void* from, std::size_t bytes, Stream& stream) override {
    real_->copy_to_device(to, from, bytes, stream);
  }
  void copy_to_host(void* to, const void* from, std::size_t bytes, Stream& stream) override {
    real_->copy_to_host(to, from, bytes, stream);
  }
  std::unique_ptr<Ops> create_ops(Stream& stream, Arena& arena) override { return real_->create_ops(stream, arena); }

 private:
  std::unique_ptr<Backend> real_ = create_cpu_backend();
  std::size_t free_, total_;
};

const CommandFlags kFlags{"batch_size", "gradient_accumulation_steps", "max_seq_length", "eval_batch_size",
                          "mixed_precision"};

struct Case {
  EngineOptions options;
  std::vector<std::int64_t> lengths = {200, 200, 200};

  Case() { options.flags = kFlags; }

  std::unique_ptr<Engine> engine(Backend& backend) {
    const auto source = open_model(model_dir("llama_untied"));
    std::vector<ParityBatch> batches = {random_batch(source->config(), lengths, 1)};
    options.train_limits = align_batches(batches);
    return std::make_unique<Engine>(backend, source->config(), options);
  }
  // The error of a device that refuses the line `what`: it has all the memory that the lines before it take.
  std::string error_at(const std::string& what) {
    const auto whole = create_cpu_backend();
    std::size_t budget = 0, wanted = 0;
    for (const MemoryLine& line : engine(*whole)->memory()) {
      if (line.what == what) wanted = line.bytes;
      if (line.what != what && wanted == 0) budget += line.bytes;
    }
    EXPECT_GT(wanted, 0u) << what;
    // Rotation angles and the like come on top.
    for (std::size_t more = 0; more <= wanted + (std::size_t{4} << 20); more += wanted / 4 + 1024) {
      SmallBackend small(budget + more);
      try {
        engine(small);
        break;
      } catch (const OutOfMemory& error) {
        const std::string& refused = error.request().what;
        const bool moments = refused.ends_with("moment") || refused.starts_with("AdamW scales");
        if (refused == what || (what == "AdamW moments" && moments) ||
            (what == "exact-update remainders" && refused.starts_with("AdamW remainders")))
          return error.what();
      }
    }
    ADD_FAILURE() << what << " was never refused";
    return "";
  }
};

void expect_parts(const std::string& text, const std::vector<std::string>& with,
                  const std::vector<std::string>& without = {}) {
  for (const std::string& part : with) EXPECT_NE(text.find(part), std::string::npos) << part << " in " << text;
  for (const std::string& part : without) EXPECT_EQ(text.find(part), std::string::npos) << part << " in " << text;
  EXPECT_EQ(text.find('\n'), std::string::npos);
}

TEST(OutOfMemoryAdvice, ActivationsNameBatchLengthAndRecompute) {
  Case c;
  expect_parts(c.error_at("activations and scratch"),
               {"out of test memory", "wanted for activations and scratch", "taken before: weights ", "AdamW moments ",
                "what helps: a smaller --batch_size (with more --gradient_accumulation_steps",
                "a shorter --max_seq_length", "--recompute norm_swiglu, mlp or block",
                "also: --grad_dtype bf16; --optim_state 8bit or bf16; --weight_update stochastic"});
}

TEST(OutOfMemoryAdvice, WhatIsChosenAlreadyIsNotNamed) {
  Case c;
  c.lengths = {200};  // one row: a smaller batch there is not
  c.options.recompute = Recompute::block;
  c.options.grad_dtype = DType::bf16;
  c.options.optimizer.state = OptimState::eight_bit;
  c.options.optimizer.weight_update = WeightUpdate::stochastic;
  expect_parts(c.error_at("activations and scratch"), {"a shorter --max_seq_length"},
               {"--batch_size", "--recompute", "--grad_dtype", "--optim_state", "--weight_update", "also"});
  c.options.recompute = Recompute::mlp;
  expect_parts(c.error_at("activations and scratch"), {"--recompute block"});
}

TEST(OutOfMemoryAdvice, EveryLineHasItsFlag) {
  Case c;
  c.options.recipe = RecipeKind::standard;
  expect_parts(c.error_at("weights"), {"wanted for weights", "a smaller model"}, {"--mixed_precision", "--grad_dtype"});
  expect_parts(c.error_at("weights in FP8"), {"wanted for weights in FP8", "what helps: --mixed_precision bf16"});
  expect_parts(c.error_at("gradients"), {"wanted for gradients", "what helps: --grad_dtype bf16"}, {"--batch_size"});
  expect_parts(c.error_at("AdamW moments"),
               {"AdamW first moment", "what helps: --optim_state 8bit or bf16", "also: --grad_dtype bf16"});
  expect_parts(c.error_at("exact-update remainders"), {"AdamW remainders", "what helps: --weight_update stochastic"});
  c.options.optimizer.state = OptimState::bf16;
  expect_parts(c.error_at("AdamW moments"), {"--optim_state 8bit"}, {"8bit or bf16"});
}

TEST(OutOfMemoryAdvice, Fp32HasFlagsOfItsOwn) {
  Case c;
  c.options.dtype = DType::f32;
  expect_parts(c.error_at("weights"), {"--mixed_precision bf16", "a smaller model"});
  // Gradients of fp32 weights are fp32, and there is no remainder.
  expect_parts(c.error_at("gradients"), {"wanted for gradients"}, {"--grad_dtype", "--weight_update"});
}

TEST(OutOfMemoryAdvice, CommandWithoutAFlagIsNotTold) {
  Case c;
  c.options.flags = CommandFlags();
  expect_parts(c.error_at("activations and scratch"), {"--recompute"},
               {"--batch_size", "--max_seq_length", "--mixed_precision"});
}

}  // namespace
}  // namespace llmfp8::testing
