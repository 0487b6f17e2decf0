// Overlapping tiles, their blending and the look at the whole picture; the same as burnish.runtime.tiles.
#pragma once

#include <vector>

#include "tensors.h"

struct Region {
  int top = 0, left = 0, bottom = 0, right = 0;

  int height() const { return bottom - top; }
  int width() const { return right - left; }
};

struct TilePlan {
  int height = 0, width = 0, tile = 0;
  std::vector<int> rows, columns;
  // Blending weights down every row of tiles and across every column; at each pixel they sum to 1.
  std::vector<std::vector<float>> down, across;

  std::size_t count() const { return rows.size() * columns.size(); }
  Region region(std::size_t index) const;
  // Every tile's share of the picture.
  std::vector<double> areas() const;
};

TilePlan plan_tiles(int height, int width, int tile, int overlap = 32);
// The part of a picture that a tile covers.
Pixels crop(const Pixels& picture, const Region& region);
// As float (1, 3, tile, tile) in [0, 1], mirrored where it is smaller than a tile.
Tensor to_program(const Pixels& pixels, int tile);
// A program's picture at 8 bits, clipped and rounded, cut to the size of `like`.
Pixels from_program(const Tensor& planes, const Pixels& like);
// (1, 3, tile, tile) with left and right exchanged (view 1), upside down (2), or both (3); doing it again undoes it.
Tensor mirror(const Tensor& planes, int view);
// The picture that tiles make together.
Pixels blend(const std::vector<Pixels>& tiles, const TilePlan& plan);
struct Size {
  int height = 0, width = 0;
};
Size small_size(int height, int width, int tile);
// The picture averaged down to small_size, bit by bit as Pillow's box filter does.
Pixels make_small(const Pixels& picture, int tile);
