// Attention on the GPU: cuDNN's graphs and the own kernels, each against fp64, and the CPU backend beside them on the
// same inputs. Ragged documents, grouped queries, unused slots, NaN behind the last token. Skipped where no GPU is.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "backend/cuda/attention.h"
#include "backend/registry.h"
#include "core/bf16.h"
#include "core/thread_pool.h"
#include "op_harness.h"

namespace llmfp8::testing {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

struct Setup {
  DType dtype;
  std::int64_t heads, kv_heads, dim;
  std::vector<std::int32_t> lengths;
  std::int64_t capacity;

  std::int64_t width() const { return (heads + 2 * kv_heads) * dim; }
  std::int64_t out_width() const { return heads * dim; }
  std::int64_t live() const {
    std::int64_t sum = 0;
    for (std::int32_t n : lengths) sum += n;
    return sum;
  }
  std::int64_t longest() const { return *std::max_element(lengths.begin(), lengths.end()); }
  std::vector<std::int32_t> bounds() const {
    std::vector<std::int32_t> all{0};
    for (std::int32_t n : lengths) all.push_back(all.back() + n);
    all.insert(all.end(), 3, all.back());  // unused slots
    return all;
  }
  AttentionShape shape() const {
    const bool equal = live() == capacity && std::count(lengths.begin(), lengths.end(), lengths[0]) == std::ssize(lengths);
    return {heads, kv_heads, dim, longest(), static_cast<float>(1.0 / std::sqrt(static_cast<double>(dim))),
            equal ? lengths[0] : 0};
  }
};

// What every engine is given, and what it should give. The backward pass starts from the reference's out and lse, so
// that its errors are its own.
struct Case {
  explicit Case(const Setup& setup);

  Setup s;
  std::vector<float> qkv, d_out;            // [capacity, width], [capacity, out_width]
  std::vector<Expected> out, lse, d_qkv;    // zero behind the last token; lse's magnitude: largest scale * sum |q||k|
  std::vector<float> given_out, given_lse;  // out rounded to the dtype, lse [heads, capacity]
  double score_magnitude = 0;               // largest scale * sum |q||k|

 private:
  void group(std::int64_t begin, std::int64_t n, std::int64_t kv);
  void head_forward(std::int64_t begin, std::int64_t n, std::int64_t head, std::vector<double>& p);
  void head_backward(std::int64_t begin, std::int64_t n, std::int64_t head, const std::vector<double>& p);
  double q(std::int64_t t, std::int64_t head, std::int64_t i) const {
    return qkv[at(t * s.width() + head * s.dim + i)];
  }
};

Case::Case(const Setup& setup) : s(setup) {
  qkv = rounded(random_values(s.capacity * s.width(), 1), s.dtype);
  d_out = rounded(random_values(s.capacity * s.out_width(), 2), s.dtype);
  out.resize(at(s.capacity * s.out_width()));
  lse.resize(at(s.heads * s.capacity));
  d_qkv.resize(qkv.size());
  given_out.resize(out.size());
  given_lse.resize(lse.size());
  const std::vector<std::int32_t> bounds = s.bounds();
  for (std::size_t doc = 0; doc < s.lengths.size(); ++doc) {
    parallel_for(s.kv_heads, 1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t kv = first; kv < last; ++kv) group(bounds[doc], s.lengths[doc], kv);
    });
  }
  for (std::int64_t t = 0; t < s.live(); ++t) {
    for (std::int64_t head = 0; head < s.heads; ++head) {
      score_magnitude = std::max(score_magnitude, lse[at(head * s.capacity + t)].magnitude);
    }
  }
}

void Case::group(std::int64_t begin, std::int64_t n, std::int64_t kv) {
  const std::int64_t size = s.heads / s.kv_heads;
  std::vector<double> p(at(n * n));
  for (std::int64_t head = kv * size; head < (kv + 1) * size; ++head) {
    head_forward(begin, n, head, p);
    head_backward(begin, n, head, p);
  }
}

