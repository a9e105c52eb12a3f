#include "model/generator.h"

#include <algorithm>
#include <chrono>

#include "model/loss.h"

namespace llmfp8 {
namespace {

constexpr std::int64_t kSmallestPrefill = 128;  // the model's batches are multiples of it
constexpr std::int64_t kSmallestDecode = 8;

std::int64_t rounded_up(std::int64_t n, std::int64_t unit) { return (n + unit - 1) / unit * unit; }

// least, 1.5 least, 2 least, 3 least, 4 least, …: work done for nothing stays below a third. The last one is `most`.
std::vector<std::int64_t> capacities(std::int64_t least, std::int64_t most, std::int64_t unit) {
  std::vector<std::int64_t> result;
  for (std::int64_t n = least; n < most; n *= 2) {
    result.push_back(n);
    const std::int64_t between = n + n / 2;
    if (between % unit == 0 && between < most) result.push_back(between);
  }
  result.push_back(most);
  return result;
}

std::int64_t smallest_holding(const std::vector<std::int64_t>& sizes, std::int64_t n) {
  return *std::lower_bound(sizes.begin(), sizes.end(), n);
}

std::string prefill_phase(std::int64_t capacity) { return fmt::format("prefill of {} tokens", capacity); }
std::string decode_phase(std::int64_t rows) { return fmt::format("decoding of {} sequences", rows); }

Tensor first(const Tensor& vector, std::int64_t n) { return Tensor(vector.data, vector.dtype, Shape{n}); }

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

struct Generator::Sequence {
  std::size_t index = 0;  // of the prompt
  std::int32_t slot = 0;
  std::int32_t last_token = 0;
  std::int32_t length = 0;  // prompt and new tokens, the last one included
  bool done = false;
};

struct Generator::Run {
  std::span<const std::vector<std::int32_t>> prompts;
  const GenerateOptions& options;
  std::vector<Generation> results;
  std::size_t next = 0;  // prompt that has not been admitted yet
  std::vector<Sequence> active;
  std::vector<std::int32_t> free_slots;
  SampleArgs sampling;  // draw counts up
  GenerateProgress progress;
};

GeneratorLimits limits_for(std::span<const std::vector<std::int32_t>> prompts, const ModelConfig& config,
                           std::int64_t max_batch, std::int64_t max_new_tokens) {
  constexpr std::int64_t kPrefillTokens = 1024;  // enough to keep the cores busy; more only costs memory
  std::int64_t longest = 0;
  for (const auto& prompt : prompts) longest = std::max(longest, static_cast<std::int64_t>(prompt.size()));
  const std::int64_t most = config.max_position_embeddings;
  CHECK(longest < most, "a prompt of {} tokens, the model reaches {}", longest, most);
  GeneratorLimits limits;
  limits.max_batch = std::min(max_batch, static_cast<std::int64_t>(prompts.size()));
  limits.max_prompt_tokens = std::max(longest, kPrefillTokens);
  // Not longest + max_new_tokens as it stands: the sum of two large numbers could overflow.
  limits.max_len = longest + std::min(max_new_tokens, most - longest);
  return limits;
}

Generator::Generator(Backend& backend, const Transformer& transformer, ParamStore& params,
                     const GeneratorLimits& limits)
    : backend_(backend), transformer_(transformer), params_(params), limits_(limits), stream_(backend.create_stream()) {
  CHECK(limits_.max_batch >= 1 && limits_.max_len >= 2 && limits_.max_prompt_tokens >= 1,
        "generation: batch {}, prompt tokens {}, length {}", limits_.max_batch, limits_.max_prompt_tokens,
        limits_.max_len);
  CHECK(limits_.max_len <= transformer_.max_positions(), "generation up to {} tokens, positions reach {}",
        limits_.max_len, transformer_.max_positions());
  limits_.max_prompt_tokens = rounded_up(limits_.max_prompt_tokens, kSmallestPrefill);
  prompt_capacities_ = capacities(kSmallestPrefill, limits_.max_prompt_tokens, kSmallestPrefill);
  row_capacities_ = capacities(std::min(kSmallestDecode, limits_.max_batch), limits_.max_batch, kSmallestDecode);
  const ModelConfig& config = transformer_.config();
  const std::size_t row_bytes =
      static_cast<std::size_t>(limits_.max_len * config.kv_size()) * size_bytes(params_.dtype());
  cache_ =
      backend_.allocate(2 * static_cast<std::size_t>(config.num_hidden_layers * (limits_.max_batch + 1)) * row_bytes,
                        "cache of keys and values");
  allocate_inputs();
  plan_memory();
}

Generator::~Generator() = default;

void Generator::allocate_inputs() {
  const std::int64_t largest = std::max(prompt_capacities_.back(), limits_.max_batch), rows = limits_.max_batch;
  std::int64_t used = 0;
  const auto place = [&](std::int64_t n) {
    const std::int64_t at = used;
    used = rounded_up(used + n, 64);
    return at;
  };
  const std::int64_t tokens = place(largest), positions = place(largest), bounds = place(rows + 1), last = place(rows),
                     slots = place(rows), counts = place(4), row_counts = place(4), sampled = place(rows);
  input_buffer_ = backend_.allocate(static_cast<std::size_t>(used) * sizeof(std::int32_t), "generation inputs");
  const auto view = [&](std::int64_t at, std::int64_t n) {
    return input_buffer_.tensor(DType::i32, Shape{n}, static_cast<std::size_t>(at) * sizeof(std::int32_t));
  };
  tokens_ = view(tokens, largest);
  positions_ = view(positions, largest);
  cu_seqlens_ = view(bounds, rows + 1);
  last_rows_ = view(last, rows);
  slots_ = view(slots, rows);
  counts_ = view(counts, 4);
  row_counts_ = view(row_counts, 4);
  sampled_ = view(sampled, rows);
}

void Generator::plan_memory() {
  const SampleArgs sampling;
  planned_ = std::make_unique<PlannedOps>(backend_, *stream_, "activations and scratch of generation", [&](Ops& ops) {
    for (std::int64_t capacity : prompt_capacities_) {
      ops.arena().begin_phase(prefill_phase(capacity));
      prefill(ops, capacity, sampling);
      ops.arena().end_phase();
    }
    for (std::int64_t rows : row_capacities_) {
      ops.arena().begin_phase(decode_phase(rows));
      decode(ops, rows, sampling);
      ops.arena().end_phase();
    }
  });
}

Batch Generator::prompt_batch(std::int64_t capacity) const {
  Batch batch;
  batch.tokens = first(tokens_, capacity);
  batch.positions = first(positions_, capacity);
  batch.cu_seqlens = cu_seqlens_;
  batch.counts = counts_;
  batch.max_doc_tokens = static_cast<std::int32_t>(std::min(capacity, limits_.max_len));
  return batch;
}

// One token a sequence. Its capacity is no multiple of 128: nothing is quantised here.
Batch Generator::row_batch(std::int64_t rows) const {
  Batch batch;
  batch.tokens = first(tokens_, rows);
  batch.positions = first(positions_, rows);
  batch.counts = row_counts_;
  batch.max_doc_tokens = static_cast<std::int32_t>(limits_.max_len);
  return batch;
}

// which: 0 keys, 1 values.
Tensor Generator::cache(int layer, int which) const {
  const Shape shape{limits_.max_batch + 1, limits_.max_len * transformer_.config().kv_size()};
  const std::size_t bytes = static_cast<std::size_t>(shape.numel()) * size_bytes(params_.dtype());
  return cache_.tensor(params_.dtype(), shape, static_cast<std::size_t>(2 * layer + which) * bytes);
}

void Generator::prefill(Ops& ops, std::int64_t capacity, const SampleArgs& sampling) {
  const ModelConfig& config = transformer_.config();
  const int layers = static_cast<int>(config.num_hidden_layers);
  ActivationStore activations(ops.arena(), layers, Recompute::none, PassKind::forward_only);
  const Batch batch = prompt_batch(capacity), rows = row_batch(limits_.max_batch);
  const PassContext pass{ops, batch, params_, activations};
  Transformer::Observers observers;
  observers.qkv = [&](int layer, const Tensor& qkv) {
    ops.cache_fill(
        {attention_shape(config, batch.max_doc_tokens), qkv, cu_seqlens_, slots_, cache(layer, 0), cache(layer, 1)});
  };
  transformer_.forward(pass, observers);
  // Only the last position of a prompt has a next token to tell.
  const PassContext row_pass{ops, rows, params_, activations};
  const ArenaTensor last =
      ops.arena().take("last positions", params_.dtype(), Shape{limits_.max_batch, config.hidden_size});
  ops.gather_rows({activations.get(layers, Slot::head_input), last_rows_, row_pass.num_tokens(), 0, last});
  sample(ops, row_pass, last, sampling);
  for (Slot slot : {Slot::head_input, Slot::input_rstd, Slot::residual_in}) activations.drop(layers, slot);
}

// The stages of the model's layers, with attention against the cache.
void Generator::decode_layer(const LayerPass& l) {
  const PassContext& p = l.pass;
  attention_norm(l);
  attention_qkv(l);
  const Tensor out = p.activations.put(l.layer, Slot::attention_out, p.dtype(), Shape{p.tokens(), l.config.q_size()});
  p.ops.attention_decode({attention_shape(l.config, limits_.max_len), p.activations.get(l.layer, Slot::qkv),
                          p.batch.positions, cache(l.layer, 0), cache(l.layer, 1), first(slots_, p.tokens()), out});
  p.activations.forward_done(l.layer, Slot::qkv);
  attention_o(l);
  mlp_norm(l);
  mlp_gate_up(l);
  mlp_swiglu(l);
  mlp_down(l);
}

void Generator::decode(Ops& ops, std::int64_t rows, const SampleArgs& sampling) {
  const ModelConfig& config = transformer_.config();
  const int layers = static_cast<int>(config.num_hidden_layers);
  ActivationStore activations(ops.arena(), layers, Recompute::none, PassKind::forward_only);
  const Batch batch = row_batch(rows);
  const PassContext pass{ops, batch, params_, activations};
  const Shape shape{rows, config.hidden_size};
  ops.embedding({params_.embedding(), batch.tokens, pass.num_tokens(),
                 activations.put(0, Slot::residual_in, pass.dtype(), shape)});
  for (int layer = 0; layer < layers; ++layer) {
    decode_layer({pass, config, transformer_.cos_sin(), layer, params_.acquire(layer, pass.numerics)});
    params_.release(layer);
  }
  const ArenaTensor rstd = ops.arena().take("final rstd", DType::f32, Shape{rows});
  const ArenaTensor normed = ops.arena().take("head input", pass.dtype(), shape);
  ops.rmsnorm({activations.get(layers, Slot::residual_in), params_.final_norm(), pass.num_tokens(), config.rms_norm_eps,
               normed, rstd});
  activations.drop(layers, Slot::residual_in);
  sample(ops, pass, normed, sampling);
}

// hidden: A [rows, hidden_size]
void Generator::sample(Ops& ops, const PassContext& rows, const Tensor& hidden, SampleArgs args) {
  const std::int64_t n = rows.tokens();
  const ArenaTensor logits = ops.arena().take("logits", params_.dtype(), Shape{n, transformer_.config().vocab_size});
  head_logits(rows, hidden, logits);
  args.logits = logits;
  args.out = first(sampled_, n);
  ops.sample(args);
}

void Generator::upload(const Tensor& to, const std::vector<std::int32_t>& values) {
  CHECK(static_cast<std::int64_t>(values.size()) <= to.numel(), "{} values for {} places", values.size(), to.numel());
  backend_.copy_to_device(to.data, values.data(), values.size() * sizeof(std::int32_t), *stream_);
}

std::vector<std::int32_t> Generator::read_tokens(std::size_t count) {
  std::vector<std::int32_t> tokens(count);
  backend_.copy_to_host(tokens.data(), sampled_.data, count * sizeof(std::int32_t), *stream_);
  backend_.synchronize(*stream_);
  return tokens;
}

void Generator::take_token(Run& run, Sequence& sequence, std::int32_t token) {
  Generation& result = run.results[sequence.index];
  const std::vector<std::int32_t>& stops = run.options.stop_ids;
  ++run.progress.new_tokens;
  if (std::find(stops.begin(), stops.end(), token) != stops.end()) {
    result.reason = StopReason::stop_id;
    sequence.done = true;
  } else {
    result.ids.push_back(token);
    sequence.last_token = token;
    ++sequence.length;
    const bool enough = static_cast<std::int64_t>(result.ids.size()) >= run.options.max_new_tokens;
    sequence.done = enough || sequence.length >= limits_.max_len;
    result.reason = enough ? StopReason::max_new_tokens : StopReason::max_len;
  }
  if (!sequence.done) return;
  run.free_slots.push_back(sequence.slot);
  ++run.progress.finished;
}

// Fills free slots with the next prompts, as many as one prefill holds.
void Generator::admit(Run& run) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::int32_t> tokens, positions, bounds = {0}, last_rows, slots;
  std::vector<Sequence> admitted;
  while (run.next < run.prompts.size() && !run.free_slots.empty()) {
    const std::vector<std::int32_t>& prompt = run.prompts[run.next];
    if (static_cast<std::int64_t>(tokens.size() + prompt.size()) > limits_.max_prompt_tokens) break;
    tokens.insert(tokens.end(), prompt.begin(), prompt.end());
    for (std::size_t i = 0; i < prompt.size(); ++i) positions.push_back(static_cast<std::int32_t>(i));
    bounds.push_back(static_cast<std::int32_t>(tokens.size()));
    last_rows.push_back(bounds.back() - 1);
    slots.push_back(run.free_slots.back());
    run.free_slots.pop_back();
    admitted.push_back({run.next++, slots.back(), 0, static_cast<std::int32_t>(prompt.size()), false});
  }
  const auto num_tokens = static_cast<std::int32_t>(tokens.size()),
             num_docs = static_cast<std::int32_t>(admitted.size());
  bounds.resize(static_cast<std::size_t>(limits_.max_batch) + 1, num_tokens);
  slots.resize(static_cast<std::size_t>(limits_.max_batch), static_cast<std::int32_t>(limits_.max_batch));
  upload(tokens_, tokens);
  upload(positions_, positions);
  upload(cu_seqlens_, bounds);
  upload(last_rows_, last_rows);
  upload(slots_, slots);
  upload(counts_, {num_tokens, num_docs, 0, 0});
  upload(row_counts_, {num_docs, num_docs, 0, 0});
  const std::int64_t capacity = smallest_holding(prompt_capacities_, num_tokens);
  ++run.sampling.draw;
  planned_->arena().begin_phase(prefill_phase(capacity));
  prefill(planned_->ops(), capacity, run.sampling);
  planned_->arena().end_phase();
  const std::vector<std::int32_t> sampled = read_tokens(admitted.size());
  for (std::size_t i = 0; i < admitted.size(); ++i) {
    take_token(run, admitted[i], sampled[i]);
    if (!admitted[i].done) run.active.push_back(admitted[i]);
  }
  times_.prompt_tokens += num_tokens;
  times_.prefill_seconds += seconds_since(start);
}

// One token for every active sequence.
void Generator::advance(Run& run) {
  const auto start = std::chrono::steady_clock::now();
  const auto count = static_cast<std::int32_t>(run.active.size());
  const std::int64_t rows = smallest_holding(row_capacities_, count);
  // Rows beyond the count write their key into the slot that is nobody's.
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(rows), 0), positions(tokens),
      slots(tokens.size(), static_cast<std::int32_t>(limits_.max_batch));
  for (std::size_t i = 0; i < run.active.size(); ++i) {
    tokens[i] = run.active[i].last_token;
    positions[i] = run.active[i].length - 1;
    slots[i] = run.active[i].slot;
  }
  upload(tokens_, tokens);
  upload(positions_, positions);
  upload(slots_, slots);
  upload(row_counts_, {count, count, 0, 0});
  ++run.sampling.draw;
  planned_->arena().begin_phase(decode_phase(rows));
  decode(planned_->ops(), rows, run.sampling);
  planned_->arena().end_phase();
  const std::vector<std::int32_t> sampled = read_tokens(run.active.size());
  for (std::size_t i = 0; i < run.active.size(); ++i) take_token(run, run.active[i], sampled[i]);
  std::erase_if(run.active, [](const Sequence& sequence) { return sequence.done; });
  times_.decoded_tokens += count;
  times_.decode_seconds += seconds_since(start);
}

