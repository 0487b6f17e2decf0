package dev.burnish.core

import java.io.Closeable
import java.nio.FloatBuffer

/** What `encode` says of a picture: its quality in [0, 1], granularity (log-variance) and a logit for each leaf. */
class Assessment(val quality: Double, val granularity: Double, val logits: List<Double>) {
    companion object {
        /** Split a program's output of 2 + leaves numbers. */
        fun of(values: FloatArray): Assessment {
            if (values.size < 3) throw ProgramException("an assessment has ${values.size} numbers; expected three and more")
            return Assessment(sigmoid(values[0].toDouble()), values[1].toDouble(), values.drop(2).map { it.toDouble() })
        }
    }
}

/** An encoded picture: features, which are the session's own, tokens and the assessment. */
interface Encoded {
    val assessment: Assessment

    /** (N, C), the caller's to keep: they outlive the features. */
    val tokens: FloatArray

    /** Give its features back; it cannot be refined with afterwards. */
    fun release()
}

/**
 * A restored tile.
 *
 * @param planes (3, tile, tile), not clipped; valid until the session is called again
 * @param quality predicted, in [0, 1], not calibrated
 */
class Refined(val planes: FloatBuffer, val quality: Double)

/** A loaded program; used by one thread at a time. Calls throw [ProgramException]. */
interface Session : Closeable {
    /** [image]: direct, (3, tile, tile) in [0, 1]. */
    fun encode(image: FloatBuffer): Encoded

    /**
     * [current]: direct, (3, tile, tile); [tokens]: those that are asked, the estimate's own or others; [gates]: every expert's,
     * repeated over its rank; [method]: [REFINE], or a specialist's.
     */
    fun refine(
        current: FloatBuffer,
        original: Encoded,
        estimate: Encoded,
        tokens: FloatArray,
        gates: FloatArray,
        method: String,
    ): Refined
}
