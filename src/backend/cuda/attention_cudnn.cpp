// Attention on CUDA: decides between cuDNN and the own kernels, builds cuDNN's graphs and runs them. Called by CudaOps.
// The one file that includes the cuDNN frontend (half a minute of compilation).
//
// Documents lie one behind the other in memory; cuDNN takes them as a batch of max_docs sequences through "ragged
// offsets", arrays of where each begins. Where they are known to be equally long and to fill the capacity they are an
// ordinary batch, which is 10-20 % faster. q, k and v are columns of the packed qkv matrix: their row
// stride is its width.
#include "backend/cuda/attention.h"

#include <algorithm>
#include <bit>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include <cudnn_frontend.h>

#include "backend/cuda/attention_kernels.h"
#include "backend/cuda/check.h"
#include "backend/cuda/versions.h"
#include "core/bf16.h"
#include "core/log.h"

namespace llmfp8::cuda {
namespace {

namespace fe = cudnn_frontend;
using GraphTensor = std::shared_ptr<fe::graph::Tensor_attributes>;

// Above this the own kernels make the deterministic backward pass: cuDNN's workspace grows with slots x length^2.
constexpr std::int64_t kMaxDeterministicWorkspace = std::int64_t{2} << 30;
constexpr std::int64_t kLengthStep = 128;  // cuDNN's tile; a longer announced maximum costs nothing and shares plans

enum class Pass : std::int64_t { forward, backward };

// Everything that a plan depends on.
struct PlanKey {
  Pass pass = Pass::forward;
  std::int64_t tokens = 0, max_docs = 0, max_length = 0;
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0;
  std::int64_t qkv_stride = 0, out_stride = 0;
  float scale = 1.0f;
  bool equal = false;  // max_docs documents of max_length tokens each: no offsets, no lengths

  auto tied() const {
    return std::tuple(pass, tokens, max_docs, max_length, heads, kv_heads, head_dim, qkv_stride, out_stride,
                      std::bit_cast<std::uint32_t>(scale), equal);
  }
  bool operator<(const PlanKey& other) const { return tied() < other.tied(); }
};

// Ids of a graph's tensors.
enum Uid : std::int64_t {
  kQ = 1,
  kK,
  kV,
  kO,
  kStats,
  kDO,
  kDQ,
  kDK,
  kDV,
  kQOffsets,
  kKOffsets,
  kVOffsets,
  kOOffsets,
  kStatsOffsets,
  kDOOffsets,
  kDQOffsets,
  kDKOffsets,
  kDVOffsets,
  kLengthsQ,
  kLengthsKV,
};

struct Plan {
  PlanKey key;
  std::unique_ptr<fe::graph::Graph> graph;  // null: cuDNN refuses this shape
  std::string refusal;
  std::int64_t workspace_bytes = 0;
};

using Pointers = std::unordered_map<std::int64_t, void*>;

void check_cudnn(cudnnStatus_t status, const char* what) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  throw_if_faulted(what);
  fail("cuDNN: {}: {}", what, cudnnGetErrorString(status));
}

// The frontend reports some mistakes over several lines.
std::string one_line(std::string message) {
  std::replace(message.begin(), message.end(), '\n', ' ');
  return message;
}

// Tensors of one graph, all [max_docs, heads, max_length, columns]. One graph, one GraphTensors.
class GraphTensors {
 public:
  GraphTensors(fe::graph::Graph& graph, const PlanKey& key) : graph_(graph), key_(key) {}

  GraphTensor lengths(Uid uid, const char* name) const {
    return graph_.tensor(
        attributes(uid, name, {key_.max_docs, 1, 1, 1}, {1, 1, 1, 1}).set_data_type(fe::DataType_t::INT32));
  }

  // bf16 heads of head_dim columns inside rows of row_stride elements
  GraphTensor input(Uid uid, const char* name, std::int64_t heads, std::int64_t row_stride, Uid offsets_uid) const {
    auto a = attributes(uid, name, dims(heads), strides(row_stride)).set_data_type(fe::DataType_t::BFLOAT16);
    return graph_.tensor(key_.equal ? a : a.set_ragged_offset(offsets(offsets_uid)));
  }
  void output(const GraphTensor& tensor, Uid uid, std::int64_t heads, std::int64_t row_stride, Uid offsets_uid) const {
    tensor->set_output(true).set_uid(uid).set_dim(dims(heads)).set_stride(strides(row_stride));
    tensor->set_data_type(fe::DataType_t::BFLOAT16);
    if (!key_.equal) tensor->set_ragged_offset(offsets(offsets_uid));
  }

