// AdamW beside the next step: held against steps that do one thing after the other, on a backend that puts off what lies on
// a second stream for as long as it may.
#include <deque>

#include "backend/plan/plan_ops.h"
#include "train/engine_support.h"

namespace llmfp8::testing {
namespace {

// What is enqueued on the second stream and has not run.
struct Delayed {
  std::deque<std::function<void()>> work;
  std::size_t enqueued = 0;  // ever
  std::size_t most = 0;      // that waited at once

  void add(std::function<void()> task) {
    work.push_back(std::move(task));
    most = std::max(most, work.size());
    ++enqueued;
  }
  void run_until(std::size_t position) {
    while (enqueued - work.size() < position && !work.empty()) {
      const auto task = std::move(work.front());
      work.pop_front();
      task();
    }
  }
};

struct LateStream : Stream {};
struct MarkEvent : Event {
  std::size_t position = 0;  // of Delayed::enqueued, when it was recorded on the late stream
};

// The operations of an update, late. Anything else on that stream is a defect.
class LateOps : public PlanOps {
 public:
  LateOps(std::unique_ptr<Ops> real, Arena& arena, Delayed& delayed)
      : PlanOps(*real, arena), real_(std::move(real)), delayed_(delayed) {}

 protected:
  void do_adamw(const AdamwArgs& args) override {
    if (!arena().planning()) delayed_.add([this, args] { real_->adamw(args); });
  }
  void do_quantize_weight(const Tensor& weight, const QTensor& out, const StepScalars* scalars) override {
    if (!arena().planning()) delayed_.add([this, weight, out, scalars] { real_->quantize_weight(weight, out, scalars); });
  }

 private:
  std::unique_ptr<Ops> real_;
  Delayed& delayed_;
};

class LateBackend : public Backend {
 public:
  std::string_view name() const override { return "late"; }
  const Capabilities& capabilities() const override { return real_->capabilities(); }
  Buffer allocate(std::size_t bytes, std::string_view what) override { return real_->allocate(bytes, what); }
  Buffer allocate_host(std::size_t bytes, std::string_view what) override { return real_->allocate_host(bytes, what); }
  std::unique_ptr<Stream> create_stream(StreamUse use) override {
    if (use == StreamUse::beside) return std::make_unique<LateStream>();
    return std::make_unique<Stream>();
  }
  std::unique_ptr<Event> create_event(EventKind) override { return std::make_unique<MarkEvent>(); }
  void record(Event& event, Stream& stream) override {
    if (is_late(stream)) static_cast<MarkEvent&>(event).position = delayed.enqueued;
  }
  void wait(Stream& stream, Event& event) override {
    if (!is_late(stream)) delayed.run_until(static_cast<MarkEvent&>(event).position);
  }
  void synchronize(Event& event) override { delayed.run_until(static_cast<MarkEvent&>(event).position); }
  void synchronize(Stream& stream) override {
    if (is_late(stream)) delayed.run_until(delayed.enqueued);
  }
  double elapsed_ms(Event&, Event&) override { return 0.0; }
  void copy_to_device(void* to, const void* from, std::size_t bytes, Stream&) override { std::memcpy(to, from, bytes); }
  void copy_to_host(void* to, const void* from, std::size_t bytes, Stream&) override { std::memcpy(to, from, bytes); }
  std::unique_ptr<Ops> create_ops(Stream& stream, Arena& arena) override {
    std::unique_ptr<Ops> real = real_->create_ops(stream, arena);
    if (!is_late(stream)) return real;
    return std::make_unique<LateOps>(std::move(real), arena, delayed);
  }

  Delayed delayed;

 private:
  static bool is_late(Stream& stream) { return dynamic_cast<LateStream*>(&stream) != nullptr; }
  std::unique_ptr<Backend> real_ = create_cpu_backend();
};

struct Outcome {
  std::vector<double> losses;
  std::vector<std::vector<std::byte>> state;
};

Outcome train(Backend& backend, const std::string& model, EngineOptions options, StepSchedule schedule) {
  const ModelConfig config = open_model(model_dir(model))->config();
  std::vector<ParityBatch> batches = {random_batch(config, {20, 31}, 1), random_batch(config, {7, 40, 12}, 2)};
  const BatchLimits limits = align_batches(batches);
  options.schedule = schedule;
  const auto engine = golden_engine(backend, model_dir(model), options, limits);
  Outcome outcome;
  const auto take = [&] {
    const StepResult result = engine->next_result();
    EXPECT_TRUE(result.ok);
    outcome.losses.push_back(result.loss);
  };
  for (int step = 0; step < 6; ++step) {
    if (engine->steps_in_flight() == Engine::kStepsInFlight) take();
    // One micro-batch, then two.
    const auto micro_batches = hosts(batches);
    engine->enqueue_step(std::span(micro_batches).first(step % 2 == 0 ? 1 : 2), 1e-2, 1.0);
  }
  while (engine->steps_in_flight() > 0) take();
  outcome.state = state_bytes(*engine);
  return outcome;
}

TEST(ParamUpdate, AsLateAsItMayBeChangesNoBit) {
  for (const char* const model : kModels) {
    for (const RecipeKind recipe : {RecipeKind::none, RecipeKind::standard, RecipeKind::mxfp8, RecipeKind::current}) {
      SCOPED_TRACE(fmt::format("{} {}", model, Recipe(recipe).name()));
      EngineOptions options;
      options.recipe = recipe;
      options.fp8_lm_head = recipe != RecipeKind::none;
      options.optimizer.weight_update = WeightUpdate::stochastic;
      LateBackend late;
      const Outcome in_order = train(*create_cpu_backend(), model, options, StepSchedule::in_order);
      const Outcome beside = train(late, model, options, StepSchedule::overlapped);
      EXPECT_EQ(in_order.losses, beside.losses);
      EXPECT_EQ(in_order.state, beside.state);
      // It was late indeed: a whole update waited, and nothing is left.
      EXPECT_GE(late.delayed.most, 10u);
      EXPECT_TRUE(late.delayed.work.empty());
      EXPECT_NE(in_order.losses[0], in_order.losses[2]);
    }
  }
}

}  // namespace
}  // namespace llmfp8::testing
