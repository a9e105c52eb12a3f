// Matrix products of the three passes: images of quantised operands, the engine, and the epilogue. Called by CpuOps.
//
// FP8 is emulated exactly: a code's image is exact in bf16, products are summed in fp32, the result is multiplied by
// scale_inv_a * scale_inv_b in fp32, then bias and addend are added, and it is rounded once. Where a product needs images or
// an epilogue it goes panel by panel, so that the scratch is small and stays in the cache.
#include "backend/cpu/kernels.h"
#include "backend/cpu/matmul.h"
#include "backend/cpu/operand_image.h"
#include "backend/cpu/simd.h"
#include "core/thread_pool.h"

namespace llmfp8::cpu {
namespace {

constexpr std::int64_t kPanelRows = 1024, kPanelColumns = 2048;  // of out
constexpr std::int64_t kRowStep = 128;  // counts are rounded up to it, so that few shapes reach the engine

// How a product runs; from shapes, types and the engine alone.
struct Plan {
  std::int64_t m = 0, n = 0, k = 0;  // of the whole product
  bool images = false;               // a and b are multiplied in another type than they are stored in
  bool direct = false;               // the engine writes out itself
  DType in = DType::f32;
  std::size_t a_bytes = 0, b_bytes = 0, c_bytes = 0;
};

std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

Plan plan_of(const GemmArgs& args, const MatmulEngine& engine) {
  Plan plan;
  const bool wgrad = args.pass == GemmPass::wgrad;
  plan.m = args.out.rows();
  plan.n = args.out.cols();
  plan.k = args.a.shape[wgrad ? 0 : 1];
  const bool quantized = args.a.quantized();
  plan.images = quantized || (args.a.format == DType::bf16 && engine.image_dtype() != DType::bf16);
  plan.in = plan.images ? engine.image_dtype() : args.a.format;
  const bool scaled = args.a.scaling == Scaling::tensor || args.b.scaling == Scaling::tensor;
  const bool in_place =
      args.addend.defined() && args.addend.data == args.out.data && args.out.dtype == DType::f32 && wgrad;
  const bool plain = !scaled && !args.bias.defined() && (!args.addend.defined() || in_place);
  plan.direct = plain && (args.out.dtype == DType::f32 || plan.in == DType::bf16);
  const std::int64_t rows = std::min(plan.m, kPanelRows), cols = std::min(plan.n, kPanelColumns);
  if (plan.images) {
    plan.a_bytes = aligned(static_cast<std::size_t>(rows * plan.k) * size_bytes(plan.in));
    plan.b_bytes = aligned(static_cast<std::size_t>(cols * plan.k) * size_bytes(plan.in));
  }
  if (!plan.direct) plan.c_bytes = aligned(static_cast<std::size_t>(rows * cols) * sizeof(float));
  return plan;
}

// out rows [begin, end) of a panel = scale * product (+ bias) (+ addend). product: f32 [rows, cols] contiguous
struct Epilogue {
  const GemmArgs* args = nullptr;
  const float* product = nullptr;
  float scale = 1.0f;
  std::int64_t row = 0, col = 0, cols = 0;  // of the panel in out
};

template <typename Out, typename Bias>
LLMFP8_CLONES void finish_rows(const Epilogue& e, std::int64_t begin, std::int64_t end) {
  const Bias* bias = e.args->bias.defined() ? e.args->bias.as<const Bias>() + e.col : nullptr;
  float x[kChunk];
  for (std::int64_t r = begin; r < end; ++r) {
    Out* out = row_of<Out>(e.args->out, e.row + r) + e.col;
    const Out* addend = e.args->addend.defined() ? row_of<const Out>(e.args->addend, e.row + r) + e.col : nullptr;
    for (std::int64_t c = 0; c < e.cols; c += kChunk) {
      const std::int64_t n = std::min<std::int64_t>(kChunk, e.cols - c);
      const float* __restrict from = e.product + r * e.cols + c;
      for (std::int64_t i = 0; i < n; ++i) x[i] = from[i] * e.scale;
      if (bias != nullptr) {
        for (std::int64_t i = 0; i < n; ++i) x[i] += as_float(bias[c + i]);
      }
      if (addend != nullptr) {
        for (std::int64_t i = 0; i < n; ++i) x[i] += as_float(addend[c + i]);
      }
      store(x, out + c, n);
    }
  }
}

void finish(const Epilogue& e, std::int64_t rows) {
  with_activation(e.args->out.dtype, [&](auto out) {
    with_activation(e.args->bias.defined() ? e.args->bias.dtype : DType::f32, [&](auto bias) {
      parallel_for(rows, row_grain(e.cols), [&](std::int64_t begin, std::int64_t end) {
        finish_rows<decltype(out), decltype(bias)>(e, begin, end);
      });
    });
  });
}

// Rows of out beyond the count: zero, or the addend.
void finish_tail(const GemmArgs& args, std::int64_t live) {
  const std::int64_t rows = args.out.rows();
  if (live >= rows) return;
  if (args.addend.defined()) {
    copy(args.addend.slice_rows(live, rows - live), args.out.slice_rows(live, rows - live));
    return;
  }
  with_activation(args.out.dtype, [&](auto out) {
    for (std::int64_t row = live; row < rows; ++row) zero_row<decltype(out)>(args.out, row);
  });
}

float scale_of(const GemmArgs& args) {
  const auto inverse = [](const QTensor& q) {
    if (q.scaling != Scaling::tensor) return 1.0f;
    return *(q.rowwise_scale_inv.defined() ? q.rowwise_scale_inv : q.columnwise_scale_inv).as<float>();
  };
  return inverse(args.a) * inverse(args.b);
}

// The rectangle of an operand that a panel of out needs. along_rows: the panel cuts the operand's stored rows, not columns.
struct OperandView {
  const QTensor* matrix = nullptr;
  bool along_rows = true, columnwise = false;
  std::int64_t contracted = 0;  // length of the contraction
  std::int64_t live = 0;        // rows of the matrix that are not zero

