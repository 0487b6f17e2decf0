package dev.burnish.core

// What is kept free before the deadline for waking up and handing over; coroutines wake to the millisecond.
private const val RESERVE_MS = 2.0

/** One restoration: carries out what the controller says, tile by tile, and keeps the picture whole after each step. */
internal class Run(
    private val engine: Engine,
    private val picture: Pixels,
    policy: Policy,
    private val fixed: Gates?,
    private val began: Long,
) {
    /** What an encode said of a tile, for the refine that follows, and the method that this is to be. */
    private class Seen(val gates: Gates, val degradations: Map<String, Double>, val method: String)

    private val plan = planTiles(picture.height, picture.width, engine.tile)
    private val controller = Controller(policy, engine.cost, plan.areas, looks = plan.size > 1, keep = engine.keep)
    private val originals = HashMap<Int, Encoded>()
    private val estimates = HashMap<Int, Encoded>()
    private val seen = HashMap<Int, Seen>()
    /** Degradation logits of every round's look: a tile goes by its own round's, since a later one sees others further. */
    private val looks = mutableListOf<List<Double>>()
    /**
     * What a tile does not see of the picture it is of: tokens of the first look or, once a tile is refined, the mean of those
     * that were encoded before; null where every tile takes its own.
     */
    private var tokens: FloatArray? = null
    private val survey = mutableListOf<Surveyed>()

    private val sources = List(plan.size) { picture.view(plan.region(it)) }

    // What the next iteration starts from, with the quality that was predicted of it, and what the picture shows; they differ
    // after a forced regression.
    private val current = sources.toMutableList()
    private val predicted = DoubleArray(plan.size)
    private val kept = sources.toMutableList()
    private var canvas = picture
    private val trace = mutableListOf<Event>()
    private val rounds = Rounds(plan.areas)

    /** Any step was. */
    private var tried = false

    @Volatile
    private var isCancelled = false

    fun cancel() {
        isCancelled = true
    }

    /** Carry out steps until one more refine is done; null when the controller stops. */
    suspend fun next(): Update? {
        while (true) {
            if (isCancelled) controller.cancel()
            try {
                when (val action = controller.choose(elapsed())) {
                    is Action.Look -> takeALook(action.tile)
                    is Action.Encode -> encode(action.tile)
                    is Action.Mirror -> mirror(action.tile)
                    is Action.Recall -> recall(action.tile)
                    is Action.Refine -> return refine(action.tile)
                    Action.Stop -> {
                        val budget = controller.policy.budgetMs
                        if (budget != null && controller.reason == Stop.BUDGET && !tried) engine.refused(budget)
                        return null
                    }
                }
            } catch (_: Late) {
                controller.late()
            }
        }
    }

    /** The restoration as far as it got. */
    fun result() = Restoration(
        picture = canvas,
        iteration = controller.bestIteration,
        quality = controller.quality,
        reason = controller.reason ?: Stop.CANCELLED,
        elapsedMs = elapsed(),
        steps = rounds.rows(controller.quality),
        trace = trace.toList(),
        tiles = plan.size,
        program = engine.program.name,
    )

    /** Give all features back. */
    fun close() {
        release(originals.values + estimates.values)
        originals.clear()
        estimates.clear()
    }

    private fun elapsed() = millisSince(began)

    // A call of the program; its milliseconds, waiting for others included, are [elapsed]'s difference.
    private suspend fun <T : Any> call(index: Int, took: (Double) -> Unit, work: () -> T): T {
        tried = true
        val budget = controller.policy.budgetMs
        val forced = controller.tiles[index].iteration < controller.policy.minIterations
        val timeout = if (budget == null || forced) null else maxOf(0.0, budget - elapsed() - RESERVE_MS)
        return engine.worker.call(timeout, took, work)
    }

    private suspend fun takeALook(index: Int) {
        val before = elapsed()
        val whole = canvas
        val look = call(index, engine::encodeTook) {
            engine.encode(makeSmall(whole, engine.tile)).also { it.release() }
        }
        val ms = elapsed() - before
        val logits = look.assessment.logits
        val source = if (looks.isEmpty()) tokenSource(engine.routing, logits) else TokenSource.OWN
        if (source == TokenSource.LOOK) tokens = look.tokens
        looks += logits
        controller.looked(ms, survey = source == TokenSource.MEAN)
        record(Event(Call.LOOK, 0, controller.roundsLookedAt - 1, ms, elapsed()))
    }

    private suspend fun recall(index: Int) {
        val before = elapsed()
        originals[index] = call(index, engine::encodeTook) { engine.encode(sources[index]) }
        val ms = elapsed() - before
        controller.recalled(index, ms)
        record(Event(Call.RECALL, index, controller.tiles[index].iteration, ms, elapsed()))
        forget()
    }

    private suspend fun encode(index: Int) {
        val before = elapsed()
        val pixels = current[index]
        val encoded = call(index, engine::encodeTook) { engine.encode(pixels) }
        val ms = elapsed() - before
        val saw = see(index, encoded)
        val beliefs = saw.degradations
        val tile = controller.tiles[index]
        val iteration = tile.iteration
        if (controller.surveys && tokens == null && tile.quality == null) survey += Surveyed(tile.area, encoded.tokens)
        if (iteration == 0) originals[index] = encoded
        val quality = engine.calibrated(encoded.assessment.quality)
        val promised = prospect(engine.routing, beliefs, saw.gates)
        controller.encoded(index, quality, promised, ms)
        record(Event(Call.ENCODE, index, iteration, ms, elapsed(), quality, promised))
        if (iteration == 0) {
            rounds.started(index, if (quality.isNaN()) 0.0 else quality, beliefs)
            ended(index)
        }
        forget()
    }

    private suspend fun mirror(index: Int) {
        val before = elapsed()
        val view = controller.tiles[index].view
        val encoded = call(index, engine::encodeTook) { engine.encode(sources[index], view) }
        val ms = elapsed() - before
        see(index, encoded)
        controller.mirrored(index, ms)
        record(Event(Call.MIRROR, index, view, ms, elapsed()))
        forget()
    }

    // Routes a tile by what was said of it.
    private fun see(index: Int, encoded: Encoded): Seen {
        val said = encoded.assessment
        val routing = engine.routing
        val logits = agreedLogits(routing, looks.take(controller.tiles[index].looks), said.logits)
        val gates = fixed ?: route(routing, said.granularity, logits)
        val beliefs = routing.leaves.indices.associate { routing.leaves[it] to sigmoid(logits[it]) }
        estimates[index] = encoded
        // What a restoration left is not what a specialist learnt from, so that it takes views of the picture as it came alone.
        val tile = controller.tiles[index]
        val method = if (tile.view == tile.iteration) refiner(routing, fixed ?: beliefs) else REFINE
        return Seen(gates, beliefs, method).also { seen[index] = it }
    }

    private suspend fun refine(index: Int): Update {
        val before = elapsed()
        val last = current[index]
        val expected = predicted[index]
        val saw = seen.getValue(index)
        val gates = gateTensor(engine.routing, saw.gates, engine.rank)
        val estimate = estimates.getValue(index)
        if (survey.isNotEmpty() && tokens == null) tokens = meanTokens(survey)
        val asked = tokens ?: estimate.tokens
        val tile = controller.tiles[index]
        val view = tile.view
        val (pixels, quality, difference) = if (view != 0) {
            call(index, engine::refineTook) {
                engine.refineView(sources[index], view, estimate, asked, gates, saw.method, last, expected)
            }
        } else {
            val original = originals.getValue(index)
            call(index, engine::refineTook) { engine.refine(last, original, estimate, asked, gates, saw.method) }
        }
        // Told before what it costs is known whole: showing the result belongs to the step.
        var patch: Pixels? = null
        if (pixels != null) {
            current[index] = pixels
            predicted[index] = quality
            if (controller.keeps(index, quality)) patch = show(index, pixels)
        }
        val ms = elapsed() - before
        controller.refined(index, quality, ms, difference)
        record(Event(Call.REFINE, index, tile.iteration, ms, elapsed(), quality, difference = difference))
        rounds.refined(index, saw.gates, saw.degradations)
        ended(index)
        forget()
        return Update(
            iteration = tile.iteration,
            tile = index,
            region = plan.region(index),
            patch = patch,
            quality = controller.quality,
            elapsedMs = elapsed(),
            done = rounds.begun,
            tiles = plan.size,
        )
    }

    // Put a tile's result into the picture, blended with its neighbours'.
    private fun show(index: Int, pixels: Pixels): Pixels {
        kept[index] = pixels
        if (plan.size == 1) {
            canvas = pixels
            return pixels
        }
        if (canvas === picture) canvas = picture.copy()
        val region = plan.region(index)
        val patch = blend(kept, plan, region)
        canvas.put(patch, region.top, region.left)
        return patch
    }

    private fun record(event: Event) {
        trace.add(event)
        val first = (event.ran == Call.LOOK || event.ran == Call.ENCODE) && event.iteration == 0
        rounds.spent(event.costMs, event.elapsedMs, first)
    }

    private fun ended(index: Int) {
        val tile = controller.tiles[index]
        rounds.reached(index, tile.iteration, tile.done != null, controller.quality)
    }

    // Lets go of the features that the controller gave up.
    private fun forget() {
        val before = HashSet(originals.values + estimates.values)
        originals.keys.removeAll { !controller.tiles[it].original }
        estimates.keys.removeAll { !controller.tiles[it].estimate }
        release(before - originals.values.toSet() - estimates.values.toSet())
    }

    private fun release(encoded: Collection<Encoded>) {
        if (encoded.isNotEmpty()) engine.worker.post { encoded.toSet().forEach { it.release() } }
    }
}

/** A tile's share of the picture, and its tokens. */
private class Surveyed(val area: Double, val tokens: FloatArray)

// Mean of tiles' tokens by their shares of the picture.
private fun meanTokens(survey: List<Surveyed>): FloatArray {
    val whole = survey.sumOf { it.area }
    return FloatArray(survey.first().tokens.size) { i -> (survey.sumOf { it.area * it.tokens[i] } / whole).toFloat() }
}
