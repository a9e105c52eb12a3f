// CRC-32C (Castagnoli), as iSCSI, ext4 and TFRecord use it. Called by checkpoints, whose files carry it, and by the
// TensorBoard writer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace llmfp8 {

// before: the checksum of what stands in front of `data`, so that pieces give the same as the whole. 0 for no bytes.
std::uint32_t crc32c(const void* data, std::size_t bytes, std::uint32_t before = 0);
inline std::uint32_t crc32c(std::string_view data) { return crc32c(data.data(), data.size()); }

// The same by a table, for processors without the instruction; for tests of the one against the other.
std::uint32_t crc32c_by_table(const void* data, std::size_t bytes, std::uint32_t before = 0);

}  // namespace llmfp8
