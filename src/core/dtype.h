// Element types of tensors, by the names that safetensors and CUDA use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace llmfp8 {

enum class DType : std::uint8_t { f32, bf16, f16, e4m3, e5m2, e8m0, i8, u8, u16, i32, u32, i64, u64, f64 };

std::size_t size_bytes(DType dtype);    // of one element
std::string_view name(DType dtype);     // "f32", "bf16", …
inline bool is_fp8(DType dtype) { return dtype == DType::e4m3 || dtype == DType::e5m2; }

}  // namespace llmfp8
