package dev.burnish.core

import java.util.TreeSet
import kotlin.math.max

// A predicted loss is believed from here on, 2 dB: less is within the heads' scatter.
private const val TOLERANCE = 0.05

// Mirror images that a tile is restored in: left and right exchanged, upside down, both.
private const val VIEWS = 3

/** What to do next; everything but [Stop] is one call of the program. */
sealed interface Action {
    /** Encode the whole picture as it is now, made small; the tile is the one that is due after it. */
    data class Look(val tile: Int) : Action

    /** Encode a tile's current picture. */
    data class Encode(val tile: Int) : Action

    /** Encode a mirror image of a tile's original: view 1, 2 or 3, as many as the tile had iterations. */
    data class Mirror(val tile: Int) : Action

    /** Encode a tile's original again: its features were given up for room. */
    data class Recall(val tile: Int) : Action

    /** Refine a tile. */
    data class Refine(val tile: Int) : Action

    /** Nothing more; [Controller.reason] says why. */
    data object Stop : Action
}

/** What is known of one tile; read by others, written by the controller alone. */
class TileState internal constructor(
    /** Its share of the picture. */
    val area: Double,
) {
    var iteration: Int = 0
        internal set
    var bestIteration: Int = 0
        internal set
    var quality: Double? = null
        internal set

    /**
     * What the next refine is compared with: the kept picture's quality as encode, not the refine before, saw it, if it did; of a
     * view the best that was said of those it joins.
     */
    var assessed: Double = 0.0
        internal set

    var prospect: Prospect = Prospect(0.0, 0.0, false)
        internal set

    /** By how much its next iteration is expected to lower the picture's error. */
    var gain: Double = Double.POSITIVE_INFINITY
        internal set

    /** Whether features of its original are kept. */
    var original: Boolean = false
        internal set

    /** Whether features of its current picture are kept. */
    var estimate: Boolean = false
        internal set
    var done: Stop? = null
        internal set

    /** Mirror images that it is restored in. */
    internal val views: Int get() = if (prospect.upright) 1 else VIEWS

    /** The mirror image that its next iteration restores; 0 where that goes on from the last result. */
    internal val view: Int get() = if (iteration <= views) iteration else 0

    /** Looks at the whole picture that its next iteration goes by; all of its views go by the first one's. */
    internal val looks: Int get() = max(1, iteration - views + 1)
}

/**
 * Says what to do next with which tile, and why to stop: a pure state machine without clock, model or I/O.
 *
 * A picture of one tile goes through restore, assess, repeat. Of many tiles each gets its first iteration, after a survey where
 * one is asked for; then time goes to the tile with the largest expected gain. The second iteration restores the mirror image of
 * the picture as it came, the third and fourth the two that are upside down, where that is allowed, and each joins the mean of
 * those before; later ones go on from there. docs/conformance.md has the rules, tests/conformance the cases.
 *
 * @param areas every tile's share of the picture, summing to 1
 * @param looks whether the whole picture is looked at before each round of iterations
 * @param keep features of how many pictures may be kept beside those of the tile in hand
 */
