package dev.burnish.core

import kotlin.math.log10
import kotlin.math.min
import kotlin.math.pow

// The quality scale: 0 to 1 is 10 to 50 dB of PSNR, linearly.
private const val PSNR_AT_ZERO = 10.0
private const val PSNR_AT_ONE = 50.0

/** PSNR in dB that a quality in [0, 1] stands for. */
fun qualityToPsnr(quality: Double): Double = PSNR_AT_ZERO + (PSNR_AT_ONE - PSNR_AT_ZERO) * quality

/** Mean squared error, of pixels in [0, 1], that a quality in [0, 1] stands for. */
fun qualityToMse(quality: Double): Double = 10.0.pow(-qualityToPsnr(quality) / 10.0)

/**
 * Predicted quality when [other] joins [one], the mean of [count] restorations; from theirs and their mean squared
 * [difference].
 */
fun qualityOfMean(one: Double, count: Int, other: Double, difference: Double): Double {
    val mine = qualityToMse(one)
    val others = qualityToMse(other)
    val share = 1.0 / (count + 1)
    val apart = min(difference, mine + others)
    return mseToQuality(share * (count * mine + others) - share * share * count * apart)
}

/** The quality of a mean squared error above 0; may leave [0, 1]. */
fun mseToQuality(mse: Double): Double = (-10.0 * log10(mse) - PSNR_AT_ZERO) / (PSNR_AT_ONE - PSNR_AT_ZERO)
