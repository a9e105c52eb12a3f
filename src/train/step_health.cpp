#include "train/step_health.h"

#include <algorithm>
#include <cstring>

#include "core/float8.h"

namespace llmfp8 {
namespace {

constexpr std::int64_t kWeightPieces = 512;   // spread over all weights
constexpr std::int64_t kPieceElements = 128;  // neighbours in memory
constexpr std::int64_t kCodeRows = 8;         // of a quantised matrix, spread over its rows
constexpr std::int64_t kCodeColumns = 512;    // neighbours in each
constexpr Role kRoles[] = {Role::input, Role::weight, Role::gradient};

// Pieces of the parameters, as many in each as its share of the model, at least one.
std::vector<Tensor> weight_pieces(const LocalParamStore& params) {
  std::vector<Tensor> pieces;
  const std::int64_t all = params.table().num_parameters();
  for (const ParamSpec& spec : params.table().params()) {
    const Tensor weight = params.weight(spec.index).reshape(Shape{params.weight(spec.index).numel()});
    const std::int64_t n = weight.numel(), length = std::min(n, kPieceElements);
    const std::int64_t count = std::max<std::int64_t>(1, kWeightPieces * n / all);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t begin = std::min((2 * i + 1) * (n / (2 * count)), n - length);
      pieces.push_back(weight.reshape(Shape{n, 1}).slice_rows(begin, length));
    }
  }
  return pieces;
}

std::uint8_t largest_code(DType format) { return format == DType::e4m3 ? encode_e4m3(kE4M3Max) : encode_e5m2(kE5M2Max); }

}  // namespace

// One pinned block, handed out front to back.
class StepHealth::Staging {
 public:
  Staging(Backend& backend, std::size_t bytes) : buffer_(backend.allocate_host(bytes, "samples of the weights and FP8 codes")) {}

  std::byte* take(std::size_t bytes) {
    CHECK(used_ + bytes <= buffer_.bytes(), "samples of {} bytes, planned for {}", used_ + bytes, buffer_.bytes());
    std::byte* const at = static_cast<std::byte*>(buffer_.data()) + used_;
    used_ += (bytes + 15) / 16 * 16;
    return at;
  }
  // What was taken behind `mark` is free again.
  std::size_t mark() const { return used_; }
  void release(std::size_t mark) { used_ = mark; }

 private:
  Buffer buffer_;
  std::size_t used_ = 0;
};

struct StepHealth::Matrix {
  Site site;
  Role role = Role::input;
};

struct StepHealth::CodeSample {
  std::size_t slot = 0;
  DType format = DType::e4m3;
  std::int64_t row_offset = 0, columns = 0;
  const std::int32_t* count = nullptr;  // rows at and beyond *count - row_offset hold nothing; null: all count
  std::vector<std::int64_t> rows;
  const std::byte* codes = nullptr;  // [rows.size(), columns]
};

StepHealth::StepHealth(Engine& engine) : engine_(engine), pieces_(weight_pieces(engine.params())) {
  for (const Tensor& piece : pieces_) weight_bytes_ += piece.bytes();
  std::size_t bytes = 2 * (weight_bytes_ + 16);
  const AmaxHistory& history = engine.fp8().history();
  if (engine.fp8().enabled()) {
    const auto slots = static_cast<std::size_t>(history.num_slots());
    bytes += history.scales().bytes() + history.amaxes().bytes() + 64 + slots * (kCodeRows * kCodeColumns + 64);
    seen_.resize(slots);
    matrices_.resize(slots);
    for (const Role role : kRoles) {
      const auto place = [&](Site site) { matrices_[static_cast<std::size_t>(history.slot(site, role))] = {site, role}; };
      for (int layer = 0; layer < static_cast<int>(engine.config().num_hidden_layers); ++layer)
        for (const Product product : {Product::qkv, Product::o, Product::gate_up, Product::down}) place({layer, product});
      place({0, Product::lm_head});
    }
  }
  staging_ = std::make_unique<Staging>(engine.backend(), bytes);
  before_ = staging_->take(weight_bytes_);
  after_ = staging_->take(weight_bytes_);
  passed_ = engine.backend().create_event(EventKind::ordering);
}

