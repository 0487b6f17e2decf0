package dev.burnish.core

import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer
import java.security.MessageDigest
import kotlin.math.PI
import kotlin.math.max
import kotlin.math.sin
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.withContext

/** What to measure. Before each of the [blocks] the program is loaded again; [maxDrift]: above, it counts as throttled. */
data class BenchmarkPlan(val warmUp: Int = 3, val runs: Int = 50, val blocks: Int = 5, val maxDrift: Double = 1.1) {
    init {
        requireInput(warmUp >= 0 && runs >= blocks && blocks >= 1) {
            "$runs runs in $blocks blocks after $warmUp; expected a run in each block at least"
        }
    }
}

/**
 * Measures a program: encode and refine on one tile, over and over.
 *
 * The first load is called cold, though an app cannot empty the page cache. Cancelling ends it after the run in hand. Throws
 * [ProgramException], also when the same input gave different outputs.
 *
 * @param open loads the program
 * @param runner what runs it, with its version
 * @param threads as loaded
 * @param progress done and planned runs
 */
suspend fun benchmark(
    bundle: Bundle,
    program: Program,
    plan: BenchmarkPlan,
    instruments: Instruments,
    runner: String,
    threads: Int,
    open: () -> Session,
    progress: (Int, Int) -> Unit,
): ProgramPerf = withContext(Dispatchers.Default) {
    val manifest = bundle.manifest
    val image = probe(manifest.tile)
    val opened = manifest.routing.experts.take(manifest.routing.top).associateWith { 0.5 }
    val gates = gateTensor(manifest.routing, givenGates(manifest.routing, opened), manifest.rank)
    val blocks = mutableListOf<Block>()
    val temperatureBefore = instruments.temperatureC()
    val total = plan.blocks * plan.warmUp + plan.runs
    var done = 0
    for (index in 0 until plan.blocks) {
        val before = instruments.residentBytes()
        val began = System.nanoTime()
        open().use { session ->
            val block = Block(loadMs = millisSince(began))
            block.firstRunMs = session.run(image, gates).let { it.encodeMs + it.refineMs }
            val runs = plan.runs / plan.blocks + (if (index < plan.runs % plan.blocks) 1 else 0)
            repeat(plan.warmUp + runs) { number ->
                ensureActive()
                val run = session.run(image, gates)
                if (number >= plan.warmUp) block.runs.add(run)
                progress(++done, total)
            }
            block.processBytes = instruments.residentBytes()
            block.programBytes = max(0, block.processBytes - before)
            blocks.add(block)
        }
    }
    val digests = blocks.flatMap { block -> block.runs.map { it.digest } }.distinct()
    if (digests.size > 1) {
        throw ProgramException("${program.name} gave ${digests.size} different outputs for the same input; do not trust it")
    }
    val drift = blocks.last().medianMs() / blocks.first().medianMs()
    val all = blocks.flatMap { it.runs }
    val warm = blocks.drop(1).map { it.loadMs }.ifEmpty { blocks.map { it.loadMs } }
    ProgramPerf(
        program = program.name,
        sha256 = programDigest(program),
        runner = runner,
        threads = threads,
        encode = Timing.of(all.map { it.encodeMs }),
        refine = Timing.of(all.map { it.refineMs }),
        iteration = Timing.of(all.map { it.encodeMs + it.refineMs }),
        drift = rounded(drift, 4),
        throttled = drift > plan.maxDrift || instruments.isThrottled(),
        loadColdMs = rounded(blocks.first().loadMs, 3),
        loadWarmMs = rounded(median(warm.sorted()), 3),
        firstRunMs = rounded(median(blocks.map { it.firstRunMs }.sorted()), 3),
        programBytes = blocks.maxOf { it.programBytes },
        processBytes = blocks.maxOf { it.processBytes },
        temperatureBefore = temperatureBefore,
        temperatureAfter = instruments.temperatureC(),
        governor = instruments.governor(),
        freeBytes = instruments.freeBytes(),
        digest = digests.single(),
    )
}

private class TimedRun(val encodeMs: Double, val refineMs: Double, val digest: String)

private class Block(val loadMs: Double) {
    var firstRunMs = 0.0
    var programBytes = 0L
    var processBytes = 0L
    val runs = mutableListOf<TimedRun>()

    fun medianMs() = median(runs.map { it.encodeMs + it.refineMs }.sorted())
}

private fun Session.run(image: FloatBuffer, gates: FloatArray): TimedRun {
    val began = System.nanoTime()
    val encoded = encode(image)
    val encodeMs = millisSince(began)
    val between = System.nanoTime()
    val refined = refine(image, encoded, encoded, encoded.tokens, gates, REFINE)
    val refineMs = millisSince(between)
    val digest = digestOf(refined, encoded.assessment)
    encoded.release()
    return TimedRun(encodeMs, refineMs, digest)
}

private fun digestOf(refined: Refined, assessment: Assessment): String {
    val digest = MessageDigest.getInstance("SHA-256")
    val bytes = ByteBuffer.allocate(4 * refined.planes.capacity()).order(ByteOrder.LITTLE_ENDIAN)
    bytes.asFloatBuffer().put(refined.planes.duplicate())
    digest.update(bytes.array())
    val numbers = listOf(assessment.quality, assessment.granularity) + assessment.logits + refined.quality
    digest.update(numbers.joinToString().toByteArray())
    return digest.digest().toHex().take(16)
}

/** SHA-256 of the hashes of a program's files, as `burnish profile` tells exports apart. */
internal fun programDigest(program: Program): String {
    val hashes = program.files.joinToString("") { it.sha256 }
    return MessageDigest.getInstance("SHA-256").digest(hashes.toByteArray()).toHex()
}

// Gradients, waves and an edge: a tile with the frequencies of a photograph.
private fun probe(tile: Int): FloatBuffer {
    val image = ByteBuffer.allocateDirect(4 * 3 * tile * tile).order(ByteOrder.nativeOrder()).asFloatBuffer()
    for (channel in 0 until 3) {
        for (y in 0 until tile) {
            for (x in 0 until tile) {
                val wave = 0.15 * sin(2 * PI * (3 + 9 * channel) * x / tile) * sin(2 * PI * 17 * y / tile)
                val edge = if (x > tile / 3 && y > tile / 4) 0.2 else 0.0
                image.put((channel * tile + y) * tile + x, (0.25 + 0.4 * y / tile + edge + wave).toFloat().coerceIn(0f, 1f))
            }
        }
    }
    return image
}