  // The log-sum-exp as Ops has it: f32 [heads, tokens], so a head is `tokens` apart and a token 1.
  GraphTensor stats_input() const {
    auto a = attributes(kStats, "stats", stats_dims(), stats_strides()).set_data_type(fe::DataType_t::FLOAT);
    return graph_.tensor(key_.equal ? a : a.set_ragged_offset(offsets(kStatsOffsets)));
  }
  void stats_output(const GraphTensor& tensor) const {
    tensor->set_output(true).set_uid(kStats).set_dim(stats_dims()).set_stride(stats_strides());
    tensor->set_data_type(fe::DataType_t::FLOAT);
    if (!key_.equal) tensor->set_ragged_offset(offsets(kStatsOffsets));
  }

 private:
  using Extents = std::vector<std::int64_t>;

  static fe::graph::Tensor_attributes attributes(Uid uid, const char* name, Extents dim, Extents stride) {
    return fe::graph::Tensor_attributes()
        .set_uid(uid)
        .set_name(name)
        .set_dim(std::move(dim))
        .set_stride(std::move(stride));
  }
  GraphTensor offsets(Uid uid) const {
    return graph_.tensor(
        attributes(uid, "offsets", {key_.max_docs + 1, 1, 1, 1}, {1, 1, 1, 1}).set_data_type(fe::DataType_t::INT64));
  }
  Extents dims(std::int64_t heads) const { return {key_.max_docs, heads, key_.max_length, key_.head_dim}; }
  Extents strides(std::int64_t row_stride) const {
    return {key_.max_length * row_stride, key_.head_dim, row_stride, 1};
  }
  Extents stats_dims() const { return {key_.max_docs, key_.heads, key_.max_length, 1}; }
  // A document is max_length columns further on; ragged documents lie where their offsets say.
  Extents stats_strides() const { return {key_.equal ? key_.max_length : key_.heads * key_.tokens, key_.tokens, 1, 1}; }

  fe::graph::Graph& graph_;
  const PlanKey& key_;
};

std::unique_ptr<fe::graph::Graph> new_graph() {
  auto graph = std::make_unique<fe::graph::Graph>();
  graph->set_io_data_type(fe::DataType_t::BFLOAT16)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  return graph;
}

// options: of either pass.
template <typename Options>
void set_lengths(Options& options, const GraphTensors& tensors, const PlanKey& key) {
  if (key.equal) return;
  options.set_padding_mask(true);
  options.set_seq_len_q(tensors.lengths(kLengthsQ, "lengths_q")).set_seq_len_kv(tensors.lengths(kLengthsKV, "lengths_kv"));
}

std::unique_ptr<fe::graph::Graph> forward_graph(const PlanKey& key) {
  auto graph = new_graph();
  const GraphTensors tensors(*graph, key);
  const GraphTensor q = tensors.input(kQ, "q", key.heads, key.qkv_stride, kQOffsets);
  const GraphTensor k = tensors.input(kK, "k", key.kv_heads, key.qkv_stride, kKOffsets);
  const GraphTensor v = tensors.input(kV, "v", key.kv_heads, key.qkv_stride, kVOffsets);
  auto options = fe::graph::SDPA_attributes();
  options.set_name("attention").set_generate_stats(true).set_attn_scale(key.scale);
  set_lengths(options, tensors, key);
  options.set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT).set_diagonal_band_right_bound(0);
  const auto [out, stats] = graph->sdpa(q, k, v, std::move(options));
  tensors.output(out, kO, key.heads, key.out_stride, kOOffsets);
  tensors.stats_output(stats);
  return graph;
}