StepHealth::~StepHealth() { drop(); }  // the device still writes into staging_

void StepHealth::drop() {
  if (pending_) engine_.backend().synchronize(*passed_);
  pending_ = false;
}

void StepHealth::sample_weights(std::byte* to) {
  engine_.join_update();
  for (const Tensor& piece : pieces_) {
    engine_.backend().copy_to_host(to, piece.data, piece.bytes(), engine_.stream());
    to += piece.bytes();
  }
}

void StepHealth::begin_step(std::int64_t step) {
  CHECK(!pending_, "health of step {} has not been taken", step_);
  step_ = step;
  samples_.clear();
  sample_weights(before_);
  if (!engine_.fp8().enabled()) return;
  const Tensor scales = engine_.fp8().history().scales();
  staging_->release(static_cast<std::size_t>(after_ - before_) + (weight_bytes_ + 15) / 16 * 16);
  std::byte* const at = staging_->take(scales.bytes());
  scales_ = reinterpret_cast<const float*>(at);
  engine_.backend().copy_to_host(at, scales.data, scales.bytes(), engine_.stream());
  std::fill(seen_.begin(), seen_.end(), false);
  engine_.ops().set_observer(this);
}

void StepHealth::end_step() {
  Backend& backend = engine_.backend();
  if (engine_.fp8().enabled()) {
    engine_.ops().set_observer(nullptr);
    const Tensor amaxes = engine_.fp8().history().amaxes();
    std::byte* const at = staging_->take(amaxes.bytes());
    amaxes_ = reinterpret_cast<const float*>(at);
    backend.copy_to_host(at, amaxes.data, amaxes.bytes(), engine_.stream());
  }
  sample_weights(after_);
  backend.record(*passed_, engine_.stream());
  pending_ = true;
}

// The matrix says by the place of its amax which one it is.
void StepHealth::written(const OpOutput& output) {
  if (output.matrix == nullptr || !output.matrix->quantized() || !output.matrix->amax.defined() || !output.matrix->rowwise.defined()) return;
  const QTensor& q = *output.matrix;
  const auto slot = static_cast<std::size_t>(q.amax.as<float>() - engine_.fp8().history().amaxes().as<float>());
  if (slot >= seen_.size() || seen_[slot]) return;
  seen_[slot] = true;

  CodeSample sample;
  sample.slot = slot;
  sample.format = q.format;
  sample.columns = std::min(q.rowwise.cols(), kCodeColumns);
  Backend& backend = engine_.backend();
  if (output.count != nullptr && output.count->defined()) {
    std::byte* const at = staging_->take(sizeof(std::int32_t));
    backend.copy_to_host(at, output.count->data, sizeof(std::int32_t), engine_.stream());
    sample.count = reinterpret_cast<const std::int32_t*>(at);
    sample.row_offset = output.row_offset;
  }
  const std::int64_t rows = q.rowwise.rows(), wanted = std::min(rows, kCodeRows);
  std::byte* at = staging_->take(static_cast<std::size_t>(wanted * sample.columns));
  sample.codes = at;
  for (std::int64_t i = 0; i < wanted; ++i) {
    const std::int64_t row = (2 * i + 1) * rows / (2 * wanted), room = q.rowwise.cols() - sample.columns;
    const Tensor codes = q.rowwise.slice_rows(row, 1).slice_cols(room * i / wanted, sample.columns);
    backend.copy_to_host(at, codes.data, static_cast<std::size_t>(sample.columns), engine_.stream());
    sample.rows.push_back(row);
    at += sample.columns;
  }
  samples_.push_back(std::move(sample));
}

double StepHealth::weights_changed() const {
  const std::size_t element = size_bytes(engine_.params().dtype());
  std::size_t changed = 0;
  for (std::size_t at = 0; at < weight_bytes_; at += element) changed += std::memcmp(before_ + at, after_ + at, element) != 0;
  return static_cast<double>(changed) / static_cast<double>(weight_bytes_ / element);
}