class Controller(
    val policy: Policy,
    cost: CostModel,
    areas: List<Double> = listOf(1.0),
    private val looks: Boolean = false,
    private val keep: Int = 1_000_000,
) {
    val tiles: List<TileState> = areas.map(::TileState)

    var cost: CostModel = cost
        private set
    var reason: Stop? = null
        private set
    var roundsLookedAt: Int = 0
        private set

    private var last = Stop.ITERATIONS
    private var error = 0.0
    private var known = 0.0
    private val held = TreeSet<Int>()
    private var surveyed = emptySet<Int>()
    private val open: MutableSet<Int> = if (policy.maxIterations == 0) mutableSetOf() else tiles.indices.toMutableSet()

    // Early iterations in rounds, of the first round what is to be surveyed, then what was assessed, by expected gain; then all by it,
    // fewest iterations, index.
    private val order = compareBy<Int> { isLater(it) }
        .thenBy { urgency(it) }
        .thenBy { tiles[it].iteration }
        .thenBy { it }

    /** The next step that is predicted to end before the deadline, [elapsedMs] after the call. */
    fun choose(elapsedMs: Double): Action {
        if (reason == null) {
            if (tiles.size > 1 && isGoodEnough()) {
                reason = Stop.QUALITY
            } else if (open.isEmpty()) {
                reason = last
            } else {
                val index = next(elapsedMs)
                if (index != null) return step(index)
                reason = Stop.BUDGET
            }
        }
        return Action.Stop
    }

    /**
     * The whole picture was looked at.
     *
     * [survey]: tiles are to be encoded before the first is refined, all or, where their features cannot be kept, as many as can,
     * evenly spread; there is none of one tile, nor where one iteration of every tile does not fit.
     */
    fun looked(ms: Double, survey: Boolean = false) {
        cost = cost.encoded(ms)
        roundsLookedAt += 1
        val kept = minOf(tiles.size, keep)
        if (survey && kept > 1 && hasTimeForAll()) surveyed = (0 until kept).map { it * tiles.size / kept }.toSet()
    }

    /**
     * A tile's current picture was encoded: its assessed quality (NaN: broken) and, which counts the first time alone, its
     * [prospect].
     */
    fun encoded(index: Int, quality: Double, prospect: Prospect, ms: Double) {
        cost = cost.encoded(ms)
        val tile = tiles[index]
        val assessed = if (quality.isNaN()) 0.0 else quality
        tile.estimate = true
        if (tile.iteration == tile.bestIteration) tile.assessed = assessed
        if (tile.iteration == 0) {
            tile.original = true
            if (tile.quality == null) {
                tile.prospect = prospect
                tile.gain = tile.area * qualityToMse(assessed) * (prospect.belief * prospect.belief)
                keep(tile, assessed)
                when {
                    isEnough(tile, assessed) -> finish(index, Stop.QUALITY)
                    isSettled(tile, assessed) -> finish(index, Stop.PLATEAU)
                }
            }
        }
        makeRoom(index)
    }

    /** A mirror image of a tile's original was encoded, which says nothing of the kept picture. */
    fun mirrored(index: Int, ms: Double) {
        cost = cost.encoded(ms)
        val tile = tiles[index]
        tile.estimate = true
        tile.assessed = maxOf(tile.assessed, tile.quality ?: 0.0)
        makeRoom(index)
    }

    /** A tile's original was encoded again. */
    fun recalled(index: Int, ms: Double) {
        cost = cost.encoded(ms)
        tiles[index].original = true
        makeRoom(index)
    }

    /**
     * An iteration of a tile ended with a predicted quality; NaN says that the result was broken and thrown away.
     *
     * [difference]: of a view, the mean squared difference of its restoration from the mean that it joined.
     */
    fun refined(index: Int, quality: Double, ms: Double, difference: Double) {
        cost = cost.refined(ms)
        val tile = tiles[index]
        tile.iteration += 1
        tile.estimate = false
        if (quality.isNaN()) {
            finish(index, Stop.BROKEN)
            return
        }
        val kept = keeps(index, quality)
        if (kept) keep(tile, quality)
        tile.gain = tile.area * expected(tile, quality, difference)
        val forced = tile.iteration < policy.minIterations
        when {
            kept && isEnough(tile, quality) -> finish(index, Stop.QUALITY)
            !kept && !forced -> finish(index, Stop.REGRESSION)
            isSettled(tile, quality) -> finish(index, Stop.PLATEAU)
            tile.iteration >= policy.maxIterations -> finish(index, Stop.ITERATIONS)
        }
        makeRoom(index)
    }

    /** Whether the picture shall show what a refine gave, by its predicted quality; no when that is NaN. */
    fun keeps(index: Int, quality: Double): Boolean =
        !quality.isNaN() && (!policy.rollback || quality - tiles[index].assessed >= -TOLERANCE)

    /** The caller wants no more; the best so far stands. Where nothing was left to do, that is the reason still. */
    fun cancel() {
        reason = reason ?: if (open.isEmpty()) last else Stop.CANCELLED
    }

    /** A step passed the deadline and was left; the best so far stands. */
    fun late() {
        reason = reason ?: Stop.BUDGET
    }

    /** Whether tiles are encoded, or were, before the first is refined. */
    val surveys: Boolean get() = surveyed.isNotEmpty()

    /** Of the picture as kept: that of the mean squared error of its tiles, as far as they were assessed; 0 before. */
    val quality: Double
        get() = when {
            tiles.size == 1 -> tiles[0].quality ?: 0.0
            known > 0.0 -> mseToQuality(error / known)
            else -> 0.0
        }

    /** The highest iteration that any tile keeps. */
    val bestIteration: Int get() = tiles.maxOf { it.bestIteration }

    /** Upper estimate of what is still needed to end a tile's next iteration, in milliseconds. */
    fun predictedMs(index: Int): Double {
        val tile = tiles[index]
        val encodes = listOf(isLookDue(tile), !tile.estimate, isOriginalMissing(tile)).count { it }
        return encodes * cost.encode.upper + cost.refine.upper
    }

    // By how much a tile's next iteration is expected to lower its error.
    //
    // Of the mean squared error of one of n views, v differs from view to view, so that their mean has v / n of it, and loses
    // v / n (n + 1) by one more. The last view and the mean of the n − 1 before differ by v n / (n − 1); before there are
    // two, v is a share of the error, by degradation. Going on after the views gains nothing.
    private fun expected(tile: TileState, quality: Double, difference: Double): Double {
        val count = tile.iteration
        return when {
            tile.view == 0 -> 0.0
            count == 1 -> tile.prospect.variance * qualityToMse(quality) / 2
            else -> difference * (count - 1) / (count * count * (count + 1))
        }
    }

    // Whether a tile of this quality has no iteration to come that is worth it, or forced.
    private fun isSettled(tile: TileState, quality: Double): Boolean {
        val worth = qualityToMse(quality) - qualityToMse(quality + policy.minGain)
        return tile.iteration >= policy.minIterations && tile.gain <= tile.area * worth
    }

    // The tile as it is now is what the picture shows.
    private fun keep(tile: TileState, quality: Double) {
        val before = tile.quality
        if (before == null) known += tile.area else error -= tile.area * qualityToMse(before)
        error += tile.area * qualityToMse(quality)
        tile.bestIteration = tile.iteration
        tile.quality = quality
    }

    private fun isLater(index: Int) = tiles[index].iteration >= max(1, policy.minIterations)

    // What is smallest goes first, of the tiles that are early alike.
    private fun urgency(index: Int): Double {
        val tile = tiles[index]
        return when {
            isLater(index) -> -tile.gain
            tile.quality == null -> if (index in surveyed) -2.0 else 0.0
            else -> if (tile.iteration == 0) -1.0 - tile.gain else 0.0
        }
    }

    private fun next(elapsedMs: Double): Int? {
        val first = open.minWith(order)
        if (fits(first, elapsedMs)) return first
        return open.sortedWith(order).firstOrNull { fits(it, elapsedMs) }
    }

    private fun fits(index: Int, elapsedMs: Double): Boolean {
        val budget = policy.budgetMs
        val forced = tiles[index].iteration < policy.minIterations
        return budget == null || forced || elapsedMs + predictedMs(index) <= budget
    }

    // Whether one iteration of every tile is forced, or predicted to fit the budget.
    private fun hasTimeForAll(): Boolean {
        val budget = policy.budgetMs
        val encode = cost.encode.upper
        return budget == null || policy.minIterations > 0 || encode + tiles.size * (encode + cost.refine.upper) <= budget
    }

    private fun step(index: Int): Action {
        val tile = tiles[index]
        return when {
            isLookDue(tile) -> Action.Look(index)
            !tile.estimate -> if (tile.view != 0) Action.Mirror(index) else Action.Encode(index)
            isOriginalMissing(tile) -> Action.Recall(index)
            else -> Action.Refine(index)
        }
    }

    // Whether the next iteration wants features that were given up; that of a mirror image reads none of the original.
    private fun isOriginalMissing(tile: TileState) = !tile.original && tile.iteration > tile.views

    private fun isLookDue(tile: TileState) = looks && roundsLookedAt < tile.looks

    private fun isGoodEnough(): Boolean {
        val wanted = policy.minQuality ?: return false
        return quality >= wanted &&
            tiles.all { it.quality != null && (it.done != null || it.iteration >= policy.minIterations) }
    }

    private fun isEnough(tile: TileState, quality: Double): Boolean {
        val wanted = policy.minQuality ?: return false
        return tile.iteration >= policy.minIterations && quality >= wanted
    }

    private fun finish(index: Int, reason: Stop) {
        val tile = tiles[index]
        tile.done = reason
        last = reason
        tile.original = false
        tile.estimate = false
        open.remove(index)
        held.remove(index)
    }

    // Gives up features of the tiles with the least to gain; an estimate goes before the original.
    private fun makeRoom(working: Int) {
        if (tiles[working].original || tiles[working].estimate) held.add(working)
        while (held.sumOf { weight(it) } > keep && held.size > 1) {
            val least = held.filter { it != working }.minWith(compareBy<Int> { tiles[it].gain }.thenByDescending { it })
            val tile = tiles[least]
            if (!(tile.estimate && tile.iteration > 0)) tile.original = false
            tile.estimate = false
            if (!tile.original) held.remove(least)
        }
    }

    private fun weight(index: Int): Int {
        // Before its first iteration a tile's estimate is its original.
        val tile = tiles[index]
        return (if (tile.original) 1 else 0) + (if (tile.estimate && tile.iteration > 0) 1 else 0)
    }
}