std::unique_ptr<fe::graph::Graph> backward_graph(const PlanKey& key, bool deterministic) {
  auto graph = new_graph();
  const GraphTensors tensors(*graph, key);
  const GraphTensor q = tensors.input(kQ, "q", key.heads, key.qkv_stride, kQOffsets);
  const GraphTensor k = tensors.input(kK, "k", key.kv_heads, key.qkv_stride, kKOffsets);
  const GraphTensor v = tensors.input(kV, "v", key.kv_heads, key.qkv_stride, kVOffsets);
  const GraphTensor out = tensors.input(kO, "o", key.heads, key.out_stride, kOOffsets);
  const GraphTensor d_out = tensors.input(kDO, "d_o", key.heads, key.out_stride, kDOOffsets);
  auto options = fe::graph::SDPA_backward_attributes();
  options.set_name("attention_backward").set_attn_scale(key.scale);
  set_lengths(options, tensors, key);
  options.set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT).set_diagonal_band_right_bound(0);
  // Sizes the workspace by the batch's tokens instead of slots x maximum length.
  if (!key.equal) options.set_max_total_seq_len_q(key.tokens).set_max_total_seq_len_kv(key.tokens);
  options.set_deterministic_algorithm(deterministic);
  const auto [d_q, d_k, d_v] = graph->sdpa_backward(q, k, v, out, d_out, tensors.stats_input(), std::move(options));
  tensors.output(d_q, kDQ, key.heads, key.qkv_stride, kDQOffsets);
  // Not into the packed d_qkv: cuDNN keeps a copy for every query head with the row stride that it finds here times
  // heads / kv_heads, which the packed stride would make six times as large.
  const std::int64_t kv_stride = key.kv_heads * key.head_dim;
  tensors.output(d_k, kDK, key.kv_heads, kv_stride, kDKOffsets);
  tensors.output(d_v, kDV, key.kv_heads, kv_stride, kDVOffsets);
  return graph;
}

std::size_t aligned(std::int64_t bytes) { return static_cast<std::size_t>((bytes + 255) / 256 * 256); }

// Scratch of a cuDNN call: the document layout, gradients of k and v, cuDNN's workspace.
struct Scratch {
  DocumentLayout layout{};
  std::byte *d_k = nullptr, *d_v = nullptr, *workspace = nullptr;
  std::size_t bytes = 0;

  Scratch(const Plan& plan, void* base_) : base(static_cast<std::byte*>(base_)) {
    const PlanKey& key = plan.key;
    const std::int64_t offset_bytes = (key.max_docs + 1) * static_cast<std::int64_t>(sizeof(std::int64_t));
    for (auto* offsets : {&layout.qkv_offsets, &layout.out_offsets, &layout.kv_offsets, &layout.lse_offsets})
      *offsets = reinterpret_cast<std::int64_t*>(take(offset_bytes));
    layout.lengths =
        reinterpret_cast<std::int32_t*>(take(key.max_docs * static_cast<std::int64_t>(sizeof(std::int32_t))));
    if (key.pass == Pass::backward) {
      const std::int64_t gradient_bytes = key.tokens * key.kv_heads * key.head_dim * 2;  // bf16
      d_k = take(gradient_bytes);
      d_v = take(gradient_bytes);
    }
    workspace = take(plan.workspace_bytes);
  }

 private:
  std::byte* take(std::int64_t size) {
    std::byte* piece = base == nullptr ? nullptr : base + bytes;
    bytes += aligned(size);
    return piece;
  }
  std::byte* base;
};

template <typename Args>
PlanKey key_of(const Args& args, Pass pass, std::int64_t equal_doc_tokens) {
  const AttentionShape& shape = args.shape;
  const std::int64_t tokens = args.qkv.rows();
  const std::int64_t longest = shape.max_doc_tokens > 0 ? std::min(shape.max_doc_tokens, tokens) : tokens;
  const bool equal = equal_doc_tokens > 0;
  return {pass,
          tokens,
          equal ? tokens / equal_doc_tokens : args.cu_seqlens.numel() - 1,
          equal ? equal_doc_tokens : (longest + kLengthStep - 1) / kLengthStep * kLengthStep,
          shape.num_heads,
          shape.num_kv_heads,
          shape.head_dim,
          args.qkv.row_stride,
          args.out.row_stride,
          shape.scale,
          equal};
}

bool on_16_bytes(const Tensor& t) {  // bf16
  return t.row_stride % 8 == 0 && reinterpret_cast<std::uintptr_t>(t.data) % 16 == 0;
}