void Case::head_forward(std::int64_t begin, std::int64_t n, std::int64_t head, std::vector<double>& p) {
  const std::int64_t k_head = s.heads + head / (s.heads / s.kv_heads), v_head = k_head + s.kv_heads;
  const double scale = s.shape().scale;
  for (std::int64_t t = 0; t < n; ++t) {
    double total = 0, magnitude = 0;
    for (std::int64_t u = 0; u <= t; ++u) {
      double dot = 0, dot_magnitude = 0;
      for (std::int64_t i = 0; i < s.dim; ++i) {
        const double term = q(begin + t, head, i) * q(begin + u, k_head, i);
        dot += term;
        dot_magnitude += std::abs(term);
      }
      magnitude = std::max(magnitude, scale * dot_magnitude);
      total += p[at(t * n + u)] = std::exp(scale * dot);
    }
    const std::size_t row = at(head * s.capacity + begin + t);
    lse[row] = {std::log(total), magnitude};
    given_lse[row] = static_cast<float>(lse[row].value);
    for (std::int64_t u = 0; u <= t; ++u) p[at(t * n + u)] /= total;
    for (std::int64_t i = 0; i < s.dim; ++i) {
      Expected& e = out[at((begin + t) * s.out_width() + head * s.dim + i)];
      for (std::int64_t u = 0; u <= t; ++u) e.add(p[at(t * n + u)] * q(begin + u, v_head, i));
      float value = static_cast<float>(e.value);
      if (s.dtype == DType::bf16) value = to_float(to_bf16(value));
      given_out[at((begin + t) * s.out_width() + head * s.dim + i)] = value;
    }
  }
}

void Case::head_backward(std::int64_t begin, std::int64_t n, std::int64_t head, const std::vector<double>& p) {
  const std::int64_t k_head = s.heads + head / (s.heads / s.kv_heads), v_head = k_head + s.kv_heads;
  const double scale = s.shape().scale;
  const auto gradient = [&](std::int64_t t, std::int64_t of, std::int64_t i) -> Expected& {
    return d_qkv[at((begin + t) * s.width() + of * s.dim + i)];
  };
  for (std::int64_t t = 0; t < n; ++t) {
    const std::size_t row = at((begin + t) * s.out_width() + head * s.dim);
    double row_sum = 0, row_magnitude = 0;
    for (std::int64_t i = 0; i < s.dim; ++i) {
      const double term = double{d_out[row + at(i)]} * given_out[row + at(i)];
      row_sum += term;
      row_magnitude += std::abs(term);
    }
    for (std::int64_t u = 0; u <= t; ++u) {
      double dp = 0, dp_magnitude = 0;
      for (std::int64_t i = 0; i < s.dim; ++i) {
        const double term = d_out[row + at(i)] * q(begin + u, v_head, i);
        dp += term;
        dp_magnitude += std::abs(term);
      }
      const double weight = p[at(t * n + u)], ds = scale * weight * (dp - row_sum);
      const double ds_magnitude = scale * weight * (dp_magnitude + row_magnitude);
      for (std::int64_t i = 0; i < s.dim; ++i) {
        Expected &d_q = gradient(t, head, i), &d_k = gradient(u, k_head, i);
        d_q.value += ds * q(begin + u, k_head, i);
        d_q.magnitude += ds_magnitude * std::abs(q(begin + u, k_head, i));
        d_k.value += ds * q(begin + t, head, i);
        d_k.magnitude += ds_magnitude * std::abs(q(begin + t, head, i));
        gradient(u, v_head, i).add(weight * d_out[row + at(i)]);
      }
    }
  }
}

enum class Engine { cpu, own, cudnn };

const char* name_of(Engine engine) {
  return engine == Engine::cpu ? "cpu" : (engine == Engine::own ? "own kernels" : "cudnn");
}

struct Results {
  std::vector<float> out, lse, d_qkv;
};

std::vector<float> tail_of_nan(const std::vector<float>& values, std::int64_t cols, std::int64_t live) {
  return with_tail(values, cols, live, std::nanf(""));
}

