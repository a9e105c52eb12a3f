#include "backend/cuda/gemm.h"

#include <algorithm>

#include "backend/cuda/gemm_kernels.h"
#include "core/log.h"

namespace llmfp8::cuda {
namespace {

constexpr std::int64_t kFp8Multiple = 16;  // of every extent, leading dimension (bytes) and address of an FP8 product

cudaDataType_t cuda_type(DType dtype) {
  switch (dtype) {
    case DType::f32: return CUDA_R_32F;
    case DType::bf16: return CUDA_R_16BF;
    case DType::e4m3: return CUDA_R_8F_E4M3;
    case DType::e5m2: return CUDA_R_8F_E5M2;
    default: fail("gemm: operands of {}, wanted f32, bf16, e4m3 or e5m2", name(dtype));
  }
}

bool is_mx(const GemmArgs& args) { return args.a.scaling == Scaling::mx_1x32; }

// MXFP8 whose scales are not in the order of tensor cores: bf16 images of the operands are multiplied.
bool is_emulated(const GemmArgs& args) { return is_mx(args) && args.a.mx_scale_layout == MxScaleLayout::plain; }

// The stored matrices that a pass multiplies, and whether each is transposed in the column-major product.
struct Sides {
  const Tensor* left = nullptr;   // of b
  const Tensor* right = nullptr;  // of a
  bool transpose_left = false, transpose_right = false;
};

Sides sides_of(const GemmArgs& args) {
  const bool fp8 = args.a.quantized(), transposed = fp8 && !is_mx(args);  // the columnwise codes
  switch (args.pass) {
    case GemmPass::fprop: return {&args.b.rowwise, &args.a.rowwise, true, false};
    case GemmPass::dgrad:
      return {fp8 ? &args.b.columnwise : &args.b.rowwise, &args.a.rowwise, transposed, false};
    case GemmPass::wgrad:
      return {fp8 ? &args.b.columnwise : &args.b.rowwise, fp8 ? &args.a.columnwise : &args.a.rowwise, transposed,
              !transposed};
  }
  fail("gemm: pass {}", static_cast<int>(args.pass));
}

// cuBLASLt adds a bias of out's own dtype in the product; it multiplies f32 into f32 only; and a bias together with an
// addend would be added to the rows beyond the count, which keep the addend alone. The rest is finished by a kernel.
bool needs_finish(const GemmArgs& args) {
  const bool narrowed = args.a.format == DType::f32 && args.out.dtype != DType::f32;
  const bool foreign_bias = args.bias.defined() && (args.addend.defined() || args.bias.dtype != args.out.dtype ||
                                                    (args.a.quantized() && args.out.dtype != DType::bf16));
  return narrowed || foreign_bias;
}

std::uint32_t alignment_of(const void* data) {
  const auto address = reinterpret_cast<std::uintptr_t>(data) | 256u;
  return static_cast<std::uint32_t>(address & (~address + 1));
}

// The scales of one of q's two forms of codes; both forms of per-tensor scaling share one.
const void* scale_inv_of(const QTensor& q, const Tensor& codes) {
  if (!q.quantized()) return nullptr;
  if (q.scaling == Scaling::mx_1x32) return (&codes == &q.rowwise ? q.rowwise_scale_inv : q.columnwise_scale_inv).data;
  return (q.rowwise_scale_inv.defined() ? q.rowwise_scale_inv : q.columnwise_scale_inv).data;
}

LiveRows live_rows(const GemmArgs& args) {
  // Only rows of out that are rows of T have a tail; in wgrad the tail lies in the contraction, as zeros.
  if (!args.num_rows.defined() || args.pass == GemmPass::wgrad) return {};
  return {args.num_rows.as<const std::int32_t>(), args.row_offset};
}

// The problem with out as it is written by cuBLASLt.
GemmProblem problem_of(const GemmArgs& args, const Sides& sides, const Tensor& out) {
  GemmProblem p;
  p.m = out.cols();
  p.n = out.rows();
  p.k = args.pass == GemmPass::fprop   ? args.a.shape[1]
        : args.pass == GemmPass::dgrad ? args.a.shape[1]
                                       : args.a.shape[0];
  p.ld_left = sides.left->row_stride;
  p.ld_right = sides.right->row_stride;
  p.ld_out = p.ld_addend = out.row_stride;
  p.left = is_emulated(args) ? DType::bf16 : args.b.format;
  p.right = is_emulated(args) ? DType::bf16 : args.a.format;
  p.out = out.dtype;
  p.transpose_left = sides.transpose_left;
  p.transpose_right = sides.transpose_right;
  p.mx = is_mx(args) && !is_emulated(args);
  p.accumulation = args.accumulation;
  if (!args.a.quantized() || is_mx(args)) p.accumulation = Accumulation::precise;
  return p;
}

// Whether the tensor cores can multiply these FP8 matrices.
bool fp8_fits(const GemmProblem& p) {
  const auto fits = [](std::int64_t bytes) { return bytes % kFp8Multiple == 0; };
  const auto out_bytes = static_cast<std::int64_t>(size_bytes(p.out));
  const bool both_e5m2 = p.left == DType::e5m2 && p.right == DType::e5m2;
  return !both_e5m2 && fits(p.m) && fits(p.k) && fits(p.ld_left) && fits(p.ld_right) && fits(p.ld_out * out_bytes) &&
         fits(p.ld_addend * out_bytes) && p.alignment >= kFp8Multiple;
}

void run_plain_fp8(const GemmArgs& args, const Sides& sides, cudaStream_t stream) {
  static std::once_flag told;
  std::call_once(told, [&] {
    log::warning("FP8 product [{}, {}] over {} is not in multiples of {}: such products run on a slow kernel",
                 args.out.rows(), args.out.cols(), sides.left->cols(), kFp8Multiple);
  });
  PlainFp8Product product;
  product.rows = *sides.right;
  product.cols = *sides.left;
  product.rows_format = args.a.format;
  product.cols_format = args.b.format;
  product.rows_scale_inv = static_cast<const float*>(scale_inv_of(args.a, *sides.right));
  product.cols_scale_inv = static_cast<const float*>(scale_inv_of(args.b, *sides.left));
  product.bias = args.bias;
  product.addend = args.addend;
  product.out = args.out;
  product.live = live_rows(args);
  plain_fp8_product(product, stream);
}

void check_operands(const GemmArgs& args, const Sides& sides) {
  for (const QTensor* q : {&args.a, &args.b}) {
    CHECK(q->scaling == args.a.scaling && q->mx_scale_layout == args.a.mx_scale_layout,
          "gemm: the operands are scaled in two ways");
  }
  CHECK(sides.left->defined() && sides.right->defined(), "gemm: operand {} lacks the form that pass {} reads",
        sides.right->defined() ? "b" : "a", static_cast<int>(args.pass));
}

DeviceMemory make_device_one() {
  constexpr float kOne = 1.0f;
  void* raw = nullptr;
  LLMFP8_CUDA_CHECK(cudaMalloc(&raw, sizeof kOne));
  DeviceMemory one(raw);
  LLMFP8_CUDA_CHECK(cudaMemcpy(raw, &kOne, sizeof kOne, cudaMemcpyHostToDevice));
  return one;
}

// device_one: see GemmPlan.
GemmPlan make_plan(const GemmProblem& p, const float* device_one) {
  GemmPlan plan;
  plan.desc = make_matmul_desc();
  set(plan.desc, CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_left ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(plan.desc, CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_right ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (p.sums_in_place) {
    set(plan.desc, CUBLASLT_MATMUL_DESC_POINTER_MODE, CUBLASLT_POINTER_MODE_DEVICE);
    plan.device_one = device_one;
  }
  if (p.mx) {
    const auto mode = static_cast<std::int32_t>(CUBLASLT_MATMUL_MATRIX_SCALE_VEC32_UE8M0);
    set(plan.desc, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, mode);
    set(plan.desc, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, mode);
  } else if (is_fp8(p.left)) {
    set(plan.desc, CUBLASLT_MATMUL_DESC_FAST_ACCUM, static_cast<std::int8_t>(p.accumulation == Accumulation::fast));
  }
  if (p.bias) {
    set(plan.desc, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(plan.desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<std::int32_t>(cuda_type(p.out)));
  }
  const auto layout = [](DType dtype, std::int64_t rows, std::int64_t cols, bool transposed, std::int64_t ld) {
    return make_layout(cuda_type(dtype), transposed ? cols : rows, transposed ? rows : cols, ld);
  };
  plan.left = layout(p.left, p.m, p.k, p.transpose_left, p.ld_left);
  plan.right = layout(p.right, p.k, p.n, p.transpose_right, p.ld_right);
  plan.addend = layout(p.out, p.m, p.n, false, p.ld_addend);
  plan.out = layout(p.out, p.m, p.n, false, p.ld_out);
  return plan;
}

// Where things lie in a product's scratch.
struct Scratch {
  std::size_t left_image = 0, right_image = 0, bytes = 0;  // behind the fp32 product, which lies at 0

  explicit Scratch(const GemmArgs& args) {
    const auto take = [this](std::int64_t elements, DType dtype) {
      const std::size_t at = bytes;
      bytes += (static_cast<std::size_t>(elements) * size_bytes(dtype) + 255) / 256 * 256;
      return at;
    };
    if (needs_finish(args)) take(args.out.numel(), DType::f32);
    if (!is_emulated(args)) return;
    left_image = take(args.b.shape.numel(), DType::bf16);
    right_image = take(args.a.shape.numel(), DType::bf16);
  }
};

struct Images {
  Tensor left, right;
};

// Enqueues bf16 images of both operands into scratch; the sides of their product.
Sides make_images(const GemmArgs& args, const Sides& codes, void* scratch, Images* images, cudaStream_t stream) {
  const Scratch at(args);
  auto* base = static_cast<std::byte*>(scratch);
  images->left = Tensor(base + at.left_image, DType::bf16, args.b.shape);
  images->right = Tensor(base + at.right_image, DType::bf16, args.a.shape);
  mx_image(args.b, *codes.left, images->left, stream);
  mx_image(args.a, *codes.right, images->right, stream);
  return {&images->left, &images->right, codes.transpose_left, codes.transpose_right};
}

}  // namespace

std::string to_string(const GemmProblem& p) {
  return fmt::format("{}x{}x{}_ld{}.{}.{}.{}_{}.{}.{}_{}{}{}{}{}{}_align{}", p.m, p.n, p.k, p.ld_left, p.ld_right,
                     p.ld_addend, p.ld_out, name(p.left), name(p.right), name(p.out), p.transpose_left ? 't' : 'n',
                     p.transpose_right ? 't' : 'n', p.sums_in_place ? "_sum" : p.addend ? "_add" : "", p.bias ? "_bias" : "",
                     p.accumulation == Accumulation::fast ? "_fast" : "", p.mx ? "_mx" : "", p.alignment);
}

cublasStatus_t launch(cublasLtHandle_t lt, const GemmPlan& plan, const cublasLtMatmulAlgo_t& algorithm,
                      const GemmOperands& operands, const GemmWorkspace& workspace, cudaStream_t stream) {
  const float one = 1.0f, zero = 0.0f;
  const float* alpha = plan.device_one != nullptr ? plan.device_one : &one;
  const float* beta = operands.addend != nullptr ? alpha : &zero;
  const void* addend = operands.addend != nullptr ? operands.addend : operands.out;
  return cublasLtMatmul(lt, plan.desc.get(), alpha, operands.left, plan.left.get(), operands.right, plan.right.get(),
                        beta, addend, plan.addend.get(), operands.out, plan.out.get(), &algorithm, workspace.data,
                        workspace.bytes, stream);
}

std::size_t gemm_scratch_bytes(const GemmArgs& args) {
  const Scratch at(args);
  return at.bytes;
}

GemmEngine::GemmEngine(const std::string& machine, AlgorithmChoice choice) : lt_(make_lt()), one_(make_device_one()), algorithms_(machine, choice) {}

void GemmEngine::gemm(const GemmArgs& args, const GemmWorkspace& workspace, void* scratch, cudaStream_t stream) {
  Sides sides = sides_of(args);
  check_operands(args, sides);
  if (args.out.numel() == 0) return;
  Images images;
  if (is_emulated(args)) sides = make_images(args, sides, scratch, &images, stream);
  const bool finish = needs_finish(args);
  const Tensor product = finish ? Tensor(scratch, DType::f32, Shape{args.out.rows(), args.out.cols()}) : args.out;
  const bool with_addend = args.addend.defined() && !finish, with_bias = args.bias.defined() && !finish;

  GemmProblem problem = problem_of(args, sides, product);
  problem.addend = with_addend;
  problem.bias = with_bias;
  problem.sums_in_place = with_addend && product.dtype == DType::bf16 && args.addend.data == product.data;
  if (with_addend) problem.ld_addend = args.addend.row_stride;
  GemmOperands operands{sides.left->data,
                        sides.right->data,
                        with_bias ? args.bias.data : nullptr,
                        with_addend ? args.addend.data : nullptr,
                        product.data,
                        is_emulated(args) ? nullptr : scale_inv_of(args.b, *sides.left),
                        is_emulated(args) ? nullptr : scale_inv_of(args.a, *sides.right)};
  for (const void* data :
       {operands.left, operands.right, operands.bias, operands.addend, static_cast<const void*>(operands.out)}) {
    problem.alignment = std::min(problem.alignment, alignment_of(data));  // a null pointer is aligned
  }
  if (is_fp8(problem.left) && !fp8_fits(problem)) {
    CHECK(!problem.mx, "gemm: MXFP8 product {} is not in multiples of {}, or both operands are e5m2", to_string(problem), kFp8Multiple);
    return run_plain_fp8(args, sides, stream);
  }

  multiply(problem, operands, workspace, stream);
  if (finish) {
    finish_product(product.as<const float>(), args.bias, args.addend, args.out, live_rows(args), stream);
  } else if (with_bias && args.num_rows.defined()) {
    zero_tail(args.out, live_rows(args), stream);  // cuBLASLt gave the bias to every row
  }
}

void GemmEngine::multiply(const GemmProblem& problem, const GemmOperands& operands, const GemmWorkspace& workspace,
                          cudaStream_t stream) {
  const std::lock_guard lock(mutex_);
  auto found = plans_.find(problem);
  if (found == plans_.end()) found = plans_.emplace(problem, make_plan(problem, static_cast<const float*>(one_.get()))).first;
  GemmPlan& plan = found->second;
  if (operands.left_scale_inv != nullptr) {
    set(plan.desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, operands.left_scale_inv);
    set(plan.desc, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, operands.right_scale_inv);
  }
  if (operands.bias != nullptr) set(plan.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, operands.bias);
  if (!plan.final) algorithms_.choose(lt_.get(), problem, operands, workspace, stream, plan);
  const cublasStatus_t status = launch(lt_.get(), plan, plan.algorithm, operands, workspace, stream);
  CHECK(status == CUBLAS_STATUS_SUCCESS, "cuBLASLt: product {}: {}", to_string(problem),
        cublasLtGetStatusString(status));
}

}  // namespace llmfp8::cuda