// What our side of cuDNN's path wants; the frontend checks the rest. Looks at no pointer, so that planning agrees.
template <typename Args>
bool fits_cudnn(const Args& args) {
  const std::int64_t widest = std::max(args.qkv.row_stride, args.out.row_stride);
  return args.qkv.dtype == DType::bf16 && args.qkv.rows() > 0 && args.cu_seqlens.numel() > 1 &&
         args.shape.head_dim % 8 == 0 && args.qkv.row_stride % 8 == 0 && args.out.row_stride % 8 == 0 &&
         args.lse.contiguous() && args.qkv.rows() * widest / 8 < std::int64_t{1} << 31;
}

bool fits(const AttentionArgs& args) { return fits_cudnn(args); }
bool fits(const AttentionBackwardArgs& args) {
  return fits_cudnn(args) && args.d_out.row_stride == args.out.row_stride &&
         args.d_qkv.row_stride == args.qkv.row_stride;
}

Pass pass_of(const AttentionArgs&) { return Pass::forward; }
Pass pass_of(const AttentionBackwardArgs&) { return Pass::backward; }

}  // namespace

struct AttentionContext::Impl {
  explicit Impl(const AttentionOptions& options_) : options(options_) {}
  ~Impl() {
    if (handle != nullptr) cudnnDestroy(handle);
  }

  // The plan that runs this call, or null where the own kernels do. The caller holds the mutex.
  template <typename Args>
  const Plan* plan(const Args& args) {
    if (options.engine == AttentionEngine::own || !fits(args)) {
      CHECK(options.engine != AttentionEngine::cudnn, "attention: {} with head_dim {} does not fit cuDNN",
            name(args.qkv.dtype), args.shape.head_dim);
      return nullptr;
    }
    const Plan* chosen = &plan_of(key_of(args, pass_of(args), args.shape.equal_doc_tokens));
    // Ragged documents are what cuDNN takes in any case.
    if (chosen->graph == nullptr && chosen->key.equal) chosen = &plan_of(key_of(args, pass_of(args), 0));
    const Plan& plan = *chosen;
    CHECK(plan.graph != nullptr || options.engine != AttentionEngine::cudnn, "attention: cuDNN: {}", plan.refusal);
    return plan.graph != nullptr ? &plan : nullptr;
  }

  const Plan& plan_of(const PlanKey& key) {
    auto found = plans.find(key);
    if (found == plans.end()) found = plans.emplace(key, build(key)).first;
    return found->second;
  }

  Plan build(const PlanKey& key) {
    if (handle == nullptr) check_cudnn(cudnnCreate(&handle), "cudnnCreate");
    Plan plan;
    plan.key = key;
    plan.graph = key.pass == Pass::forward ? forward_graph(key) : backward_graph(key, options.deterministic);
    fe::error_t status = plan.graph->build(handle, {fe::HeurMode_t::A, fe::HeurMode_t::FALLBACK});
    if (status.is_good()) {
      plan.workspace_bytes = plan.graph->get_workspace_size();
      if (!options.deterministic || plan.workspace_bytes <= kMaxDeterministicWorkspace) return plan;
    }
    plan.refusal = status.is_good() ? fmt::format("its deterministic backward pass takes {} MiB of workspace",
                                                  plan.workspace_bytes >> 20)
                                    : one_line(status.get_message());
    plan.graph.reset();
    const char* pass = key.pass == Pass::forward ? "forward" : "backward";
    if (options.engine == AttentionEngine::automatic && !key.equal)
      log::warning(
          "attention {} (head_dim {}, {} documents of up to {} tokens) runs on slower kernels of our own; cuDNN: {}",
          pass, key.head_dim, key.max_docs, key.max_length, plan.refusal);
    return plan;
  }

  void execute(const Plan& plan, Pointers& pointers, void* workspace, cudaStream_t stream) {
    check_cudnn(cudnnSetStream(handle, stream), "cudnnSetStream");
    fe::error_t status = plan.graph->execute(handle, pointers, workspace);
    if (!status.is_good()) throw_if_faulted("cuDNN attention");
    CHECK(status.is_good(), "cuDNN attention: {}", one_line(status.get_message()));
  }

  AttentionOptions options;
  std::mutex mutex;  // of handle and plans
  cudnnHandle_t handle = nullptr;
  std::map<PlanKey, Plan> plans;
};

