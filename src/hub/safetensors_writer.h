// Writing safetensors in pieces, so that no copy of the model is ever gathered in memory.
// Called by the exports and checkpoints of train/ and by `llm-fp8 parity`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/tensor.h"

namespace llmfp8 {

struct TensorDeclaration {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
};

// The file is laid out as HF's library does (wide dtypes first, then by name, header padded to 8), so every tensor is
// aligned. It carries a temporary name until finish(); without finish() it is removed.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorDeclaration> tensors,
                    const std::map<std::string, std::string>& metadata = {{"format", "pt"}});
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  // Appends the next piece of a tensor; tensors may come in any order. data: host memory, little-endian elements.
  void write(std::string_view name, const void* data, std::size_t bytes);
  // A whole tensor in host memory, contiguous, of the declared dtype and shape.
  void write(std::string_view name, const Tensor& tensor);
  // Every tensor must be complete. fsync, then the file gets its name.
  void finish();

 private:
  struct Slot {
    TensorDeclaration declaration;
    std::uint64_t begin = 0;  // byte in the file
    std::uint64_t bytes = 0;
    std::uint64_t written = 0;
  };
  Slot& slot(std::string_view name);
  std::string make_header(const std::map<std::string, std::string>& metadata);
  void put(const void* data, std::size_t bytes, std::uint64_t offset);
  void abandon();

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int fd_ = -1;
  std::vector<Slot> slots_;
  std::unordered_map<std::string, std::size_t> index_;
};

// Hands the bytes of the i-th declared tensor to `put`, in order, in pieces of any size.
using PutBytes = std::function<void(std::span<const std::byte> piece)>;
using StreamTensor = std::function<void(std::size_t i, const PutBytes& put)>;

// A whole file, then read back (from the disk, where the system can be told to forget its copy) and compared with what
// `stream` gives a second time. Throws Error: not writable, disk full, or a tensor that reads back differently.
void write_verified_safetensors(const std::filesystem::path& path, const std::vector<TensorDeclaration>& tensors,
                                const StreamTensor& stream);

}  // namespace llmfp8
