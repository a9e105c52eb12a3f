// The CPU backend with a clock around every operation, and around the matrix engine inside the products.
#include "backend/cpu/cpu_ops.h"
#include "backend/cpu/simd.h"
#include "backend/op_observer.h"
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

// Seconds of every operation under its name; the CPU runs each to its end before it returns.
class NamedSeconds : public OpObserver {
 public:
  explicit NamedSeconds(Timings& timings) : timings_(timings) {}
  void begin(const OpInfo& info) override {
    name_ = info.name;
    start_ = now();
  }
  void end() override { timings_.seconds[std::string(name_)] += now() - start_; }

 private:
  Timings& timings_;
  std::string_view name_;
  double start_ = 0;
};

// The CPU's operations, which write down every product.
class TimedOps : public cpu::CpuOps {
 public:
  TimedOps(Arena& arena, const cpu::MatmulEngine& engine, Timings& timings)
      : CpuOps(arena, engine, num_threads()), timings_(timings), seconds_(timings) {
    set_observer(&seconds_);
  }

 protected:
  void do_gemm(const GemmArgs& args, void* scratch) override {
    const bool wgrad = args.pass == GemmPass::wgrad;
    ProductShape shape{args.pass,       args.out.rows(),
                       args.out.cols(), args.a.shape[wgrad ? 0 : 1],
                       args.out.dtype,  args.addend.defined() && args.addend.data == args.out.data};
    const std::int64_t tokens = args.a.shape[0];
    const std::int64_t live = args.num_rows.defined() ? cpu::live_rows(args.num_rows, tokens, args.row_offset) : tokens;
    (wgrad ? shape.k : shape.m) = live;
    if (live > 0) ++timings_.products[shape];
    CpuOps::do_gemm(args, scratch);
  }

 private:
  Timings& timings_;
  NamedSeconds seconds_;
};

class TimedBackend : public Backend {
 public:
  explicit TimedBackend(Timings& timings)
      : real_(create_cpu_backend()), timings_(timings), engine_(cpu::matmul_engine(), timings) {}

  std::string_view name() const override { return real_->name(); }
  const Capabilities& capabilities() const override { return real_->capabilities(); }
  Buffer allocate(std::size_t bytes, std::string_view what) override { return real_->allocate(bytes, what); }
  Buffer allocate_host(std::size_t bytes, std::string_view what) override { return real_->allocate_host(bytes, what); }
  std::unique_ptr<Stream> create_stream(StreamUse use) override { return real_->create_stream(use); }
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