Results run_cpu(const Case& c) {
  const Setup& s = c.s;
  const std::unique_ptr<Backend> backend = create_cpu_backend();
  Device device(*backend);
  const Tensor qkv = device.upload(tail_of_nan(c.qkv, s.width(), s.live()), s.dtype, Shape{s.capacity, s.width()});
  const Tensor d_out =
      device.upload(tail_of_nan(c.d_out, s.out_width(), s.live()), s.dtype, Shape{s.capacity, s.out_width()});
  const std::vector<std::int32_t> bounds = s.bounds();
  const Tensor cu = device.upload(bounds, Shape{static_cast<std::int64_t>(bounds.size())});
  const Tensor count = device.count(static_cast<std::int32_t>(s.live()));
  const Tensor out = device.garbage(s.dtype, Shape{s.capacity, s.out_width()});
  const Tensor lse = device.garbage(DType::f32, Shape{s.heads, s.capacity});
  const Tensor d_qkv = device.garbage(s.dtype, Shape{s.capacity, s.width()});
  const Tensor given_out = device.upload(c.given_out, s.dtype, Shape{s.capacity, s.out_width()});
  const Tensor given_lse = device.upload(c.given_lse, DType::f32, Shape{s.heads, s.capacity});
  device.run([&](Ops& ops) {
    ops.attention({s.shape(), qkv, cu, count, out, lse});
    ops.attention_backward({s.shape(), d_out, qkv, given_out, given_lse, cu, count, d_qkv});
  });
  return {device.floats(out), device.floats(lse), device.floats(d_qkv)};
}

void check_cuda(cudaError_t status) { ASSERT_EQ(status, cudaSuccess) << cudaGetErrorString(status); }

// Device memory without a backend around it.
class Gpu {
 public:
  ~Gpu() {
    for (void* p : memory_) cudaFree(p);
  }
  Tensor garbage(DType dtype, Shape shape) {
    Tensor t(nullptr, dtype, shape);
    t.data = allocate(t.bytes());
    return t;
  }
  void* allocate(std::size_t bytes) {
    void* p = nullptr;
    check_cuda(cudaMalloc(&p, std::max<std::size_t>(bytes, 256)));
    memory_.push_back(p);
    check_cuda(cudaMemset(p, 0xFF, std::max<std::size_t>(bytes, 256)));
    return p;
  }
  Tensor upload(const std::vector<float>& values, DType dtype, Shape shape) {
    const Tensor t = garbage(dtype, shape);
    std::vector<bf16> narrow(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) narrow[i] = to_bf16(values[i]);
    const void* from = dtype == DType::f32 ? static_cast<const void*>(values.data()) : narrow.data();
    check_cuda(cudaMemcpy(t.data, from, t.bytes(), cudaMemcpyHostToDevice));
    return t;
  }
  Tensor upload(const std::vector<std::int32_t>& values) {
    const Tensor t = garbage(DType::i32, Shape{static_cast<std::int64_t>(values.size())});
    check_cuda(cudaMemcpy(t.data, values.data(), t.bytes(), cudaMemcpyHostToDevice));
    return t;
  }
  std::vector<float> floats(const Tensor& t) {
    check_cuda(cudaDeviceSynchronize());
    std::vector<float> values(at(t.numel()));
    std::vector<bf16> narrow(values.size());
    void* to = t.dtype == DType::f32 ? static_cast<void*>(values.data()) : narrow.data();
    check_cuda(cudaMemcpy(to, t.data, t.bytes(), cudaMemcpyDeviceToHost));
    if (t.dtype == DType::bf16)
      std::transform(narrow.begin(), narrow.end(), values.begin(), [](bf16 x) { return to_float(x); });
    return values;
  }

 private:
  std::vector<void*> memory_;
};

Results run_gpu(const Case& c, cuda::AttentionContext& context) {
  const Setup& s = c.s;
  Gpu gpu;
  const Tensor qkv = gpu.upload(tail_of_nan(c.qkv, s.width(), s.live()), s.dtype, Shape{s.capacity, s.width()});
  const Tensor d_out =
      gpu.upload(tail_of_nan(c.d_out, s.out_width(), s.live()), s.dtype, Shape{s.capacity, s.out_width()});
  const Tensor cu = gpu.upload(s.bounds()), count = gpu.upload({static_cast<std::int32_t>(s.live())});
  const Tensor out = gpu.garbage(s.dtype, Shape{s.capacity, s.out_width()});
  const Tensor lse = gpu.garbage(DType::f32, Shape{s.heads, s.capacity});
  const Tensor d_qkv = gpu.garbage(s.dtype, Shape{s.capacity, s.width()});
  const AttentionArgs forward{s.shape(), qkv, cu, count, out, lse};
  cuda::attention(forward, context, gpu.allocate(cuda::attention_scratch_bytes(forward, context)), nullptr);
  const Tensor given_out = gpu.upload(c.given_out, s.dtype, Shape{s.capacity, s.out_width()});
  const Tensor given_lse = gpu.upload(c.given_lse, DType::f32, Shape{s.heads, s.capacity});
  const AttentionBackwardArgs backward{s.shape(), d_out, qkv, given_out, given_lse, cu, count, d_qkv};
  cuda::attention_backward(backward, context, gpu.allocate(cuda::attention_scratch_bytes(backward, context)), nullptr);
  return {gpu.floats(out), gpu.floats(lse), gpu.floats(d_qkv)};
}

