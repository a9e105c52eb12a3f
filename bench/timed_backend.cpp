// The CPU backend with a clock around every operation, and around the matrix engine inside the products.
#include "backend/cpu/cpu_ops.h"
#include "backend/cpu/simd.h"
#include "backend/registry.h"
#include "core/thread_pool.h"
#include "measure.h"

namespace llmfp8::bench {
namespace {

class Clock {
 public:
  explicit Clock(double& total) : total_(total), start_(now()) {}
  ~Clock() { total_ += now() - start_; }
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;

 private:
  double& total_;
  double start_;
};

class TimedEngine : public cpu::MatmulEngine {
 public:
  TimedEngine(const cpu::MatmulEngine& real, Timings& timings) : real_(real), timings_(timings) {}
  std::string describe() const override { return real_.describe(); }
  DType image_dtype() const override { return real_.image_dtype(); }
  void run(const cpu::Matmul& call) const override {
    const Clock clock(timings_.engine_seconds);
    real_.run(call);
  }

 private:
  const cpu::MatmulEngine& real_;
  Timings& timings_;
};

class TimedOps : public cpu::CpuOps {
 public:
  TimedOps(Arena& arena, const cpu::MatmulEngine& engine, Timings& timings)
      : CpuOps(arena, engine, num_threads()), timings_(timings) {}

 protected:
  void do_zero(const Tensor& out) override {
    const Clock c(at("copies, gathers"));
    CpuOps::do_zero(out);
  }
  void do_copy(const Tensor& from, const Tensor& to) override {
    const Clock c(at("copies, gathers"));
    CpuOps::do_copy(from, to);
  }
  void do_embedding(const EmbeddingArgs& args) override {
    const Clock c(at("embedding"));
    CpuOps::do_embedding(args);
  }
  void do_embedding_backward(const EmbeddingBackwardArgs& args, void* scratch) override {
    const Clock c(at("embedding"));
    CpuOps::do_embedding_backward(args, scratch);
  }
  void do_rmsnorm(const RmsnormArgs& args) override {
    const Clock c(at("norms"));
    CpuOps::do_rmsnorm(args);
  }
  void do_rmsnorm_backward(const RmsnormBackwardArgs& args, void* scratch) override {
    const Clock c(at("norms"));
    CpuOps::do_rmsnorm_backward(args, scratch);
  }
  void do_rope(const RopeArgs& args) override {
    const Clock c(at("rope"));
    CpuOps::do_rope(args);
  }
  void do_swiglu(const SwigluArgs& args) override {
    const Clock c(at("swiglu"));
    CpuOps::do_swiglu(args);
  }
  void do_swiglu_backward(const SwigluBackwardArgs& args) override {
    const Clock c(at("swiglu"));
    CpuOps::do_swiglu_backward(args);
  }
  void do_attention(const AttentionArgs& args, void* scratch) override {
    const Clock c(at("attention"));
    CpuOps::do_attention(args, scratch);
  }
  void do_attention_backward(const AttentionBackwardArgs& args, void* scratch) override {
    const Clock c(at("attention backward"));
    CpuOps::do_attention_backward(args, scratch);
  }
  void do_gemm(const GemmArgs& args, void* scratch) override {
    record(args);
    const Clock c(at("matrix products"));
    CpuOps::do_gemm(args, scratch);
  }
  void do_bias_backward(const BiasBackwardArgs& args) override {
    const Clock c(at("biases"));
    CpuOps::do_bias_backward(args);
  }
  void do_gather_rows(const GatherRowsArgs& args) override {
    const Clock c(at("copies, gathers"));
    CpuOps::do_gather_rows(args);
  }
  void do_scatter_rows(const ScatterRowsArgs& args) override {
    const Clock c(at("copies, gathers"));
    CpuOps::do_scatter_rows(args);
  }
  void do_cross_entropy(const CrossEntropyArgs& args) override {
    const Clock c(at("cross-entropy"));
    CpuOps::do_cross_entropy(args);
  }
  void do_amax(const Tensor& x, const Tensor& num_rows, const Tensor& amax) override {
    const Clock c(at("quantisation"));
    CpuOps::do_amax(x, num_rows, amax);
  }
  void do_quantize(const Tensor& x, const Tensor& num_rows, const QTensor& out) override {
    const Clock c(at("quantisation"));
    CpuOps::do_quantize(x, num_rows, out);
  }
  void do_update_scales(const ScaleUpdateArgs& args) override {
    const Clock c(at("quantisation"));
    CpuOps::do_update_scales(args);
  }
  void do_accumulate_sum_of_squares(const Tensor& grad, StepScalars* scalars) override {
    const Clock c(at("gradient norm"));
    CpuOps::do_accumulate_sum_of_squares(grad, scalars);
  }
  void do_adamw(const AdamwArgs& args) override {
    const Clock c(at("AdamW"));
    CpuOps::do_adamw(args);
  }
  void do_quantize_weight(const Tensor& weight, const QTensor& out, const StepScalars* scalars) override {
    const Clock c(at("weight quantisation"));
    CpuOps::do_quantize_weight(weight, out, scalars);
  }

