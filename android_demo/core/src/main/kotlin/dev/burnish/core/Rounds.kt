package dev.burnish.core

import kotlin.math.max

private class Sums {
    var costMs = 0.0
    var elapsedMs = 0.0
    var area = 0.0
    var error = 0.0
    val gates = LinkedHashMap<String, Double>()
    val degradations = LinkedHashMap<String, Double>()

    fun add(area: Double, gates: Gates, degradations: Map<String, Double>) {
        this.area += area
        for ((name, value) in gates) this.gates[name] = (this.gates[name] ?: 0.0) + area * value
        for ((name, value) in degradations) this.degradations[name] = (this.degradations[name] ?: 0.0) + area * value
    }

    fun row(iteration: Int, quality: Double) =
        Step(iteration, quality, costMs, elapsedMs, gates.mapValues { it.value / area }, degradations.mapValues { it.value / area })
}

/**
 * Gathers the steps of tiles into rows of the whole picture, a row a round of iterations.
 *
 * Round n is over when every tile had n iterations or is done; what comes after the last whole round is a row too.
 */
internal class Rounds(private val areas: List<Double>) {
    private var rows = emptyList<Step>()
    private val start = Sums()
    private var now = Sums()
    private val done = mutableSetOf<Int>()
    private val iterations = IntArray(areas.size)
    private var missing = areas.indices.toMutableSet()

    /** Tiles that were refined or needed none. */
    var begun = 0
        private set

    private val isOpen get() = now.area > 0
    private val round get() = max(1, rows.size)

    /** A step took [ms]; [first]: it belongs to the assessment of the picture as it came. */
    fun spent(ms: Double, elapsedMs: Double, first: Boolean) {
        val sums = if (first) start else now
        sums.costMs += ms
        sums.elapsedMs = elapsedMs
    }

    /** A tile of the picture as it came was assessed. */
    fun started(index: Int, quality: Double, degradations: Map<String, Double>) {
        start.add(areas[index], emptyMap(), degradations)
        start.error += areas[index] * qualityToMse(quality)
    }

    /** A tile had one more iteration. */
    fun refined(index: Int, gates: Gates, degradations: Map<String, Double>) = now.add(areas[index], gates, degradations)

    /** A tile got so far, when the picture's quality was [quality]. */
    fun reached(index: Int, iteration: Int, isDone: Boolean, quality: Double) {
        iterations[index] = iteration
        if (isDone) done.add(index)
        if (iteration >= round || isDone) {
            if (index in missing && round == 1) begun += 1
            missing.remove(index)
        }
        if (missing.isNotEmpty() || !isOpen) return
        rows = rows(quality)
        now = Sums()
        missing = iterations.indices.filter { iterations[it] < round && it !in done }.toMutableSet()
    }

    /** All rows so far, with what the current round has done; [quality]: the picture's now. */
    fun rows(quality: Double): List<Step> {
        val all = rows.toMutableList()
        if (all.isEmpty() && start.area > 0) all.add(start.row(0, mseToQuality(start.error / start.area)))
        if (isOpen) all.add(now.row(all.size, quality))
        return all
    }
}
