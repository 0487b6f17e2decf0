package dev.burnish.core

import kotlin.math.max
import kotlin.math.min

// Pillow's fixed-point weights have 22 bits; two languages then see the same small picture, bit by bit.
private const val BITS = 22

private class Box(val first: Int, val weights: IntArray)

/** A picture averaged down to [smallSize], bit by bit as Pillow's box filter does. */
fun makeSmall(picture: Pixels, tile: Int): Pixels {
    val (height, width) = smallSize(picture.height, picture.width, tile)
    val across = boxes(picture.width, width)
    val narrow = Pixels(picture.height, width)
    for (y in 0 until picture.height) {
        for (x in 0 until width) {
            average(picture, picture.at(y, across[x].first), 3, across[x].weights, narrow, narrow.at(y, x))
        }
    }
    val down = boxes(picture.height, height)
    val small = Pixels(height, width)
    for (y in 0 until height) {
        for (x in 0 until width) {
            average(narrow, narrow.at(down[y].first, x), narrow.stride, down[y].weights, small, small.at(y, x))
        }
    }
    return small
}

private fun average(from: Pixels, start: Int, step: Int, weights: IntArray, to: Pixels, place: Int) {
    for (channel in 0 until 3) {
        var sum = 1 shl (BITS - 1)
        var at = start + channel
        for (weight in weights) {
            sum += weight * (from.data[at].toInt() and 0xff)
            at += step
        }
        to.data[place + channel] = (sum shr BITS).coerceIn(0, 255).toByte()
    }
}

private fun boxes(from: Int, to: Int): List<Box> {
    val scale = from.toDouble() / to
    val filter = max(scale, 1.0)
    val support = 0.5 * filter
    return List(to) { out ->
        val centre = (out + 0.5) * scale
        val first = max(0, (centre - support + 0.5).toInt())
        val last = min(from, (centre + support + 0.5).toInt())
        val weights = DoubleArray(last - first) {
            val at = (first + it - centre + 0.5) * (1.0 / filter)
            if (at > -0.5 && at <= 0.5) 1.0 else 0.0
        }
        val sum = weights.sum()
        Box(first, IntArray(weights.size) { (0.5 + (if (sum != 0.0) weights[it] / sum else weights[it]) * (1 shl BITS)).toInt() })
    }
}
