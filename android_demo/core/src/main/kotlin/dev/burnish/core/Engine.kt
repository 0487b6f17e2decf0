package dev.burnish.core

import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer

/**
 * What an iteration made of a tile; [pixels] is null and [quality], calibrated, NaN where that is broken.
 *
 * @param difference of a view, the mean squared difference of its restoration from the mean that it joined
 */
internal data class Restored(val pixels: Pixels?, val quality: Double, val difference: Double = 0.0)

/** A loaded program, its worker, and what is known of it. All but [cost] is touched by the worker's thread alone. */
internal class Engine(
    private val session: Session,
    val program: Program,
    val tile: Int,
    val rank: Int,
    val routing: Routing,
    /** Of how many pictures features may be kept. */
    val keep: Int,
    cost: CostModel,
) {
    val worker = Worker()

    @Volatile
    var cost: CostModel = cost
        private set

    // One input for all calls; a tile that is refined right after it was encoded is there already.
    private val input: FloatBuffer =
        ByteBuffer.allocateDirect(4 * 3 * tile * tile).order(ByteOrder.nativeOrder()).asFloatBuffer()
    private var packed: Pair<Pixels, Int>? = null

    fun encodeTook(ms: Double) {
        cost = cost.encoded(ms)
    }

    fun refineTook(ms: Double) {
        cost = cost.refined(ms)
    }

    /** A restoration ended by its budget before its first step. */
    fun refused(budgetMs: Double) {
        cost = cost.refused(budgetMs)
    }

    /** @param view of the picture, as [packTile] takes it */
    fun encode(pixels: Pixels, view: Int = 0): Encoded {
        pack(pixels, view)
        return session.encode(input)
    }

    fun refine(
        current: Pixels,
        original: Encoded,
        estimate: Encoded,
        tokens: FloatArray,
        gates: FloatArray,
        method: String,
    ): Restored {
        pack(current)
        val refined = restored(original, estimate, tokens, gates, method) ?: return BROKEN
        return Restored(unpackTile(refined.planes, tile, current.height, current.width), refined.quality)
    }

    /** The mean of [view] restorations, [current] of [predicted] quality, joined by what becomes of that view of [source]. */
    fun refineView(
        source: Pixels,
        view: Int,
        estimate: Encoded,
        tokens: FloatArray,
        gates: FloatArray,
        method: String,
        current: Pixels,
        predicted: Double,
    ): Restored {
        pack(source, view)
        val refined = restored(estimate, estimate, tokens, gates, method) ?: return BROKEN
        pack(current)
        val mean = joined(input, view, refined.planes, tile)
        val pixels = unpackTile(mean.planes, tile, current.height, current.width)
        return Restored(pixels, qualityOfMean(predicted, view, refined.quality, mean.difference), mean.difference)
    }

    // What becomes of the packed picture, with its calibrated quality; null where it is broken.
    private fun restored(
        original: Encoded,
        estimate: Encoded,
        tokens: FloatArray,
        gates: FloatArray,
        method: String,
    ): Refined? {
        val refined = session.refine(input, original, estimate, tokens, gates, method)
        val quality = calibrated(refined.quality)
        return if (quality.isNaN() || isBroken(refined.planes)) null else Refined(refined.planes, quality)
    }

    fun calibrated(quality: Double): Double = if (quality.isNaN()) quality else program.calibration.apply(quality)

    private fun pack(pixels: Pixels, view: Int = 0) {
        val last = packed
        if (last == null || last.first !== pixels || last.second != view) packTile(pixels, tile, input, view)
        packed = pixels to view
    }

    // NaN, infinite, or black where the source was not.
    private fun isBroken(restored: FloatBuffer): Boolean {
        val level = meanOf(restored)
        val before = meanOf(input)
        return !(level - level == 0.0) || (before > NEARLY_BLACK && level < DARKER * before)
    }

    fun close() {
        worker.post { session.close() }
        worker.close()
    }

    private companion object {
        val BROKEN = Restored(null, Double.NaN)

        // A result this much darker than what it came from is broken, unless that was nearly black itself.
        const val DARKER = 0.02
        const val NEARLY_BLACK = 4.0 / 255
    }
}
