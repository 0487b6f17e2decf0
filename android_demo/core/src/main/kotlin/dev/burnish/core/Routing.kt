package dev.burnish.core

import kotlin.math.exp

/** Every expert's weight in [0, 1], in the order of the stacked ranks. */
typealias Gates = Map<String, Double>

/** Whose tokens a refine of a tile asks. */
enum class TokenSource(val word: String) { OWN("own"), LOOK("look"), MEAN("mean") }

/**
 * What the assessment of a picture as it came promises of its restoration.
 *
 * @param belief in the likeliest degradation
 * @param variance the share of a restoration's mean squared error that differs from view to view
 * @param upright whether it is not to be turned upside down
 */
data class Prospect(val belief: Double, val variance: Double, val upright: Boolean)

/** A logit above which what is said of a whole picture is believed (a belief of 0.73). */
private const val LIKELY = 1.0

/**
 * The degradation tree and the constants of routing, as bundle.json holds them.
 *
 * @param tree parents, each with its leaves, in the order of the experts' ranks
 * @param threshold τ: the granularity (log-variance) at which leaf and parent share equally
 * @param softness s
 * @param top K: gates kept
 * @param whole leaves that a look at the whole picture judges
 * @param likely logit above which it is believed, by leaf; 1 of others
 * @param uneven of these, those that tiles judge too
 * @param lookTokens leaves of which the first look tells tiles more by its tokens than their own tell
 * @param meanTokens leaves of which tiles tell more by the mean of their tokens than each by its own
 * @param specialists leaves with a refiner of their own, for pictures that have nothing else
 * @param certain belief above which a leaf's specialist is asked, by leaf; 0.5 of others
 * @param variance share of a restoration's mean squared error that differs from view to view, by leaf; 0.1 of others
 */
data class Routing(
    val tree: Map<String, List<String>>,
    val threshold: Double = -3.0,
    val softness: Double = 0.7,
    val top: Int = 4,
    val whole: Set<String> = setOf("haze", "low_light"),
    val likely: Map<String, Double> = emptyMap(),
    val uneven: Set<String> = setOf("low_light"),
    val lookTokens: Set<String> = emptySet(),
    val meanTokens: Set<String> = emptySet(),
    val specialists: Set<String> = emptySet(),
    val certain: Map<String, Double> = emptyMap(),
    val variance: Map<String, Double> = emptyMap(),
) {
    val leaves: List<String> = tree.values.flatten()

    /** Parents, then leaves. */
    val experts: List<String> = tree.keys.toList() + leaves

    /** Logit above which a look is believed of a [leaf]. */
    fun leastLikely(leaf: String): Double = likely[leaf] ?: LIKELY
}

/** Logistic function, without overflow; 0 for NaN: what a broken assessment says is not believed. */
fun sigmoid(x: Double): Double = when {
    x.isNaN() -> 0.0
    x >= 0 -> 1.0 / (1.0 + exp(-x))
    else -> exp(x) / (1.0 + exp(x))
}

/**
 * Gates of every expert, from an assessment's granularity and degradation logits (one a leaf).
 *
 * Confidence c = sigmoid((τ − granularity) / s) splits each belief between the leaf, c·p(leaf), and its parent,
 * (1 − c)·max p(leaves) (UniRestorer); all but the largest K become 0 (UIR-LoRA).
 */
fun route(routing: Routing, granularity: Double, logits: List<Double>): Gates {
    require(logits.size == routing.leaves.size) { "${logits.size} logits for ${routing.leaves.size} leaves" }
    val confidence = sigmoid((routing.threshold - granularity) / routing.softness)
    val belief = routing.leaves.zip(logits.map(::sigmoid)).toMap()
    val gates = LinkedHashMap<String, Double>()
    for ((parent, leaves) in routing.tree) gates[parent] = (1 - confidence) * leaves.maxOf { belief.getValue(it) }
    for ((leaf, p) in belief) gates[leaf] = confidence * p
    // A stable sort: ties go to the expert that comes first.
    val kept = gates.keys.sortedByDescending { gates.getValue(it) }.take(routing.top).toSet()
    return gates.mapValues { (name, gate) -> if (name in kept) gate else 0.0 }
}

