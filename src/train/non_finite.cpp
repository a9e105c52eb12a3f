#include "train/non_finite.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace llmfp8 {
namespace {

constexpr std::size_t kPieceBytes = std::size_t{32} << 20;  // of a matrix, on the host at once

// What lies above the mantissa all ones: infinite, or NaN where the mantissa is not zero. E4M3 has no infinity.
enum class Kind : std::uint8_t { finite, infinite, nan };

template <typename T>
Kind kind_of_bits(T bits, T exponent, T mantissa) {
  if ((bits & exponent) != exponent) return Kind::finite;
  return (bits & mantissa) != 0 ? Kind::nan : Kind::infinite;
}

Kind kind_of(const std::byte* data, std::int64_t i, DType dtype) {
  const auto read = [&]<typename T>(T value) {
    std::memcpy(&value, data + static_cast<std::size_t>(i) * sizeof(T), sizeof(T));
    return value;
  };
  switch (dtype) {
    case DType::f32: return kind_of_bits<std::uint32_t>(read(std::uint32_t{}), 0x7F800000u, 0x007FFFFFu);
    case DType::bf16: return kind_of_bits<std::uint16_t>(read(std::uint16_t{}), 0x7F80, 0x007F);
    case DType::e5m2: return kind_of_bits<std::uint8_t>(read(std::uint8_t{}), 0x7C, 0x03);
    case DType::e4m3: return (read(std::uint8_t{}) & 0x7F) == 0x7F ? Kind::nan : Kind::finite;
    default: return Kind::finite;
  }
}

bool can_be_non_finite(DType dtype) { return dtype == DType::f32 || dtype == DType::bf16 || is_fp8(dtype); }

// A vector has a row an element.
Tensor as_matrix(const Tensor& t) { return t.shape.rank() == 1 ? t.reshape(Shape{t.numel(), 1}) : t; }

std::string place_text(const std::string& where, const Tensor& t, const NonFinite& values) {
  return fmt::format("{} [{} x {}] {}: {}", where, t.rows(), t.cols(), name(t.dtype), values.text());
}

// A parameter under the names of its HF tensors.
template <typename Look>
std::string first_in_params(const Engine& engine, Look&& look) {
  for (const ParamSpec& spec : engine.params().table().params()) {
    for (const WeightSlice& slice : spec.slices) {
      std::string found = look(spec, slice);
      if (!found.empty()) return found;
    }
  }
  return "";
}

Tensor slice_of(const Tensor& param, const WeightSlice& slice) {
  return as_matrix(param).slice_rows(slice.row_begin, slice.shape[0]);
}

}  // namespace

std::string NonFinite::text() const {
  return fmt::format("first {} at [{}, {}], {} of {} values", is_nan ? "NaN" : "infinity", row, column, count, values);
}

NonFinite find_non_finite(Backend& backend, Stream& stream, const Tensor& t, std::int64_t rows) {
  NonFinite result;
  const std::int64_t cols = t.cols(), stride = t.row_stride;
  const auto element = static_cast<std::int64_t>(size_bytes(t.dtype));
  if (!can_be_non_finite(t.dtype) || t.data == nullptr || rows <= 0 || cols <= 0) return result;
  result.values = rows * cols;
  const std::int64_t at_once =
      std::max<std::int64_t>(1, static_cast<std::int64_t>(kPieceBytes) / std::max<std::int64_t>(1, stride * element));
  std::vector<std::byte> piece;
  for (std::int64_t begin = 0; begin < rows; begin += at_once) {
    const std::int64_t n = std::min(at_once, rows - begin);
    piece.resize(static_cast<std::size_t>(((n - 1) * stride + cols) * element));
    backend.copy_to_host(piece.data(), t.slice_rows(begin, n).data, piece.size(), stream);
    backend.synchronize(stream);
    for (std::int64_t r = 0; r < n; ++r) {
      for (std::int64_t c = 0; c < cols; ++c) {
        const Kind kind = kind_of(piece.data(), r * stride + c, t.dtype);
        if (kind == Kind::finite) continue;
        if (result.count++ > 0) continue;
        result.row = begin + r;
        result.column = c;
        result.is_nan = kind == Kind::nan;
      }
    }
  }
  return result;
}

