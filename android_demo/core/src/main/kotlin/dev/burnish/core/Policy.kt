package dev.burnish.core

/** Why a restoration ended. [word] is what traces and conformance files call it. */
enum class Stop(val word: String) {
    QUALITY("quality"),
    REGRESSION("regression"),
    PLATEAU("plateau"),
    ITERATIONS("iterations"),
    BUDGET("budget"),
    BROKEN("broken"),
    CANCELLED("cancelled"),
}

/**
 * What the caller wants; null means no such limit.
 *
 * @param budgetMs milliseconds from the call to the result
 * @param minQuality in [0, 1]: stop when the predicted quality reaches it
 * @param maxIterations of every tile; wins over [minIterations]
 * @param minIterations of every tile, whatever the budget and the quality say
 * @param minGain an iteration that is expected to gain no more is not begun
 * @param rollback stop at a predicted loss and keep the picture before it
 * @throws InputException for a value out of its range
 */
data class Policy(
    val budgetMs: Double? = null,
    val minQuality: Double? = null,
    val maxIterations: Int = 4,
    val minIterations: Int = 0,
    val minGain: Double = 0.001,
    val rollback: Boolean = true,
) {
    init {
        requireInput(budgetMs == null || (budgetMs >= 0 && budgetMs.isFinite())) {
            "a budget of $budgetMs ms; expected a number from 0 on"
        }
        requireInput(minQuality == null || minQuality in 0.0..1.0) { "a quality of $minQuality; expected one in [0, 1]" }
        requireInput(maxIterations >= 0) { "$maxIterations iterations at most; expected a number from 0 on" }
        requireInput(minIterations >= 0) { "$minIterations iterations at least; expected a number from 0 on" }
        requireInput(minGain.isFinite()) { "a least gain of $minGain; expected a finite number" }
    }
}

internal inline fun requireInput(holds: Boolean, message: () -> String) {
    if (!holds) throw InputException(message())
}
