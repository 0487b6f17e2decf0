package dev.burnish.core

import java.io.Closeable
import java.util.concurrent.atomic.AtomicBoolean
import kotlin.math.max
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.flow.flowOn

/** A loaded program, ready to restore pictures of any size within a budget. Anyone may ask; steps run one after the other. */
class Restorer private constructor(private val engine: Engine) : Closeable {
    /** The program's name. */
    val program: String get() = engine.program.name

    /** Side of a tile in pixels. */
    val tile: Int get() = engine.tile

    /** Degradations a caller may state himself, parents before leaves. */
    val experts: List<String> get() = engine.routing.experts

    /** What one iteration of one tile is expected to take at most, in milliseconds; 0 before anything ran. */
    val iterationMs: Double get() = engine.cost.encode.upper + engine.cost.refine.upper

    /** Run all methods, so that caches are warm and the first budget is kept from a measured cost. */
    suspend fun warmUp(repetitions: Int = 3) {
        val blank = Pixels(tile, tile).also { it.data.fill(0x80.toByte()) }
        val gates = gateTensor(engine.routing, givenGates(engine.routing, emptyMap()), engine.rank)
        val specialists = engine.routing.specialists.map(::specialistMethod)
        for (repetition in 0..repetitions) {
            // The first run allocates and says nothing of the cost; specialists have that one alone.
            val counts = repetition > 0
            val encoded = engine.worker.call(null, { if (counts) engine.encodeTook(it) }) { engine.encode(blank) }
            for (method in if (counts) listOf(REFINE) else listOf(REFINE) + specialists) {
                engine.worker.call(null, { if (counts) engine.refineTook(it) }) {
                    engine.refine(blank, encoded, encoded, encoded.tokens, gates, method)
                }
            }
            engine.worker.post { encoded.release() }
        }
    }

    /**
     * Restore a picture: collect [Stream.updates], then read [Stream.result]. The clock starts here.
     *
     * The result is there within the policy's budget: when no iteration fits, it is the picture itself. [degradations] sets
     * the experts' gates by hand: name → weight in [0, 1]. Throws [InputException].
     */
    fun restore(picture: Pixels, policy: Policy, degradations: Map<String, Double>? = null): Stream {
        val began = System.nanoTime()
        val fixed = degradations?.let { givenGates(engine.routing, it) }
        return Stream(Run(engine, picture, policy, fixed, began))
    }

    /** Unload the program, after what is running. */
    override fun close(): Unit = engine.close()

    companion object {
        const val FEATURE_MEMORY_MB: Double = 192.0

        /**
         * A restorer for a loaded program of a bundle, which it closes in the end.
         *
         * [featureMemoryMb] bounds the features of large pictures' tiles; what is beyond it is encoded again.
         */
        fun of(bundle: Bundle, program: Program, session: Session, featureMemoryMb: Double = FEATURE_MEMORY_MB): Restorer {
            val manifest = bundle.manifest
            // An upper limit of what an encode gives out: a tile in, everything else out.
            val bytes = program.boundaryBytes["encode"] ?: (64L * manifest.tile * manifest.tile)
            // Of several classes of devices the slowest: which of them this one is like is not known, and a deadline is to hold.
            val seed = manifest.profiles.filter { it.program == program.name }.maxByOrNull { it.encode.mean + it.refine.mean }
            val engine = Engine(
                session = session,
                program = program,
                tile = manifest.tile,
                rank = manifest.rank,
                routing = manifest.routing,
                keep = max(1, (featureMemoryMb * (1 shl 20) / max(1L, bytes)).toInt()),
                cost = seed?.let { CostModel(it.encode, it.refine) } ?: CostModel(),
            )
            return Restorer(engine)
        }
    }
}

/** A restoration that is watched while it runs. */
class Stream internal constructor(private val run: Run) {
    private val collected = AtomicBoolean()

    /**
     * One update a refine, until the controller stops; to be collected once.
     *
     * Steps go on while an update is handled. Cancelling the collector ends the restoration after the step that is running.
     */
    val updates: Flow<Update> = flow {
        check(collected.compareAndSet(false, true)) { "the updates of a restoration can be collected once" }
        try {
            while (true) emit(run.next() ?: break)
        } finally {
            run.close()
        }
    }.flowOn(Dispatchers.Default)

    /** End after the step that is running; may be called from any thread. */
    fun cancel(): Unit = run.cancel()

    /** The restoration as far as it got; to be read once the updates have ended. */
    val result: Restoration get() = run.result()
}