AttentionContext::AttentionContext(const AttentionOptions& options) : impl_(std::make_unique<Impl>(options)) {}
AttentionContext::~AttentionContext() = default;

std::size_t cudnn_built_version() { return CUDNN_VERSION; }
std::size_t cudnn_loaded_version() { return cudnnGetVersion(); }

namespace {

// The columns of q, k and v inside the packed matrix.
struct Columns {
  bf16 *q, *k, *v;

  Columns(const Tensor& packed, const AttentionShape& shape)
      : q(packed.as<bf16>()), k(q + shape.num_heads * shape.head_dim), v(k + shape.num_kv_heads * shape.head_dim) {}
};

// What both passes read.
template <typename Args>
Pointers common_pointers(const Args& args, const Plan& plan, const DocumentLayout& layout) {
  const Columns columns(args.qkv, args.shape);
  Pointers pointers = {{kQ, columns.q}, {kK, columns.k}, {kV, columns.v}, {kO, args.out.data}, {kStats, args.lse.data}};
  if (plan.key.equal) return pointers;
  pointers.insert({{kQOffsets, layout.qkv_offsets},
          {kKOffsets, layout.qkv_offsets},
          {kVOffsets, layout.qkv_offsets},
          {kOOffsets, layout.out_offsets},
          {kStatsOffsets, layout.lse_offsets},
          {kLengthsQ, layout.lengths},
          {kLengthsKV, layout.lengths}});
  return pointers;
}

}  // namespace

std::size_t attention_scratch_bytes(const AttentionArgs& args, const AttentionContext& context) {
  const std::lock_guard lock(context.impl().mutex);
  const Plan* plan = context.impl().plan(args);
  return plan == nullptr ? 0 : Scratch(*plan, nullptr).bytes;
}

std::size_t attention_scratch_bytes(const AttentionBackwardArgs& args, const AttentionContext& context) {
  const std::lock_guard lock(context.impl().mutex);
  const Plan* plan = context.impl().plan(args);
  if (plan == nullptr) return own_attention_scratch_bytes(args);
  return Scratch(*plan, nullptr).bytes;
}

void attention(const AttentionArgs& args, AttentionContext& context, void* scratch, cudaStream_t stream) {
  AttentionContext::Impl& impl = context.impl();
  const std::lock_guard lock(impl.mutex);
  const Plan* plan = impl.plan(args);
  if (plan == nullptr) return own_attention(args, stream);
  CHECK(on_16_bytes(args.qkv) && on_16_bytes(args.out), "attention: qkv and out must lie on 16-byte boundaries");
  const Scratch pieces(*plan, scratch);
  if (!plan->key.equal) prepare_attention(args, pieces.layout, stream);
  Pointers pointers = common_pointers(args, *plan, pieces.layout);
  impl.execute(*plan, pointers, pieces.workspace, stream);
}

void attention_backward(const AttentionBackwardArgs& args, AttentionContext& context, void* scratch,
                        cudaStream_t stream) {
  AttentionContext::Impl& impl = context.impl();
  const std::lock_guard lock(impl.mutex);
  const Plan* plan = impl.plan(args);
  if (plan == nullptr) return own_attention_backward(args, scratch, stream);
  CHECK(on_16_bytes(args.qkv) && on_16_bytes(args.out) && on_16_bytes(args.d_out) && on_16_bytes(args.d_qkv),
        "attention_backward: qkv, out and their gradients must lie on 16-byte boundaries");
  const Scratch pieces(*plan, scratch);
  if (!plan->key.equal) prepare_attention_backward(args, pieces.layout, stream);
  Pointers pointers = common_pointers(args, *plan, pieces.layout);
  pointers.insert({{kDO, args.d_out.data}, {kDQ, Columns(args.d_qkv, args.shape).q}, {kDK, pieces.d_k}, {kDV, pieces.d_v}});
  if (!plan->key.equal) {
    pointers.insert({{kDOOffsets, pieces.layout.out_offsets},
                     {kDQOffsets, pieces.layout.qkv_offsets},
                     {kDKOffsets, pieces.layout.kv_offsets},
                     {kDVOffsets, pieces.layout.kv_offsets}});
  }
  impl.execute(*plan, pointers, pieces.workspace, stream);
  finish_attention_backward(args, pieces.d_k, pieces.d_v, stream);
}

}  // namespace llmfp8::cuda
