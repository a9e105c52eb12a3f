#include "report/tensorboard.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "core/clock.h"
#include "core/error.h"

namespace llmfp8 {
namespace {

// Little-endian, whatever the machine.
template <typename T>
void put_fixed(std::string& out, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) out += static_cast<char>((value >> (8 * i)) & 0xFF);
}

void put_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>((value & 0x7F) | 0x80);
  out += static_cast<char>(value);
}

enum class Wire { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

void put_tag(std::string& out, int field, Wire wire) {
  put_varint(out, static_cast<std::uint64_t>(field) << 3 | static_cast<std::uint64_t>(wire));
}

void put_varint_field(std::string& out, int field, std::int64_t value) {
  put_tag(out, field, Wire::varint);
  put_varint(out, static_cast<std::uint64_t>(value));
}

void put_bytes(std::string& out, int field, std::string_view value) {
  put_tag(out, field, Wire::bytes);
  put_varint(out, value.size());
  out += value;
}

void put_double(std::string& out, int field, double value) {
  put_tag(out, field, Wire::fixed64);
  put_fixed(out, std::bit_cast<std::uint64_t>(value));
}

void put_float(std::string& out, int field, float value) {
  put_tag(out, field, Wire::fixed32);
  put_fixed(out, std::bit_cast<std::uint32_t>(value));
}

// Summary.Value{tag = 1, simple_value = 2}, as an entry of Summary.value = 1.
void put_scalar(std::string& summary, std::string_view name, double value) {
  std::string entry;
  put_bytes(entry, 1, name);
  put_float(entry, 2, static_cast<float>(value));
  put_bytes(summary, 1, entry);
}

// Summary.Value{tag = 1, tensor = 8 {dtype = 1: DT_STRING 7, shape = 2 {dim = 2 {size = 1}}, string_val = 8},
// metadata = 9 {plugin_data = 1 {plugin_name = 1}}}.
void put_text(std::string& summary, std::string_view name, std::string_view value) {
  std::string dim, shape, tensor, plugin, metadata, entry;
  put_varint_field(dim, 1, 1);
  put_bytes(shape, 2, dim);
  put_varint_field(tensor, 1, 7);
  put_bytes(tensor, 2, shape);
  put_bytes(tensor, 8, value);
  put_bytes(plugin, 1, "text");
  put_bytes(metadata, 1, plugin);
  put_bytes(entry, 1, name);
  put_bytes(entry, 8, tensor);
  put_bytes(entry, 9, metadata);
  put_bytes(summary, 1, entry);
}

constexpr std::string_view kFilePrefix = "events.out.tfevents.";

// Seconds for the name of a new file: now, but later than any file that is there (two starts in a second, a clock set back).
std::int64_t seconds_for_name(const std::filesystem::path& folder, std::int64_t now) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    std::int64_t seconds = 0;
    if (!name.starts_with(kFilePrefix)) continue;
    const char* const begin = name.data() + kFilePrefix.size();
    const auto [end, status] = std::from_chars(begin, name.data() + name.size(), seconds);
    // Names are compared as texts: one of another length tells nothing.
    if (status == std::errc() && end - begin == static_cast<std::ptrdiff_t>(std::to_string(now).size()))
      now = std::max(now, seconds + 1);
  }
  return now;
}

}  // namespace

std::uint32_t masked_crc32c(std::string_view data) {
  const std::uint32_t crc = crc32c(data);
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

TensorboardSink::TensorboardSink(const std::filesystem::path& folder) {
  std::error_code status;
  std::filesystem::create_directories(folder, status);
  CHECK(!status, "{}: cannot be created: {}", folder.string(), status.message());
  std::array<char, 256> host{};
  if (gethostname(host.data(), host.size() - 1) != 0) std::strcpy(host.data(), "localhost");
  const double now = unix_seconds();
  path_ = folder / fmt::format("{}{}.{}.{}.0", kFilePrefix, seconds_for_name(folder, static_cast<std::int64_t>(now)), host.data(), getpid());
  file_ = std::fopen(path_.c_str(), "ab");
  CHECK(file_ != nullptr, "{}: cannot be written: {}", path_.string(), std::strerror(errno));
  std::string event;
  put_double(event, 1, now);
  put_bytes(event, 3, "brain.Event:2");
  write_record(event);
}

TensorboardSink::~TensorboardSink() { std::fclose(file_); }

void TensorboardSink::write_record(std::string_view data) {
  std::string record;
  put_fixed(record, static_cast<std::uint64_t>(data.size()));
  put_fixed(record, masked_crc32c(record));
  record += data;
  put_fixed(record, masked_crc32c(data));
  const bool is_written =
      std::fwrite(record.data(), 1, record.size(), file_) == record.size() && std::fflush(file_) == 0;
  CHECK(is_written, "{}: cannot be written: {}", path_.string(), std::strerror(errno));
}

// Event{wall_time = 1, step = 2, summary = 5}.
void TensorboardSink::write_summary(std::int64_t step, double time, std::string_view summary) {
  std::string event;
  put_double(event, 1, time);
  put_varint_field(event, 2, step);
  put_bytes(event, 5, summary);
  write_record(event);
}

// Event{wall_time = 1, step = 2, session_log = 7 {status = 1: START 1}}, twice: TensorBoard's server takes the first START
// of a run for its beginning, where nothing is to be forgotten.
void TensorboardSink::forget_from(std::int64_t step) {
  std::string session, event;
  put_varint_field(session, 1, 1);
  put_double(event, 1, unix_seconds());
  put_varint_field(event, 2, step);
  put_bytes(event, 7, session);
  write_record(event);
  write_record(event);
  last_step_ = step;
}

void TensorboardSink::log(const MetricRecord& record) {
  last_step_ = record.step;
  std::string summary;
  for (const auto& [name, value] : record.values) {
    put_scalar(summary, name, value);
    curves_.insert(name);
  }
  write_summary(record.step, record.time, summary);
}

void TensorboardSink::summary(const std::string& name, double value) {
  if (curves_.contains(name)) return;
  std::string summary;
  put_scalar(summary, name, value);
  write_summary(last_step_, unix_seconds(), summary);
}

void TensorboardSink::text(const std::string& name, const std::string& value) {
  std::string summary;
  put_text(summary, name, value);
  write_summary(last_step_, unix_seconds(), summary);
}

}  // namespace llmfp8