std::vector<Generation> Generator::generate(std::span<const std::vector<std::int32_t>> prompts,
                                            const GenerateOptions& options) {
  const std::int64_t vocab_size = transformer_.config().vocab_size;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const auto tokens = static_cast<std::int64_t>(prompts[i].size());
    const std::int64_t most = std::min(limits_.max_prompt_tokens, limits_.max_len - 1);
    CHECK(tokens >= 1 && tokens <= most, "prompt {} has {} tokens, wanted 1 to {}", i + 1, tokens, most);
    for (std::int32_t id : prompts[i]) {
      CHECK(id >= 0 && id < vocab_size, "prompt {} holds token {}, the model's vocabulary ends at {}", i + 1, id,
            vocab_size - 1);
    }
  }
  CHECK(options.max_new_tokens >= 1, "max_new_tokens is {}, wanted at least 1", options.max_new_tokens);
  planned_->arena().abandon_phase();  // an exception may have left one half done
  times_ = {};
  Run run{prompts, options, std::vector<Generation>(prompts.size()), 0, {}, {}, {}, {}};
  run.sampling.temperature = static_cast<float>(options.sampling.temperature);
  run.sampling.top_p = static_cast<float>(options.sampling.top_p);
  run.sampling.key = options.sampling.seed;
  for (std::int64_t slot = limits_.max_batch; slot-- > 0;) run.free_slots.push_back(static_cast<std::int32_t>(slot));
  while (run.next < prompts.size() || !run.active.empty()) {
    if (run.next < prompts.size() && !run.free_slots.empty()) {
      admit(run);
    } else {
      advance(run);
    }
    if (!options.progress) continue;
    run.progress.work = static_cast<double>(run.progress.finished);
    for (const Sequence& sequence : run.active)
      run.progress.work += static_cast<double>(run.results[sequence.index].ids.size()) / static_cast<double>(options.max_new_tokens);
    options.progress(run.progress);
  }
  return std::move(run.results);
}

}  // namespace llmfp8