StepHealthReport StepHealth::take() {
  CHECK(pending_, "no step has been looked at");
  drop();
  StepHealthReport report;
  report.step = step_;
  report.weights_changed = weights_changed();
  const AmaxHistory& history = engine_.fp8().history();
  for (const CodeSample& sample : samples_) {
    Fp8MatrixHealth health;
    health.site = matrices_[sample.slot].site;
    health.role = matrices_[sample.slot].role;
    const std::uint8_t largest = largest_code(sample.format);
    std::int64_t zero = 0, saturated = 0;
    for (std::size_t i = 0; i < sample.rows.size(); ++i) {
      if (sample.count != nullptr && sample.rows[i] >= *sample.count - sample.row_offset) continue;
      const std::byte* const codes = sample.codes + static_cast<std::int64_t>(i) * sample.columns;
      for (std::int64_t c = 0; c < sample.columns; ++c) {
        const auto magnitude = static_cast<std::uint8_t>(static_cast<std::uint8_t>(codes[c]) & 0x7Fu);
        zero += magnitude == 0;
        saturated += magnitude == largest;
      }
      health.sampled += sample.columns;
    }
    if (health.sampled == 0) continue;
    health.zero_share = static_cast<double>(zero) / static_cast<double>(health.sampled);
    health.saturated_share = static_cast<double>(saturated) / static_cast<double>(health.sampled);
    // A weight in MXFP8 has the largest amax of all steps there.
    const bool is_kept = health.role != Role::weight || engine_.fp8().recipe().kind() != RecipeKind::mxfp8;
    if (is_kept) health.amax = static_cast<double>(amaxes_[sample.slot]);
    // A weight's codes were made with the scale that the step has computed, of which there is no copy.
    if (engine_.fp8().recipe().delayed() && health.role != Role::weight) {
      const std::size_t stride = static_cast<std::size_t>(history.scales().cols());
      health.overflow = health.amax * static_cast<double>(scales_[sample.slot * stride]) / static_cast<double>(fp8_max(sample.format));
    }
    report.matrices.push_back(health);
  }
  return report;
}

MetricValues StepHealthReport::values() const {
  MetricValues values{{"health/weights_changed", weights_changed}};
  for (const Role role : kRoles) {
    double sampled = 0, zero = 0, saturated = 0, overflowing = 0;
    for (const Fp8MatrixHealth& m : matrices) {
      if (m.role != role) continue;
      sampled += static_cast<double>(m.sampled);
      zero += m.zero_share * static_cast<double>(m.sampled);
      saturated += m.saturated_share * static_cast<double>(m.sampled);
      overflowing += m.overflow > 1 ? 1 : 0;
    }
    if (sampled == 0) continue;
    values.emplace_back(fmt::format("health/fp8_zero_share/{}", name(role)), zero / sampled);
    values.emplace_back(fmt::format("health/fp8_saturated_share/{}", name(role)), saturated / sampled);
    if (role != Role::weight) values.emplace_back(fmt::format("health/fp8_clipped_matrices/{}", name(role)), overflowing);
  }
  return values;
}

nlohmann::ordered_json StepHealthReport::json() const {
  nlohmann::ordered_json line = {{"step", step}, {"weights_changed", json_number(weights_changed)}};
  line["matrices"] = nlohmann::ordered_json::array();
  for (const Fp8MatrixHealth& m : matrices) {
    nlohmann::ordered_json matrix = {{"product", name(m.site.product)}, {"role", name(m.role)}};
    if (m.site.product != Product::lm_head) matrix["layer"] = m.site.layer;
    matrix["zero_share"] = json_number(m.zero_share);
    matrix["saturated_share"] = json_number(m.saturated_share);
    matrix["overflow"] = json_number(m.overflow);
    matrix["amax"] = json_number(m.amax);
    line["matrices"].push_back(std::move(matrix));
  }
  return line;
}

}  // namespace llmfp8
