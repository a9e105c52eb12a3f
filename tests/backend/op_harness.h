// What the table of operation cases needs: tensors on a backend, a planned run, random values, and a comparison whose
// tolerance follows from the dtype and the length of the reduction. Used by op_cases_*.cpp and the CPU's own tests.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace llmfp8::testing {

class Device {
 public:
  explicit Device(Backend& backend) : backend_(backend), stream_(backend.create_stream()) {}

  Tensor upload(const std::vector<float>& values, DType dtype, Shape shape);  // f32 | bf16, rounded to nearest even
  Tensor upload(const std::vector<std::int32_t>& values, Shape shape);
  Tensor upload_codes(const std::vector<std::uint8_t>& codes, Shape shape);
  Tensor count(std::int32_t n) { return upload(std::vector<std::int32_t>{n}, Shape{1}); }
  Tensor garbage(DType dtype, Shape shape);  // every byte 0xFF: NaN in every float type
  StepScalars* scalars(const StepScalars& values);
  Usages usages(Scaling scaling);  // of the backend's products

  std::vector<float> floats(const Tensor& t);  // f32 | bf16
  std::vector<std::uint8_t> bytes(const Tensor& t);
  StepScalars download(const StepScalars* scalars);

  // Plans `body` on PlanOps, then runs it on the backend's Ops with an arena of that plan.
  void run(const std::function<void(Ops&)>& body);

 private:
  Tensor hold(const void* data, DType dtype, Shape shape);

  Backend& backend_;
  std::unique_ptr<Stream> stream_;
  std::deque<Buffer> buffers_;
};

// Normal values; the same for the same seed.
std::vector<float> random_values(std::int64_t n, std::uint64_t seed, float scale = 1.0f);
std::vector<std::int32_t> random_integers(std::int64_t n, std::uint64_t seed, std::int32_t below);
// As the device holds them.
std::vector<float> rounded(std::vector<float> values, DType dtype);
// Rows at and beyond `live` become `value`.
std::vector<float> with_tail(std::vector<float> values, std::int64_t cols, std::int64_t live, float value);

// One expected number: its value, and the sum of the magnitudes of the terms that cancel in it.
struct Expected {
  double value = 0.0;
  double magnitude = 0.0;
  void add(double term) {
    value += term;
    magnitude += term < 0 ? -term : term;
  }
};

// |got - value| <= u(dtype) * |value| + (terms + 8) * 2^-24 * magnitude, with u = 2^-24 (f32) or 2^-8 (bf16): the bound of
// an fp32 sum of `terms` terms in any order, eight roundings around it, and the final rounding to dtype.
// bf16_roundings: how often the backend rounds a term to bf16 before it adds it; each allows 2^-8 * magnitude more.
void expect_close(const std::string& what, const std::vector<float>& got, const std::vector<Expected>& expected,
                  DType dtype, std::int64_t terms, int bf16_roundings = 0);

// Runs `once` with zero and with NaN in the tails of its inputs; the bytes of all its outputs must agree. Returns the latter.
std::vector<Tensor> expect_blind_to_tail(Device& device, const std::function<std::vector<Tensor>(float tail)>& once);
// Rows at and beyond `live` are zero bit for bit.
void expect_zero_tail(Device& device, const std::string& what, const Tensor& t, std::int64_t live);

}  // namespace llmfp8::testing