// |error| <= unit * |value| + relative * magnitude. relative: 2^-8 for each time a term is rounded to bf16 before it is
// added, plus the fp32 errors of sums and of scores, which the exponential makes relative; a tensor core may drop two
// more bits of a sum than IEEE addition.
struct Bound {
  double unit, relative;
};

void expect_within(const std::string& what, const std::vector<float>& got, const std::vector<Expected>& want,
                   Bound bound) {
  ASSERT_EQ(got.size(), want.size());
  double worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double allowed = bound.unit * std::abs(want[i].value) + bound.relative * want[i].magnitude;
    const double error = std::abs(double{got[i]} - want[i].value);
    ASSERT_TRUE(error <= allowed) << what << "[" << i << "]: " << got[i] << ", wanted " << want[i].value << " within "
                                  << allowed;
    if (allowed > 0) worst = std::max(worst, error / allowed);
  }
  fmt::print("  {}: largest error {:.3f} of what is allowed\n", what, worst);
}

// What makes up the bounds of one engine.
struct Errors {
  Errors(const Case& c, Engine engine) {
    const Setup& s = c.s;
    const bool bf16_weights = engine == Engine::cudnn;  // P and dS enter its products in bf16; the others keep fp32
    const double ulp = bf16_weights ? 0x1.0p-22 : 0x1.0p-24;
    unit = s.dtype == DType::bf16 ? 0x1.0p-8 * 1.001 : 0x1.0p-24 * 1.001;
    rounding = bf16_weights ? 0x1.0p-8 : 0.0;
    scores = static_cast<double>(s.dim + 8) * ulp * c.score_magnitude;
    sums = static_cast<double>(s.longest() + s.dim + 8) * ulp * static_cast<double>(s.heads / s.kv_heads);
  }
  double unit = 0, rounding = 0, scores = 0, sums = 0;
};

// Which engine runs each pass: cuDNN takes some shapes forward only.
struct Engines {
  Engine forward, backward;
};

void compare(const Case& c, Engines engines, const Results& results) {
  const Errors forward(c, engines.forward), backward(c, engines.backward);
  const std::string who = name_of(engines.forward);
  expect_within(who + " out", results.out, c.out,
                {forward.unit, forward.rounding + forward.sums + forward.scores});
  std::vector<Expected> lse = c.lse;
  for (Expected& e : lse) e.magnitude = e.magnitude > 0 ? 1.0 : 0.0;  // errors of scores and sums are absolute here
  expect_within(who + " lse", results.lse, lse, {0x1.0p-22, forward.sums + forward.scores});
  // Two roundings: P or dS, and the part of each query head, which cuDNN keeps in bf16 until it adds them.
  expect_within(name_of(engines.backward) + std::string(" d_qkv"), results.d_qkv, c.d_qkv,
                {backward.unit, 2 * backward.rounding + backward.sums + 2 * backward.scores});
}

bool gpu_is_there() {
  int devices = 0;
  return cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
}

class CudaAttention : public ::testing::TestWithParam<Setup> {
 protected:
  void SetUp() override {
    if (!gpu_is_there()) GTEST_SKIP() << "no usable GPU";
  }
};

