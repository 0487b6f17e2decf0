package dev.burnish.core

import java.nio.FloatBuffer
import kotlin.math.round

private val LEVELS = FloatArray(256) { it / 255f }

/**
 * Write [pixels] as a program takes them, (1, 3, tile, tile) in [0, 1], mirrored where they are smaller than a tile.
 *
 * @param view the tile as it is (0), with left and right exchanged (1), upside down (2), or both (3)
 */
fun packTile(pixels: Pixels, tile: Int, out: FloatBuffer, view: Int = 0) {
    require(out.capacity() == 3 * tile * tile) { "a buffer of ${out.capacity()} floats for a tile of $tile" }
    out.clear()
    val row = FloatArray(tile)
    val columns = IntArray(tile) { 3 * reflected(it, pixels.width) }
    val rows = IntArray(tile) { reflected(it, pixels.height) }
    if (exchangesColumns(view)) columns.reverse()
    if (exchangesRows(view)) rows.reverse()
    for (channel in 0 until 3) {
        for (y in 0 until tile) {
            val start = pixels.at(rows[y], 0) + channel
            for (x in 0 until tile) row[x] = LEVELS[pixels.data[start + columns[x]].toInt() and 0xff]
            out.put(row)
        }
    }
    out.clear()
}

/** A program's (1, 3, tile, tile) at 8 bits, clipped and rounded, cut to [height] × [width]. */
fun unpackTile(planes: FloatBuffer, tile: Int, height: Int, width: Int): Pixels {
    val pixels = Pixels(height, width)
    val row = FloatArray(tile)
    val source = planes.duplicate()
    for (channel in 0 until 3) {
        for (y in 0 until height) {
            source.position((channel * tile + y) * tile)
            source.get(row)
            var to = pixels.at(y, 0) + channel
            for (x in 0 until width) {
                pixels.data[to] = round((row[x] * 255f).coerceIn(0f, 255f)).toInt().toByte()
                to += 3
            }
        }
    }
    return pixels
}

/** The mean of restorations of a tile, and the mean squared difference between those before and the one that joined them. */
class Joined(val planes: FloatBuffer, val difference: Double)

/** [one]: the mean of [view] restorations, in [0, 1]; [other]: what became of that view of the original, not clipped. */
fun joined(one: FloatBuffer, view: Int, other: FloatBuffer, tile: Int): Joined {
    val result = FloatBuffer.allocate(3 * tile * tile)
    val count = view.toFloat()
    var sum = 0.0
    for (channel in 0 until 3) {
        for (y in 0 until tile) {
            val row = (channel * tile + y) * tile
            val from = (channel * tile + if (exchangesRows(view)) tile - 1 - y else y) * tile
            for (x in 0 until tile) {
                val first = one.get(row + x)
                val second = other.get(from + if (exchangesColumns(view)) tile - 1 - x else x).coerceIn(0f, 1f)
                val apart = (first - second).toDouble()
                sum += apart * apart
                result.put(row + x, (count * first + second) / (count + 1))
            }
        }
    }
    return Joined(result, sum / result.capacity())
}

private fun exchangesColumns(view: Int) = view and 1 != 0

private fun exchangesRows(view: Int) = view and 2 != 0

/** The mean of all values; not finite where one of them is not. */
fun meanOf(planes: FloatBuffer): Double {
    val source = planes.duplicate()
    source.clear()
    val chunk = FloatArray(4096)
    var sum = 0.0
    while (source.hasRemaining()) {
        val count = minOf(chunk.size, source.remaining())
        source.get(chunk, 0, count)
        for (i in 0 until count) sum += chunk[i]
    }
    return sum / source.capacity()
}

// The index that mirroring with the edge repeated gives; a picture may be much smaller than a tile.
private fun reflected(index: Int, length: Int): Int {
    val place = index % (2 * length)
    return if (place < length) place else 2 * length - 1 - place
}
