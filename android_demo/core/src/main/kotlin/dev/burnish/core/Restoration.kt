package dev.burnish.core

/** One kind of call of a program, as traces name it. */
enum class Call(val word: String) { LOOK("look"), ENCODE("encode"), MIRROR("mirror"), RECALL("recall"), REFINE("refine") }

/**
 * One call of the program; [iteration] is the tile's, 0 before its first refine.
 *
 * [quality] is assessed by an encode, predicted by a refine (NaN: broken and thrown away), null where nothing was said.
 * [prospect]: of an encode; [difference]: of a refine, that of a view from the mean that it joined, 0 of others.
 */
data class Event(
    val ran: Call,
    val tile: Int,
    val iteration: Int,
    val costMs: Double,
    val elapsedMs: Double,
    val quality: Double? = null,
    val prospect: Prospect? = null,
    val difference: Double = 0.0,
)

/**
 * The whole picture after a round of iterations; iteration 0 is the picture as it came.
 *
 * [gates] and [degradations] are means over the tiles that the round refined, as it saw them before.
 */
data class Step(
    val iteration: Int,
    val quality: Double,
    val costMs: Double,
    val elapsedMs: Double,
    val gates: Gates,
    val degradations: Map<String, Double>,
)

/**
 * What one more refine changed.
 *
 * @param iteration the tile's
 * @param region what the tile covers
 * @param patch the picture's pixels there now; null where the result did not become part of the picture
 * @param quality predicted, of the whole picture
 * @param done tiles that were refined or needed none, of [tiles]
 */
class Update(
    val iteration: Int,
    val tile: Int,
    val region: Region,
    val patch: Pixels?,
    val quality: Double,
    val elapsedMs: Double,
    val done: Int,
    val tiles: Int,
)

/**
 * The result, and how it came about.
 *
 * @param iteration the highest that a tile kept
 * @param quality predicted, of the picture in [0, 1]; 0 where nothing was assessed
 * @param steps a row a round
 * @param trace a row a call of the program
 */
class Restoration(
    val picture: Pixels,
    val iteration: Int,
    val quality: Double,
    val reason: Stop,
    val elapsedMs: Double,
    val steps: List<Step>,
    val trace: List<Event>,
    val tiles: Int,
    val program: String,
) {
    /** Whether a step gave a broken picture and was rolled back. */
    val hadBrokenStep: Boolean get() = trace.any { it.quality?.isNaN() == true }
}
