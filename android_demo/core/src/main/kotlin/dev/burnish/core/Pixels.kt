package dev.burnish.core

/** A rectangle of a picture in pixels; [bottom] and [right] are outside it. */
data class Region(val top: Int, val left: Int, val bottom: Int, val right: Int) {
    val height: Int get() = bottom - top
    val width: Int get() = right - left
}

/**
 * A picture, or a rectangle of one that it shares its bytes with: height × width × 3 of sRGB, 8 bits a channel.
 *
 * Pixel (y, x) begins at `offset + y * stride + 3 * x` of [data].
 */
class Pixels(
    val height: Int,
    val width: Int,
    val data: ByteArray = ByteArray(3 * height * width),
    val offset: Int = 0,
    val stride: Int = 3 * width,
) {
    init {
        requireInput(height > 0 && width > 0) { "a picture of $width × $height pixels; expected at least one" }
        requireInput(stride >= 3 * width && offset >= 0 && offset + (height - 1L) * stride + 3L * width <= data.size) {
            "${data.size} bytes for $width × $height pixels; expected three a pixel"
        }
    }

    /** A rectangle that shares the bytes. */
    fun view(region: Region): Pixels =
        Pixels(region.height, region.width, data, at(region.top, region.left), stride)

    /** A copy with bytes of its own, close together. */
    fun copy(): Pixels = Pixels(height, width).also { it.put(this, 0, 0) }

    /** Put another picture here, its top left pixel at ([top], [left]). */
    fun put(other: Pixels, top: Int, left: Int) {
        for (y in 0 until other.height) {
            System.arraycopy(other.data, other.at(y, 0), data, at(top + y, left), 3 * other.width)
        }
    }

    internal fun at(y: Int, x: Int): Int = offset + y * stride + 3 * x
}
