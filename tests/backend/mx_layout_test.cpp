// Where the E8M0 scales of MXFP8 lie for tensor cores: the function of core/qtensor.h against the formula that cuBLAS
// documents, and against the chain of reshapes that PyTorch makes the same order with.
#include <cstdint>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "core/qtensor.h"

namespace llmfp8 {
namespace {

// PyTorch's to_blocked: view(R, 128, C, 4).permute(0, 2, 1, 3), then per tile view(4, 32, 4).transpose(0, 1).
// padded: [R * 128, C * 4] → the places in the order in which they lie in memory.
std::vector<std::int64_t> reshaped(const std::vector<std::int64_t>& padded, std::int64_t tile_rows,
                                   std::int64_t tile_cols) {
  std::vector<std::int64_t> tiles;  // [R, C, 128, 4]
  for (std::int64_t r = 0; r < tile_rows; ++r) {
    for (std::int64_t c = 0; c < tile_cols; ++c) {
      for (std::int64_t row = 0; row < 128; ++row) {
        for (std::int64_t col = 0; col < 4; ++col) {
          tiles.push_back(padded[static_cast<std::size_t>((r * 128 + row) * tile_cols * 4 + c * 4 + col)]);
        }
      }
    }
  }
  std::vector<std::int64_t> out;
  for (std::size_t tile = 0; tile < tiles.size(); tile += 512) {
    for (std::size_t of_32 = 0; of_32 < 32; ++of_32) {
      for (std::size_t of_4 = 0; of_4 < 4; ++of_4) {
        for (std::size_t col = 0; col < 4; ++col) out.push_back(tiles[tile + (of_4 * 32 + of_32) * 4 + col]);
      }
    }
  }
  return out;
}

TEST(MxTileOffset, IsTheOrderOfPyTorch) {
  for (const auto& [rows, blocks] :
       {std::pair<std::int64_t, std::int64_t>{128, 4}, {384, 20}, {96, 17}, {130, 3}, {1, 1}}) {
    const Shape padded = mx_scale_shape(rows, blocks, MxScaleLayout::tiles_128x4);
    std::vector<std::int64_t> numbers(static_cast<std::size_t>(padded.numel()));
    std::iota(numbers.begin(), numbers.end(), 0);
    const std::vector<std::int64_t> want = reshaped(numbers, padded[0] / 128, padded[1] / 4);
    for (std::int64_t row = 0; row < padded[0]; ++row) {
      for (std::int64_t block = 0; block < padded[1]; ++block) {
        ASSERT_EQ(want[static_cast<std::size_t>(mx_tile_offset(row, block, blocks))], row * padded[1] + block)
            << "row " << row << ", block " << block << " of " << rows << " x " << blocks;
      }
    }
  }
}

// cuBLAS documentation: (outer % 32) * 16 + (outer / 32) * 4 + inner within a tile of 512; tiles lie row-major, so a tile
// begins at (sf_inner + sf_outer * sf_inner_dim) * 128, sf_outer in tiles and the others in scales.
TEST(MxTileOffset, IsTheDocumentedFormula) {
  EXPECT_EQ(mx_tile_offset(5, 2, 8), 82);
  EXPECT_EQ(mx_tile_offset(31, 3, 4), 499);
  EXPECT_EQ(mx_tile_offset(32, 0, 4), 4);
  EXPECT_EQ(mx_tile_offset(127, 3, 4), 511);
  EXPECT_EQ(mx_tile_offset(0, 4, 8), 512);
  EXPECT_EQ(mx_tile_offset(128, 0, 8), 1024);
  EXPECT_EQ(mx_tile_offset(128, 0, 5), 1024);  // five blocks take two tiles
  // Beyond 2^31 scales.
  EXPECT_EQ(mx_tile_offset(std::int64_t{1} << 25, 0, 128), std::int64_t{1} << 32);
}

TEST(MxTileOffset, ShapesArePadded) {
  EXPECT_EQ(mx_scale_shape(96, 17, MxScaleLayout::plain), (Shape{96, 17}));
  EXPECT_EQ(mx_scale_shape(96, 17, MxScaleLayout::tiles_128x4), (Shape{128, 20}));
  EXPECT_EQ(mx_scale_shape(128, 4, MxScaleLayout::tiles_128x4), (Shape{128, 4}));
}

}  // namespace
}  // namespace llmfp8
