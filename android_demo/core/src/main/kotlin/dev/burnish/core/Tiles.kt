package dev.burnish.core

import kotlin.math.PI
import kotlin.math.cos
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round

/** Pixels that neighbouring tiles share at least. */
const val OVERLAP: Int = 32

/** Tiles start on the grid of JPEG's blocks. */
private const val GRID = 16

/** Where tiles of side [tile] lie on a picture of [height] × [width]; smaller pictures are mirrored up to one tile. */
class TilePlan(val height: Int, val width: Int, val tile: Int, val rows: List<Int>, val columns: List<Int>) {
    val size: Int get() = rows.size * columns.size

    /** Blending weights down every row of tiles; with those [across], they sum to 1 at each pixel. */
    val down: List<FloatArray> = ramps(rows, tile, height)

    /** Blending weights across every column of tiles. */
    val across: List<FloatArray> = ramps(columns, tile, width)

    /** Every tile's share of the picture: its blending weights over the picture's pixels. They sum to 1. */
    val areas: List<Double> = run {
        val vertical = down.map { weights -> weights.sumOf { it.toDouble() } }
        val horizontal = across.map { weights -> weights.sumOf { it.toDouble() } }
        vertical.flatMap { d -> horizontal.map { a -> d * a / (height.toDouble() * width) } }
    }

    /** The part of the picture that a tile covers. */
    fun region(index: Int): Region {
        val top = rows[index / columns.size]
        val left = columns[index % columns.size]
        return Region(top, left, min(top + tile, height), min(left + tile, width))
    }

    /** The tiles that cover a part of [region]. */
    fun overlapping(region: Region): List<Int> {
        val inRows = rows.indices.filter { rows[it] < region.bottom && rows[it] + tile > region.top }
        val inColumns = columns.indices.filter { columns[it] < region.right && columns[it] + tile > region.left }
        return inRows.flatMap { row -> inColumns.map { row * columns.size + it } }
    }
}

/**
 * The fewest tiles on the grid that cover the picture with at least [overlap] pixels shared, spread evenly; the last may reach
 * over its edge.
 */
fun planTiles(height: Int, width: Int, tile: Int, overlap: Int = OVERLAP): TilePlan =
    TilePlan(height, width, tile, starts(height, tile, overlap), starts(width, tile, overlap))

private fun starts(length: Int, tile: Int, overlap: Int): List<Int> {
    if (length <= tile) return listOf(0)
    val cells = (length + GRID - 1) / GRID
    val wide = tile / GRID
    val shared = (overlap + GRID - 1) / GRID
    val count = (cells - shared + wide - shared - 1) / (wide - shared)
    return List(count) { (cells - wide) * it / (count - 1) * GRID }
}

// Raised cosines over what a tile shares with each neighbour, divided by their sum, where more than two meet.
private fun ramps(starts: List<Int>, tile: Int, length: Int): List<FloatArray> {
    val total = DoubleArray(length)
    val raw = starts.mapIndexed { position, start ->
        val weights = DoubleArray(min(tile, length - start)) { 1.0 }
        if (position > 0) {
            val shared = starts[position - 1] + tile - start
            for (i in 0 until shared) weights[i] = rise(i, shared)
        }
        if (position + 1 < starts.size) {
            val shared = start + tile - starts[position + 1]
            for (i in 0 until shared) weights[tile - 1 - i] = min(weights[tile - 1 - i], rise(i, shared))
        }
        for (i in weights.indices) total[start + i] += weights[i]
        weights
    }
    return raw.mapIndexed { position, weights ->
        FloatArray(weights.size) { (weights[it] / total[starts[position] + it]).toFloat() }
    }
}

private fun rise(position: Int, length: Int) = 0.5 - 0.5 * cos(PI * (position + 0.5) / length)

/** The picture that tiles make together, or the part of it in [region]. */
fun blend(tiles: List<Pixels>, plan: TilePlan, region: Region = Region(0, 0, plan.height, plan.width)): Pixels {
    if (plan.size == 1) return tiles[0].view(region)
    val total = FloatArray(3 * region.height * region.width)
    for (index in plan.overlapping(region)) {
        val down = plan.down[index / plan.columns.size]
        val across = plan.across[index % plan.columns.size]
        val own = plan.region(index)
        val pixels = tiles[index]
        val left = max(own.left, region.left)
        val right = min(own.right, region.right)
        for (y in max(own.top, region.top) until min(own.bottom, region.bottom)) {
            var from = pixels.at(y - own.top, left - own.left)
            var to = 3 * ((y - region.top) * region.width + left - region.left)
            val vertical = down[y - own.top]
            for (x in left until right) {
                val weight = vertical * across[x - own.left]
                repeat(3) { total[to++] += weight * (pixels.data[from++].toInt() and 0xff) }
            }
        }
    }
    return Pixels(region.height, region.width, ByteArray(total.size) { round(total[it]).toInt().toByte() })
}

/** Height and width of a picture made small enough that its longer side is a tile's. */
fun smallSize(height: Int, width: Int, tile: Int): Pair<Int, Int> {
    val scale = tile.toDouble() / max(height, width)
    return max(1, (height * scale + 0.5).toInt()) to max(1, (width * scale + 0.5).toInt())
}