/**
 * A tile's degradation logits: of the leaves in [Routing.whole] its look's, if it says anything, and −∞ where that is not
 * likely. Of those in [Routing.uneven] the larger of both, and where the look's is not likely their sum, as of independent
 * evidence, or −∞ where that is not above [LIKELY]: a gate that is half open does harm.
 *
 * [looks] are all up to the one that the tile goes by, the last; none for a picture of one tile. What the first one found
 * unlikely no later one finds, but for leaves in [Routing.uneven]: restoring adds no degradation.
 */
fun agreedLogits(routing: Routing, looks: List<List<Double>>, tile: List<Double>): List<Double> {
    if (looks.isEmpty()) return tile
    return routing.leaves.indices.map {
        val (leaf, seen, own) = Triple(routing.leaves[it], looks.last()[it], tile[it])
        val denied = looks.first()[it] <= 0.0
        when {
            leaf !in routing.whole || seen.isNaN() -> own
            leaf !in routing.uneven || own.isNaN() -> if (seen > routing.leastLikely(leaf) && !denied) seen else Double.NEGATIVE_INFINITY
            seen > routing.leastLikely(leaf) -> maxOf(seen, own)
            else -> if (seen + own > LIKELY) seen + own else Double.NEGATIVE_INFINITY
        }
    }
}

/**
 * Whose tokens tiles take after a first look with these degradation logits: the look's where it finds a leaf in
 * [Routing.lookTokens] likely, else the mean of all tiles' where one in [Routing.meanTokens] is likelier than not, else each its
 * own.
 */
fun tokenSource(routing: Routing, look: List<Double>): TokenSource {
    val told = routing.leaves.zip(look)
    return when {
        told.any { (leaf, ofLook) -> leaf in routing.lookTokens && ofLook > routing.leastLikely(leaf) } -> TokenSource.LOOK
        told.any { (leaf, ofLook) -> leaf in routing.meanTokens && ofLook > 0 } -> TokenSource.MEAN
        else -> TokenSource.OWN
    }
}

/**
 * The method that refines a tile: the specialist's of the likeliest leaf where no other is believed above 0.5, else [REFINE].
 *
 * A specialist is asked above a belief of 0.5, or what [Routing.certain] says of its leaf; of equal beliefs the leaf that comes first
 * is the likeliest.
 *
 * @param beliefs in leaves of the picture as it came, or the weights of them that a caller stated
 */
fun refiner(routing: Routing, beliefs: Map<String, Double>): String {
    val likeliest = routing.leaves.maxBy { beliefs.getValue(it) }
    val alone = routing.leaves.count { beliefs.getValue(it) > 0.5 } <= 1
    val asked = likeliest in routing.specialists && beliefs.getValue(likeliest) > (routing.certain[likeliest] ?: 0.5)
    return if (alone && asked) specialistMethod(likeliest) else REFINE
}

// See [Routing.variance].
private const val UNKNOWN_VARIANCE = 0.1

/**
 * From beliefs in leaves and every expert's gate, which a caller may have stated: a leaf is believed as far as the larger of
 * both. A picture stays upright where a leaf in [Routing.whole], which light from above gives away, is believed above 0.5; its
 * variance is the mean of its leaves', weighted by belief.
 */
fun prospect(routing: Routing, degradations: Map<String, Double>, gates: Gates): Prospect {
    val beliefs = routing.leaves.associateWith { maxOf(degradations.getValue(it), gates.getValue(it)) }
    val total = beliefs.values.sum()
    val differing = beliefs.entries.sumOf { (leaf, belief) -> belief * (routing.variance[leaf] ?: UNKNOWN_VARIANCE) }
    return Prospect(
        belief = (beliefs.values + gates.values).max(),
        variance = if (total > 0) differing / total else 0.0,
        upright = beliefs.any { (leaf, belief) -> leaf in routing.whole && belief > 0.5 },
    )
}

/** Gates a caller states: expert → weight in [0, 1]; the others are 0. Throws [InputException]. */
fun givenGates(routing: Routing, degradations: Map<String, Double>): Gates {
    for ((name, weight) in degradations) {
        requireInput(name in routing.experts) {
            "unknown degradation '$name'; expected one of ${routing.experts.joinToString()}"
        }
        requireInput(weight in 0.0..1.0) { "weight of $name is $weight; expected a number in [0, 1]" }
    }
    return routing.experts.associateWith { degradations[it] ?: 0.0 }
}

/** The program's gates: every expert's repeated over its [rank]. */
fun gateTensor(routing: Routing, gates: Gates, rank: Int): FloatArray =
    FloatArray(routing.experts.size * rank) { gates.getValue(routing.experts[it / rank]).toFloat() }