std::int64_t NonFiniteSearch::live_rows(const OpOutput& output, std::int64_t rows) {
  if (output.count == nullptr || !output.count->defined()) return rows;
  std::int32_t count = 0;
  backend_.copy_to_host(&count, output.count->data, sizeof count, stream_);
  backend_.synchronize(stream_);
  return std::clamp<std::int64_t>(count - output.row_offset, 0, rows);
}

void NonFiniteSearch::report(const Tensor& t, NonFinite values, bool transposed) {
  if (transposed) std::swap(values.row, values.column);
  static constexpr const char* kPasses[] = {" fprop", " dgrad", " wgrad"};
  const std::string scope = info_.scope.name();
  const char* const pass = info_.contraction > 0 ? kPasses[static_cast<int>(info_.pass)] : "";
  const std::string op = fmt::format("{}{}", info_.name, pass);
  found_ = place_text(scope.empty() ? op : fmt::format("{}, {}", scope, op), t, values);
}

void NonFiniteSearch::written(const OpOutput& output) {
  if (!found_.empty()) return;
  if (output.tensor != nullptr) {
    if (!output.tensor->defined()) return;
    const Tensor t = as_matrix(*output.tensor);
    const NonFinite values = find_non_finite(backend_, stream_, t, live_rows(output, t.rows()));
    if (values.count > 0) report(t, values, false);
    return;
  }
  const QTensor& q = *output.matrix;
  const std::int64_t live = live_rows(output, q.shape[0]);
  if (q.rowwise.defined()) {
    const NonFinite values = find_non_finite(backend_, stream_, q.rowwise, live);
    if (values.count > 0) report(q.rowwise, values, false);
    return;
  }
  // Rows beyond the count are code 0 there: what is looked at is the whole matrix.
  const bool transposed = q.scaling == Scaling::tensor;
  const NonFinite values = find_non_finite(backend_, stream_, q.columnwise, transposed ? q.columnwise.rows() : live);
  if (values.count > 0) report(Tensor(nullptr, q.columnwise.dtype, q.shape), values, transposed);
}

std::string explain_not_finite(Engine& engine, std::span<const HostBatch> micro_batches) {
  Backend& backend = engine.backend();
  Stream& stream = engine.stream();
  const auto in = [&](const char* what, const Tensor& param, const WeightSlice& slice) -> std::string {
    const Tensor t = slice_of(param, slice);
    const NonFinite values = find_non_finite(backend, stream, t, t.rows());
    return values.count == 0 ? "" : place_text(what + slice.name, t, values);
  };
  std::string found = first_in_params(engine, [&](const ParamSpec& spec, const WeightSlice& slice) {
    return in("weight ", engine.params().weight(spec.index), slice);
  });
  if (!found.empty()) return found;

  NonFiniteSearch search(backend, stream);
  const GemmLedger ledger = engine.ledger();
  engine.ops().set_observer(&search);
  StepResult again;
  try {
    again = engine.gradients(micro_batches);
  } catch (...) {
    engine.ops().set_observer(nullptr);
    throw;
  }
  engine.ops().set_observer(nullptr);
  engine.ledger() = ledger;
  if (!search.found().empty()) return search.found();
  found = first_in_params(engine, [&](const ParamSpec& spec, const WeightSlice& slice) {
    return in("gradient of ", engine.grads().grad(spec.index), slice);
  });
  if (!found.empty()) return found;
  if (again.ok) return "run again, the same micro-batches gave finite values everywhere";
  return fmt::format("every value is finite, but the loss {} or the gradient norm {} overflows", again.loss,
                     again.grad_norm);
}

}  // namespace llmfp8
