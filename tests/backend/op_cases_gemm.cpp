#include <cmath>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/float8.h"
#include "op_cases.h"
#include "op_harness.h"
#include "quantized.h"

namespace llmfp8::testing {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

struct Form {
  std::string name;
  Scaling scaling = Scaling::none;
  DType a = DType::f32, b = DType::f32;  // format of the operands
};

struct Extras {
  bool bias = false, addend = false, in_place = false;
  DType out = DType::f32;
};

// rows, cols, depth of the pass's own T, N, K
void gemm_case(Backend& backend, GemmPass pass, const Form& form, const Extras& extras, std::int64_t tokens,
               std::int64_t live) {
  Device device(backend);
  const std::int64_t n = form.scaling == Scaling::mx_1x32 ? 96 : 83, k = form.scaling == Scaling::mx_1x32 ? 160 : 141;
  const std::int64_t offset = 5;  // the rows are a later part of a longer matrix
  const Shape a_shape{tokens, pass == GemmPass::fprop ? k : n};
  const Shape b_shape = pass == GemmPass::wgrad ? Shape{tokens, k} : Shape{n, k};
  const Shape out_shape = pass == GemmPass::wgrad ? Shape{n, k} : Shape{tokens, pass == GemmPass::fprop ? n : k};
  const auto a_values = with_tail(random_values(a_shape.numel(), 1), a_shape[1], live, 0.0f);
  auto b_values = random_values(b_shape.numel(), 2);
  if (pass == GemmPass::wgrad) b_values = with_tail(b_values, k, live, 0.0f);
  Quantized a = make_quantized(device, backend, a_values, a_shape, form.scaling, form.a, live);
  Quantized b = make_quantized(device, backend, b_values, b_shape, form.scaling, form.b, b_shape[0]);
  const auto bias = rounded(random_values(n, 3), DType::bf16),
             addend = rounded(random_values(out_shape.numel(), 4), extras.out);

  GemmArgs args;
  args.pass = pass;
  args.a = a.tensor;
  args.b = b.tensor;
  if (extras.bias) args.bias = device.upload(bias, DType::bf16, Shape{n});
  if (extras.addend) args.addend = device.upload(addend, extras.out, out_shape);
  args.out = extras.in_place ? args.addend : device.garbage(extras.out, out_shape);
  args.num_rows = device.count(static_cast<std::int32_t>(live + offset));
  args.row_offset = offset;
  device.run([&](Ops& ops) { ops.gemm(args); });

  // dequantised values of the form that the pass reads
  const bool columnwise = form.scaling == Scaling::mx_1x32;
  const auto& left = columnwise && pass == GemmPass::wgrad ? a.columnwise_values : a.rowwise_values;
  const auto& right = columnwise && pass != GemmPass::fprop ? b.columnwise_values : b.rowwise_values;
  std::vector<Expected> want(at(out_shape.numel()));
  const std::int64_t depth = pass == GemmPass::fprop ? k : (pass == GemmPass::dgrad ? n : tokens);
  for (std::int64_t r = 0; r < out_shape[0]; ++r) {
    for (std::int64_t c = 0; c < out_shape[1]; ++c) {
      Expected& e = want[at(r * out_shape[1] + c)];
      const bool tail = pass != GemmPass::wgrad && r >= live;
      if (extras.addend) e.add(addend[at(r * out_shape[1] + c)]);
      if (tail) continue;
      if (extras.bias) e.add(bias[at(c)]);
      for (std::int64_t i = 0; i < depth; ++i) {
        const double x = pass == GemmPass::wgrad ? left[at(i * n + r)] : left[at(r * depth + i)];
        const double y = pass == GemmPass::fprop ? right[at(c * k + i)] : right[at(i * k + c)];
        e.add(x * y);
      }
    }
  }
  expect_close("out", device.floats(args.out), want, extras.out, depth);
}

}  // namespace

void add_gemm_cases(std::vector<OpCase>& cases) {
  const std::vector<Form> forms{{"f32", Scaling::none, DType::f32, DType::f32},
                                {"bf16", Scaling::none, DType::bf16, DType::bf16},
                                {"e4m3", Scaling::tensor, DType::e4m3, DType::e4m3},
                                {"e5m2_e4m3", Scaling::tensor, DType::e5m2, DType::e4m3},
                                {"mx_e4m3", Scaling::mx_1x32, DType::e4m3, DType::e4m3},
                                {"mx_e5m2_e4m3", Scaling::mx_1x32, DType::e5m2, DType::e4m3}};
  const std::vector<std::pair<std::string, GemmPass>> passes{
      {"fprop", GemmPass::fprop}, {"dgrad", GemmPass::dgrad}, {"wgrad", GemmPass::wgrad}};
  for (const auto& [pass_name, pass] : passes) {
    for (const Form& form : forms) {
      std::vector<std::pair<std::string, Extras>> extras;
      for (DType out : {DType::f32, DType::bf16}) {
        extras.push_back({fmt::format("{}", name(out)), {false, false, false, out}});
        extras.push_back({fmt::format("{}_add", name(out)), {false, true, false, out}});
        extras.push_back({fmt::format("{}_in_place", name(out)), {false, true, true, out}});
        if (pass == GemmPass::fprop) extras.push_back({fmt::format("{}_bias_add", name(out)), {true, true, true, out}});
      }
      for (const auto& [extra_name, extra] : extras) {
        for (std::int64_t live : {std::int64_t{1}, std::int64_t{255}, std::int64_t{256}}) {
          cases.push_back({fmt::format("gemm_{}/{}/{}/{}", pass_name, form.name, extra_name, live),
                           [=, p = pass, f = form, e = extra](Backend& b) { gemm_case(b, p, f, e, 256, live); }});
        }
      }
    }
  }
}

}  // namespace llmfp8::testing