// The engines of a context that chooses by itself: cuDNN where one that must use it does not refuse. Which shapes that
// are depends on the release and on the GPU.
Engines engines_of(const Setup& s, bool deterministic) {
  const cuda::AttentionContext must({.deterministic = deterministic, .engine = cuda::AttentionEngine::cudnn});
  const auto takes = [&](const auto& args) {
    try {
      attention_scratch_bytes(args, must);
      return Engine::cudnn;
    } catch (const Error&) {
      return Engine::own;
    }
  };
  const Tensor qkv(nullptr, s.dtype, Shape{s.capacity, s.width()});
  const Tensor out(nullptr, s.dtype, Shape{s.capacity, s.out_width()});
  const Tensor lse(nullptr, DType::f32, Shape{s.heads, s.capacity}), count(nullptr, DType::i32, Shape{1});
  const Tensor cu(nullptr, DType::i32, Shape{static_cast<std::int64_t>(s.bounds().size())});
  return {takes(AttentionArgs{s.shape(), qkv, cu, count, out, lse}),
          takes(AttentionBackwardArgs{s.shape(), out, qkv, out, lse, cu, count, qkv})};
}

// The shapes of the models that this project trains must not fall back to slow kernels unnoticed.
bool is_fast_shape(const Setup& s) { return s.dtype == DType::bf16 && (s.dim == 64 || s.dim == 128); }

TEST_P(CudaAttention, EveryEngineMatchesTheReference) {
  const Case c(GetParam());
  ASSERT_NO_FATAL_FAILURE(compare(c, {Engine::cpu, Engine::cpu}, run_cpu(c)));
  cuda::AttentionContext own({.engine = cuda::AttentionEngine::own});
  ASSERT_NO_FATAL_FAILURE(compare(c, {Engine::own, Engine::own}, run_gpu(c, own)));
  const Engines engines = engines_of(c.s, false);
  if (is_fast_shape(c.s)) {
    EXPECT_EQ(engines.forward, Engine::cudnn);
    EXPECT_EQ(engines.backward, Engine::cudnn);
  }
  cuda::AttentionContext automatic;
  ASSERT_NO_FATAL_FAILURE(compare(c, engines, run_gpu(c, automatic)));
}

TEST_P(CudaAttention, DeterministicRunsAgreeBitForBit) {
  const Case c(GetParam());
  cuda::AttentionContext context({.deterministic = true});
  const Results first = run_gpu(c, context);
  ASSERT_NO_FATAL_FAILURE(compare(c, engines_of(c.s, true), first));
  for (int run = 0; run < 4; ++run) {
    const Results again = run_gpu(c, context);
    ASSERT_EQ(first.out, again.out);
    ASSERT_EQ(first.lse, again.lse);
    ASSERT_EQ(first.d_qkv, again.d_qkv);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, CudaAttention,
                         ::testing::Values(Setup{DType::bf16, 32, 8, 64, {1, 64, 700, 37, 129}, 1000},  //
                                           Setup{DType::bf16, 32, 8, 128, {300, 1, 65}, 400},           //
                                           Setup{DType::bf16, 9, 3, 64, {63, 2, 191, 128}, 384},        // full: no tail
                                           Setup{DType::bf16, 4, 4, 128, {256, 256}, 640},              //
                                           Setup{DType::bf16, 32, 8, 64, {256, 256, 256}, 768},         // equal rows
                                           Setup{DType::bf16, 8, 2, 128, {200, 200}, 400},              // equal rows
                                           Setup{DType::bf16, 2, 1, 64, {1}, 128},                      //
                                           Setup{DType::bf16, 4, 2, 256, {70, 33}, 128},                //
                                           Setup{DType::bf16, 6, 2, 24, {1, 31, 32, 33, 31}, 150},      //
                                           Setup{DType::f32, 32, 8, 64, {1, 64, 300, 37}, 450},         //
                                           Setup{DType::f32, 9, 3, 128, {65, 130}, 200},                //
                                           Setup{DType::f32, 3, 3, 10, {40, 87}, 128},                  //
                                           Setup{DType::f32, 2, 1, 256, {100, 33}, 133}),
                         [](const auto& one) {
                           const Setup& s = one.param;
                           return fmt::format("{}_h{}_kv{}_d{}_t{}", name(s.dtype), s.heads, s.kv_heads, s.dim,
                                              s.capacity);
                         });

}  // namespace
}  // namespace llmfp8::testing