  Panel panel(std::int64_t begin, std::int64_t count) const {
    if (along_rows) return {matrix, columnwise, begin, count, 0, contracted, live};
    return {matrix, columnwise, 0, contracted, begin, count, live};
  }
};

// The operand's memory for one panel: its image, or the matrix itself.
const void* place(const Panel& panel, const Plan& plan, void* image, std::int64_t* ld) {
  if (plan.images) {
    make_image(panel, plan.in, image);
    *ld = panel.cols;
    return image;
  }
  const Tensor& matrix = panel.matrix->rowwise;
  *ld = matrix.row_stride;
  return matrix.as<std::byte>() +
         (panel.row * matrix.row_stride + panel.col) * static_cast<std::int64_t>(size_bytes(matrix.dtype));
}

}  // namespace

std::size_t gemm_scratch_bytes(const GemmArgs& args, const MatmulEngine& engine) {
  const Plan plan = plan_of(args, engine);
  return plan.a_bytes + plan.b_bytes + plan.c_bytes;
}

void gemm(const GemmArgs& args, const MatmulEngine& engine, void* scratch) {
  const Plan plan = plan_of(args, engine);
  const bool wgrad = args.pass == GemmPass::wgrad;
  const std::int64_t tokens = args.a.shape[0];
  const std::int64_t live = args.num_rows.defined() ? live_rows(args.num_rows, tokens, args.row_offset) : tokens;
  const std::int64_t rounded = std::min(tokens, (live + kRowStep - 1) / kRowStep * kRowStep);
  const std::int64_t m = wgrad ? plan.m : rounded, k = wgrad ? rounded : plan.k;
  if (live == 0) return finish_tail(args, 0);

  const bool mx = args.a.scaling == Scaling::mx_1x32;
  const OperandView a{&args.a, !wgrad, mx && wgrad, k, live};
  const OperandView b{&args.b, args.pass == GemmPass::fprop, mx && args.pass != GemmPass::fprop, k,
                      wgrad ? live : args.b.shape[0]};
  for (const OperandView* v : {&a, &b}) {
    CHECK(v->matrix->mx_scale_layout == MxScaleLayout::plain, "gemm: the CPU reads MXFP8 scales as they are, found tiles");
    CHECK((v->columnwise ? v->matrix->columnwise : v->matrix->rowwise).defined(), "gemm: an operand lacks its {} form",
          v->columnwise ? "columnwise" : "rowwise");
  }
  std::byte* base = static_cast<std::byte*>(scratch);
  float* product = reinterpret_cast<float*>(base + plan.a_bytes + plan.b_bytes);
  const float scale = scale_of(args);
  const bool whole = plan.direct && !plan.images;  // nothing to do by panels
  const std::int64_t panel_rows = whole ? m : kPanelRows, panel_cols = whole ? plan.n : kPanelColumns;
  for (std::int64_t col = 0; col < plan.n; col += panel_cols) {
    Matmul call;
    call.n = std::min(panel_cols, plan.n - col);
    call.k = k;
    call.in = plan.in;
    call.a_transposed = wgrad;
    call.b_transposed = args.pass == GemmPass::fprop;
    call.b = place(b.panel(col, call.n), plan, base + plan.a_bytes, &call.ldb);
    for (std::int64_t row = 0; row < m; row += panel_rows) {
      call.m = std::min(panel_rows, m - row);
      call.a = place(a.panel(row, call.m), plan, base, &call.lda);
      if (plan.direct) {
        call.c = args.out.as<std::byte>() +
                 (row * args.out.row_stride + col) * static_cast<std::int64_t>(size_bytes(args.out.dtype));
        call.ldc = args.out.row_stride;
        call.out = args.out.dtype;
        call.accumulate = args.addend.defined();
        engine.run(call);
        continue;
      }
      call.c = product;
      call.ldc = call.n;
      engine.run(call);
      const std::int64_t rows = wgrad ? call.m : std::clamp<std::int64_t>(live - row, 0, call.m);
      finish({&args, product, scale, row, col, call.n}, rows);
    }
  }
  if (!wgrad) finish_tail(args, live);
}

}  // namespace llmfp8::cpu