 private:
  double& at(const char* what) { return timings_.seconds[what]; }

  void record(const GemmArgs& args) {
    const bool wgrad = args.pass == GemmPass::wgrad;
    ProductShape shape{args.pass,       args.out.rows(),
                       args.out.cols(), args.a.shape[wgrad ? 0 : 1],
                       args.out.dtype,  args.addend.defined() && args.addend.data == args.out.data};
    const std::int64_t tokens = args.a.shape[0];
    const std::int64_t live = args.num_rows.defined() ? cpu::live_rows(args.num_rows, tokens, args.row_offset) : tokens;
    (wgrad ? shape.k : shape.m) = live;
    if (live > 0) ++timings_.products[shape];
  }

  Timings& timings_;
};

class TimedBackend : public Backend {
 public:
  explicit TimedBackend(Timings& timings)
      : real_(create_cpu_backend()), timings_(timings), engine_(cpu::matmul_engine(), timings) {}

  std::string_view name() const override { return real_->name(); }
  const Capabilities& capabilities() const override { return real_->capabilities(); }
  Buffer allocate(std::size_t bytes, std::string_view what) override { return real_->allocate(bytes, what); }
  Buffer allocate_host(std::size_t bytes, std::string_view what) override { return real_->allocate_host(bytes, what); }
  std::unique_ptr<Stream> create_stream() override { return real_->create_stream(); }
  std::unique_ptr<Event> create_event(EventKind kind) override { return real_->create_event(kind); }
  void record(Event& event, Stream& stream) override { real_->record(event, stream); }
  void wait(Stream& stream, Event& event) override { real_->wait(stream, event); }
  void synchronize(Event& event) override { real_->synchronize(event); }
  double elapsed_ms(Event& from, Event& to) override { return real_->elapsed_ms(from, to); }
  void synchronize(Stream& stream) override { real_->synchronize(stream); }
  void copy_to_device(void* device, const void* host, std::size_t bytes, Stream& stream) override {
    real_->copy_to_device(device, host, bytes, stream);
  }
  void copy_to_host(void* host, const void* device, std::size_t bytes, Stream& stream) override {
    real_->copy_to_host(host, device, bytes, stream);
  }
  std::unique_ptr<Ops> create_ops(Stream&, Arena& arena) override {
    return std::make_unique<TimedOps>(arena, engine_, timings_);
  }

 private:
  std::unique_ptr<Backend> real_;
  Timings& timings_;
  TimedEngine engine_;
};

}  // namespace

std::unique_ptr<Backend> create_timed_cpu_backend(Timings& timings) { return std::make_unique<TimedBackend>(timings); }

}  // namespace llmfp8::bench
