// Layout, streamed pieces, and the rename that makes the file visible.
#include "hub/safetensors_writer.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "hub/file_io.h"
#include "hub/safetensors.h"

namespace llmfp8 {
namespace {

// The order in which HF's library compares dtypes; it stores the largest first.
int layout_rank(DType dtype) {
  switch (dtype) {
    case DType::u8: return 1;
    case DType::i8: return 2;
    case DType::e5m2: return 3;
    case DType::e4m3: return 4;
    case DType::e8m0: return 5;
    case DType::u16: return 7;
    case DType::f16: return 8;
    case DType::bf16: return 9;
    case DType::i32: return 10;
    case DType::u32: return 11;
    case DType::f32: return 12;
    case DType::f64: return 13;
    case DType::i64: return 14;
    case DType::u64: return 15;
  }
  return 0;
}

std::string quoted(const std::string& text) { return nlohmann::json(text).dump(); }

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorDeclaration> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : path_(path), temporary_(path.string() + ".tmp." + std::to_string(::getpid())) {
  for (TensorDeclaration& declaration : tensors) {
    Slot added;
    added.bytes = static_cast<std::uint64_t>(declaration.shape.numel()) * size_bytes(declaration.dtype);
    added.declaration = std::move(declaration);
    slots_.push_back(std::move(added));
  }
  std::sort(slots_.begin(), slots_.end(), [](const Slot& a, const Slot& b) {
    const int rank_a = layout_rank(a.declaration.dtype);
    const int rank_b = layout_rank(b.declaration.dtype);
    return rank_a != rank_b ? rank_a > rank_b : a.declaration.name < b.declaration.name;
  });
  std::uint64_t end = 0;
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    slots_[i].begin = end;
    end += slots_[i].bytes;
    CHECK(index_.emplace(slots_[i].declaration.name, i).second, "'{}': tensor '{}' is declared twice", path.string(),
          slots_[i].declaration.name);
  }
  const std::string header = make_header(metadata);
  for (Slot& item : slots_) item.begin += header.size();

  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  CHECK(fd_ >= 0, "cannot write '{}': {}", path.string(), std::strerror(errno));
  try {
    // Reserves the space, so that a full disk is noticed before anything is computed; not every file system can.
    const auto total = static_cast<off_t>(header.size() + end);
    CHECK(::fallocate(fd_, 0, 0, total) == 0 || (errno != ENOSPC && errno != EDQUOT && errno != EFBIG),
          "cannot write '{}', {} bytes: {}", path.string(), total, std::strerror(errno));
    put(header.data(), header.size(), 0);
  } catch (...) {
    abandon();
    throw;
  }
}

SafetensorsWriter::~SafetensorsWriter() { abandon(); }

void SafetensorsWriter::abandon() {
  if (fd_ < 0) return;
  ::close(fd_);
  fd_ = -1;
  ::unlink(temporary_.c_str());
}

std::string SafetensorsWriter::make_header(const std::map<std::string, std::string>& metadata) {
  std::string json = "{";
  if (!metadata.empty()) json += "\"__metadata__\":" + nlohmann::json(metadata).dump();
  for (const Slot& item : slots_) {
    std::string shape;
    for (int i = 0; i < item.declaration.shape.rank(); ++i) {
      shape += fmt::format("{}{}", i ? "," : "", item.declaration.shape[i]);
    }
    json += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", json.size() > 1 ? "," : "",
                        quoted(item.declaration.name), safetensors_dtype_name(item.declaration.dtype), shape,
                        item.begin, item.begin + item.bytes);
  }
  json += "}";
  json.resize((json.size() + 7) / 8 * 8, ' ');
  const std::uint64_t size = json.size();
  return std::string(reinterpret_cast<const char*>(&size), 8) + json;
}

SafetensorsWriter::Slot& SafetensorsWriter::slot(std::string_view name) {
  const auto found = index_.find(std::string(name));
  CHECK(found != index_.end(), "'{}': tensor '{}' was not declared", path_.string(), name);
  return slots_[found->second];
}

void SafetensorsWriter::put(const void* data, std::size_t bytes, std::uint64_t offset) {
  CHECK(fd_ >= 0, "'{}' is already finished", path_.string());
  const auto* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t done = ::pwrite(fd_, from, bytes, static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    CHECK(done > 0, "cannot write '{}': {}", path_.string(), std::strerror(errno));
    from += done;
    bytes -= static_cast<std::size_t>(done);
    offset += static_cast<std::uint64_t>(done);
  }
}

void SafetensorsWriter::write(std::string_view name, const void* data, std::size_t bytes) {
  Slot& item = slot(name);
  CHECK(bytes <= item.bytes - item.written, "'{}': {} bytes too many for tensor '{}'", path_.string(),
        bytes - (item.bytes - item.written), name);
  put(data, bytes, item.begin + item.written);
  item.written += bytes;
}

void SafetensorsWriter::write(std::string_view name, const Tensor& tensor) {
  const TensorDeclaration& wanted = slot(name).declaration;
  CHECK(tensor.dtype == wanted.dtype && tensor.shape == wanted.shape && tensor.contiguous(),
        "'{}': tensor '{}' was declared as {} {}, contiguous {} {} given", path_.string(), name,
        llmfp8::name(wanted.dtype), to_string(wanted.shape), llmfp8::name(tensor.dtype), to_string(tensor.shape));
  write(name, tensor.data, tensor.bytes());
}

void SafetensorsWriter::finish() {
  CHECK(fd_ >= 0, "'{}' is already finished", path_.string());
  for (const Slot& item : slots_) {
    CHECK(item.written == item.bytes, "'{}': {} of {} bytes of tensor '{}' were written", path_.string(), item.written,
          item.bytes, item.declaration.name);
  }
  CHECK(::fsync(fd_) == 0, "cannot write '{}': {}", path_.string(), std::strerror(errno));
  CHECK(::rename(temporary_.c_str(), path_.c_str()) == 0, "cannot write '{}': {}", path_.string(),
        std::strerror(errno));
  ::close(fd_);
  fd_ = -1;
  sync_folder(path_.has_parent_path() ? path_.parent_path() : std::filesystem::path("."));
}

void write_verified_safetensors(const std::filesystem::path& path, const std::vector<TensorDeclaration>& tensors,
                                const StreamTensor& stream) {
  SafetensorsWriter writer(path, tensors);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    stream(i, [&](std::span<const std::byte> piece) { writer.write(tensors[i].name, piece.data(), piece.size()); });
  }
  writer.finish();
  forget_cached(path);
  const SafetensorsFile written = SafetensorsFile::open(path);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const Tensor& tensor = written.at(tensors[i].name).tensor;
    const auto* at = static_cast<const std::byte*>(tensor.data);
    std::size_t left = tensor.bytes();
    stream(i, [&](std::span<const std::byte> piece) {
      CHECK(piece.size() <= left && std::memcmp(at, piece.data(), piece.size()) == 0,
            "{}: tensor {} reads back differently from what was written", path.string(), tensors[i].name);
      at += piece.size();
      left -= piece.size();
    });
    CHECK(left == 0, "{}: tensor {} reads back {} bytes longer than what was written", path.string(), tensors[i].name, left);
  }
}

}  // namespace llmfp8
