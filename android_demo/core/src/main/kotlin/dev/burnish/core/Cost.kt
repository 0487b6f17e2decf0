package dev.burnish.core

import kotlin.math.abs
import kotlin.math.max
import kotlin.math.min
import kotlin.math.withSign

private const val WEIGHT = 0.25
private const val DEVIATIONS = 3.0

// Never trust a step to be steadier than this share of its mean.
private const val LEAST_DEVIATION = 0.03

// What a single duration says of its deviation.
private const val FIRST_DEVIATION = 0.1

// By how much an estimate that let nothing begin shrinks.
private const val DOUBT = 0.9

/**
 * Mean and mean absolute deviation of a duration in milliseconds, exponentially weighted (RFC 6298).
 *
 * One duration outside the expected range is held back as [outlier] and counts only up to the edge of the range; a second
 * one in a row, on the same side, is the new pace of the machine. A mean of 0 knows nothing yet and predicts 0. [least] is the
 * shortest duration, 0 before any.
 */
data class Estimate(
    val mean: Double = 0.0,
    val deviation: Double = 0.0,
    val outlier: Double? = null,
    val least: Double = 0.0,
) {
    /** How far from the mean a duration is expected. */
    val margin: Double get() = DEVIATIONS * max(deviation, LEAST_DEVIATION * mean)

    /** The prediction: rarely exceeded while the pace lasts. */
    val upper: Double get() = mean + margin

    /** The estimate after one more duration. */
    fun observe(value: Double): Estimate {
        val shortest = if (least == 0.0) value else min(least, value)
        if (mean == 0.0) return Estimate(value, FIRST_DEVIATION * value, least = shortest)
        var error = value - mean
        var heldBack: Double? = null
        if (abs(error) > margin) {
            if (outlier != null && (outlier > mean) == (error > 0)) {
                val pace = (value + outlier) / 2
                return Estimate(pace, max(abs(value - outlier) / 2, FIRST_DEVIATION * pace), least = shortest)
            }
            heldBack = value
            error = margin.withSign(error)
        }
        return Estimate(mean + WEIGHT * error, deviation + WEIGHT * (abs(error) - deviation), heldBack, shortest)
    }

    /** The estimate after it let nothing begin, and so could not be corrected: it may be of a pace that is over. */
    fun doubted(): Estimate = Estimate(max(least, DOUBT * mean), DOUBT * deviation, least = least)
}

/** Estimates of both methods for one tile on this device. */
data class CostModel(val encode: Estimate = Estimate(), val refine: Estimate = Estimate()) {
    /** The model after one more encode. */
    fun encoded(ms: Double): CostModel = copy(encode = encode.observe(ms))

    /** The model after one more refine. */
    fun refined(ms: Double): CostModel = copy(refine = refine.observe(ms))

    /** The model after no step could begin within a budget; doubted where both methods once took no longer together. */
    fun refused(budgetMs: Double): CostModel =
        if (budgetMs < encode.least + refine.least) this else CostModel(encode.doubted(), refine.doubted())
}
