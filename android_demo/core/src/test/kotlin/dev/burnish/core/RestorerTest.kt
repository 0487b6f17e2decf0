package dev.burnish.core

import java.io.File
import java.nio.FloatBuffer
import kotlin.math.abs
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.async
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertSame
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

private const val SIDE = 64

/**
 * A program in a few lines: it brightens by a level, counts what it holds, and says what the test wants. The tokens of each
 * encode are its number.
 */
private class Brighter(
    val qualities: List<Double> = listOf(0.5, 0.6, 0.7, 0.8, 0.9),
    val takesMs: Long = 0,
    val logits: List<Double> = listOf(4.0, -4.0, 1.0),
    val restores: (Float) -> Float = { it + 1f / 255 },
) : Session {
    var alive = 0
    var mostAlive = 0
    var encodes = 0
    var refines = 0
    val asked = mutableListOf<Float>()
    val methods = mutableListOf<String>()
    var closed = false
    val threads = mutableSetOf<String>()

    private inner class Held(override val assessment: Assessment, override val tokens: FloatArray) : Encoded {
        var released = false

        override fun release() {
            check(!released) { "released twice" }
            released = true
            alive -= 1
        }
    }

    override fun encode(image: FloatBuffer): Encoded {
        threads += Thread.currentThread().name
        encodes += 1
        alive += 1
        mostAlive = maxOf(mostAlive, alive)
        Thread.sleep(takesMs)
        return Held(Assessment(0.4, -9.0, logits), floatArrayOf(encodes.toFloat()))
    }

    override fun refine(
        current: FloatBuffer,
        original: Encoded,
        estimate: Encoded,
        tokens: FloatArray,
        gates: FloatArray,
        method: String,
    ): Refined {
        check(listOf(original, estimate).none { (it as Held).released }) { "refined with what was given back" }
        asked += tokens.single()
        methods += method
        Thread.sleep(takesMs)
        val result = FloatBuffer.allocate(current.capacity())
        for (i in 0 until current.capacity()) result.put(i, restores(current.get(i)))
        return Refined(result, qualities[minOf(refines++, qualities.size - 1)])
    }

    override fun close() {
        closed = true
    }
}

class RestorerTest {
    @get:Rule
    val scratch = TemporaryFolder()

    private fun restorer(
        session: Session,
        featureMemoryMb: Double = Restorer.FEATURE_MEMORY_MB,
        lookTokens: String = "[]",
        meanTokens: String = "[]",
        specialists: String = "[]",
    ): Restorer {
        File(scratch.root, "bundle.json").writeText(
            """
            {"format": 1, "student": {"size": "nano", "rank": 2}, "tile": $SIDE, "licence": "none",
             "routing": {"tree": {"weather": ["rain", "haze"], "detail": ["blur"]},
                         "look_tokens": $lookTokens, "mean_tokens": $meanTokens, "specialists": $specialists},
             "programs": [{"target": "t", "precision": "p", "files": [], "boundary_bytes": {"encode": 1048576}}]}
            """,
        )
        val bundle = Bundle.open(scratch.root)
        return Restorer.of(bundle, bundle.program("t-p"), session, featureMemoryMb)
    }

    private fun picture(height: Int, width: Int) =
        Pixels(height, width, ByteArray(3 * height * width) { (10 + it * 7 % 200).toByte() })

    @Test
    fun refinesUntilTheIterationsAreUsed() = runBlocking {
        val session = Brighter()
        restorer(session).use { restorer ->
            val source = picture(50, 40)
            val stream = restorer.restore(source, Policy(maxIterations = 5, minGain = -1.0))
            val updates = stream.updates.toList()
            val result = stream.result
            assertEquals(listOf(1, 2, 3, 4, 5), updates.map { it.iteration })
            assertEquals(Stop.ITERATIONS, result.reason)
            assertEquals(5, result.iteration)
            assertEquals(listOf(0, 1, 2, 3, 4, 5), result.steps.map { it.iteration })
            assertEquals(listOf("encode", "mirror", "mirror", "mirror", "encode"), encodesOf(result))
            // What is done to every pixel alike is done to the mirror images too, and so to the mean.
            assertArrayEquals(ByteArray(source.data.size) { (source.data[it] + 2).toByte() }, result.picture.copy().data)
            assertEquals(setOf("burnish"), session.threads)
            assertEquals("every estimate's own tokens", listOf(1f, 2f, 3f, 4f, 5f), session.asked)
        }
    }

    @Test
    fun whatStandsUprightIsNotTurned() = runBlocking {
        restorer(Brighter()).use { restorer ->
            val stream = restorer.restore(picture(50, 40), Policy(maxIterations = 4, minGain = -1.0), mapOf("haze" to 0.7))
            stream.updates.toList()
            assertEquals(listOf("encode", "mirror", "encode", "encode"), encodesOf(stream.result))
        }
    }

    // What was encoded before each refine.
    private fun encodesOf(result: Restoration) = result.trace.chunked(2).map { (encode, refine) ->
        assertEquals(Call.REFINE, refine.ran)
        encode.ran.word
    }

    @Test
    fun aLargePictureIsWholeAfterEveryStep() = runBlocking {
        val session = Brighter()
        restorer(session, lookTokens = """["haze", "rain"]""").use { restorer ->
            val source = picture(100, 150)
            val stream = restorer.restore(source, Policy(maxIterations = 1))
            val shown = source.copy()
            stream.updates.collect { update -> update.patch?.let { shown.put(it, update.region.top, update.region.left) } }
            val result = stream.result
            assertTrue(result.tiles > 4)
            assertArrayEquals(shown.data, result.picture.data)
            for (i in shown.data.indices) {
                val gain = (shown.data[i].toInt() and 0xff) - (source.data[i].toInt() and 0xff)
                assertTrue("value $i rose by $gain", gain in 0..1)
            }
            assertEquals(Call.LOOK, result.trace.first().ran)
            assertEquals("the look's tokens for all", listOf(1f), session.asked.distinct())
        }
    }

    @Test
    fun tilesAskTheMeanOfThoseThatAreEncodedFirst() = runBlocking {
        val areas = planTiles(100, 150, SIDE).areas
        for (room in listOf(areas.size, 3)) {
            val session = Brighter()
            restorer(session, featureMemoryMb = room.toDouble(), meanTokens = """["haze", "rain"]""").use { restorer ->
                val stream = restorer.restore(picture(100, 150), Policy(maxIterations = 3, minGain = -1.0))
                stream.updates.toList()
                val surveyed = stream.result.trace.takeWhile { it.ran != Call.REFINE }.drop(1)
                assertEquals(List(room) { Call.ENCODE to it * areas.size / room }, surveyed.map { it.ran to it.tile })
                // The first encode is the look's.
                val sum = surveyed.withIndex().sumOf { (i, event) -> areas[event.tile] * (i + 2) }
                val mean = (sum / surveyed.sumOf { areas[it.tile] }).toFloat()
                assertEquals(List(3 * areas.size) { mean }, session.asked)
            }
        }
    }

    @Test
    fun featuresAreGivenBack() = runBlocking {
        for ((lookTokens, meanTokens) in listOf("[]" to "[]", """["rain"]""" to "[]", "[]" to """["rain"]""")) {
            val session = Brighter()
            val restorer = restorer(session, featureMemoryMb = 2.0, lookTokens, meanTokens)
            restorer.restore(picture(100, 150), Policy(maxIterations = 3, minGain = -1.0)).updates.toList()
            restorer.warmUp(1)
            assertEquals("held at most: two, the one in hand and its estimate", true, session.mostAlive <= 4)
            restorer.close()
            while (!session.closed) Thread.sleep(1)
            assertEquals(0, session.alive)
        }
    }

    @Test
    fun aBudgetOfZeroGivesThePictureItself() = runBlocking {
        restorer(Brighter()).use { restorer ->
            restorer.warmUp()
            val source = picture(64, 64)
            val stream = restorer.restore(source, Policy(budgetMs = 0.0))
            assertTrue(stream.updates.toList().isEmpty())
            assertSame(source, stream.result.picture)
            assertEquals(Stop.BUDGET, stream.result.reason)
        }
    }

    @Test
    fun aStepThatHangsIsLeftAtTheDeadline() = runBlocking {
        restorer(Brighter(takesMs = 2_000)).use { restorer ->
            // Nothing is known of the cost, so the first step is tried.
            val began = System.nanoTime()
            val stream = restorer.restore(picture(64, 64), Policy(budgetMs = 100.0))
            stream.updates.toList()
            assertEquals(Stop.BUDGET, stream.result.reason)
            assertTrue(millisSince(began) < 1_500)
        }
    }

    @Test
    fun cancellingKeepsTheBestSoFar() = runBlocking {
        restorer(Brighter(takesMs = 2)).use { restorer ->
            val stream = restorer.restore(picture(64, 64), Policy(maxIterations = 1000, minGain = -1.0, rollback = false))
            stream.updates.collect { if (it.iteration == 2) stream.cancel() }
            assertEquals(Stop.CANCELLED, stream.result.reason)
            assertTrue(stream.result.iteration in 2..999)
        }
    }

    @Test
    fun cancellingTheCollectorEndsTheRestoration() = runBlocking {
        val session = Brighter(takesMs = 2)
        restorer(session).use { restorer ->
            val endless = Policy(maxIterations = 1_000_000, minGain = -1.0, rollback = false)
            val stream = restorer.restore(picture(64, 64), endless)
            stream.updates.first()
            val job = launch { restorer.restore(picture(64, 64), endless).updates.collect {} }
            Thread.sleep(50)
            job.cancel(CancellationException("enough"))
            job.join()
            restorer.warmUp(0)
            val refines = session.refines
            Thread.sleep(50)
            assertEquals(refines, session.refines)
        }
    }

    @Test
    fun closingWhileARestorationRunsIsNoFailure() = runBlocking {
        val session = Brighter(takesMs = 5)
        val restorer = restorer(session)
        val stream = restorer.restore(picture(64, 64), Policy(maxIterations = 1_000, minGain = -1.0, rollback = false))
        stream.updates.first()
        restorer.close()
        while (!session.closed) Thread.sleep(1)
        assertTrue(stream.result.iteration >= 1)
    }

    @Test
    fun brokenResultsAreThrownAway() = runBlocking {
        for (bad in listOf<(Float) -> Float>({ Float.NaN }, { Float.POSITIVE_INFINITY }, { 0f })) {
            restorer(Brighter(restores = bad)).use { restorer ->
                val source = picture(64, 64)
                val stream = restorer.restore(source, Policy())
                assertNull(stream.updates.toList().single().patch)
                assertEquals(Stop.BROKEN, stream.result.reason)
                assertTrue(stream.result.hadBrokenStep)
                assertArrayEquals(source.data, stream.result.picture.copy().data)
            }
        }
    }

    @Test
    fun severalRestorationsShareASession() = runBlocking {
        val session = Brighter(takesMs = 1)
        restorer(session).use { restorer ->
            val source = picture(90, 70)
            val results = List(4) {
                async { restorer.restore(source, Policy(maxIterations = 2)).let { it.updates.toList(); it.result } }
            }.map { it.await() }
            for (result in results) assertArrayEquals(results[0].picture.data, result.picture.data)
            assertEquals(setOf("burnish"), session.threads)
        }
    }

    @Test
    fun failuresOfTheProgramReachTheCaller() {
        restorer(Brighter(restores = { throw ProgramException("the program failed") })).use { restorer ->
            assertThrows(ProgramException::class.java) {
                runBlocking { restorer.restore(picture(64, 64), Policy()).updates.toList() }
            }
        }
        restorer(Brighter(restores = { throw OutOfMemoryError("no room") })).use { restorer ->
            assertThrows(OutOfMemoryError::class.java) {
                runBlocking { restorer.restore(picture(64, 64), Policy()).updates.toList() }
            }
        }
    }

    @Test
    fun gatesCanBeGiven() = runBlocking {
        restorer(Brighter()).use { restorer ->
            val stream = restorer.restore(picture(64, 64), Policy(maxIterations = 1), mapOf("rain" to 0.7))
            stream.updates.toList()
            assertEquals(0.7, stream.result.steps[1].gates.getValue("rain"), 1e-12)
            assertEquals(0.0, stream.result.steps[1].gates.getValue("haze"), 1e-12)
            assertThrows(InputException::class.java) { restorer.restore(picture(64, 64), Policy(), mapOf("fog" to 1.0)) }
        }
        Unit
    }

    @Test
    fun aSpecialistRefinesWhatHasItsLeafAlone() = runBlocking {
        val several = listOf(4.0, -4.0, 1.0)
        val alone = listOf(4.0, -4.0, -4.0)
        val cases = listOf(
            Triple(several, null, "refine"),
            Triple(alone, null, "refine_rain"),
            Triple(several, mapOf("weather" to 1.0, "rain" to 0.7), "refine_rain"),
            Triple(alone, mapOf("rain" to 0.5), "refine"),
        )
        for ((logits, given, method) in cases) {
            val session = Brighter(logits = logits)
            restorer(session, specialists = """["haze", "rain"]""").use { restorer ->
                restorer.restore(picture(64, 64), Policy(maxIterations = 2, minGain = -1.0), given).updates.toList()
            }
            assertEquals("a picture and its mirror image", listOf(method, method), session.methods)
        }
    }

    @Test
    fun whatARestorationLeftIsNoSpecialists() = runBlocking {
        val session = Brighter(logits = listOf(4.0, -4.0, -4.0))
        restorer(session, specialists = """["haze", "rain"]""").use { restorer ->
            val policy = Policy(maxIterations = 5, minIterations = 5, rollback = false)
            restorer.restore(picture(64, 64), policy).updates.toList()
        }
        assertEquals(List(4) { "refine_rain" } + "refine", session.methods)
    }

    @Test
    fun specialistsWarmUpOnceAndSayNothingOfTheCost() = runBlocking {
        val session = Brighter(takesMs = 1)
        restorer(session, specialists = """["haze", "rain"]""").use { restorer ->
            restorer.warmUp(0)
            assertEquals(listOf("refine", "refine_haze", "refine_rain"), session.methods)
            assertEquals(0.0, restorer.iterationMs, 0.0)
            session.methods.clear()
            restorer.warmUp(2)
            assertEquals(listOf("refine", "refine_haze", "refine_rain", "refine", "refine"), session.methods)
        }
    }

    @Test
    fun aPolicyOutOfRangeIsRefused() {
        val policies = listOf<() -> Policy>(
            { Policy(budgetMs = -1.0) },
            { Policy(budgetMs = Double.NaN) },
            { Policy(minQuality = 1.5) },
            { Policy(maxIterations = -1) },
            { Policy(minIterations = -1) },
            { Policy(minGain = Double.POSITIVE_INFINITY) },
        )
        for (policy in policies) assertThrows(InputException::class.java) { policy() }
    }

    @Test
    fun aMirrorImageJoinsTheMean() {
        val pixels = Pixels(5, 3, ByteArray(45) { (it * 5).toByte() })
        val (straight, turned) = List(2) { FloatBuffer.allocate(3 * 8 * 8) }
        packTile(pixels, 8, straight)
        // With left and right exchanged, upside down, both.
        val places = listOf<(Int, Int) -> Int>({ y, x -> 8 * y + 7 - x }, { y, x -> 8 * (7 - y) + x }, { y, x -> 63 - 8 * y - x })
        for ((view, place) in (1..3).zip(places)) {
            packTile(pixels, 8, turned, view)
            for (i in 0 until 192) assertEquals(straight.get(i), turned.get(i / 64 * 64 + place(i / 8 % 8, i % 8)), 0f)
            val same = joined(straight, view, turned, 8)
            assertEquals(0.0, same.difference, 0.0)
            for (i in 0 until 192) {
                assertEquals(straight.get(i), same.planes.get(i), 1e-7f)
                turned.put(i, 2f)
            }
            val white = joined(straight, view, turned, 8)
            for (i in 0 until 192) assertEquals((view * straight.get(i) + 1) / (view + 1), white.planes.get(i), 0f)
            val apart = (0 until 192).sumOf { (1.0 - straight.get(it)).let { apart -> apart * apart } } / 192
            assertEquals(apart, white.difference, 1e-6)
        }
    }

    @Test
    fun smallPicturesAreMirroredIntoATile() {
        val pixels = Pixels(2, 3, ByteArray(18) { (it * 10).toByte() })
        val out = FloatBuffer.allocate(3 * 8 * 8)
        packTile(pixels, 8, out)
        // Rows 0 1 1 0 0 1 1 0, columns 0 1 2 2 1 0 0 1.
        for ((y, row) in listOf(0, 1, 1, 0, 0, 1, 1, 0).withIndex()) {
            for ((x, column) in listOf(0, 1, 2, 2, 1, 0, 0, 1).withIndex()) {
                for (channel in 0 until 3) {
                    val expected = (row * 9 + column * 3 + channel) * 10 / 255f
                    assertTrue(abs(expected - out.get((channel * 8 + y) * 8 + x)) < 1e-6f)
                }
            }
        }
        assertArrayEquals(pixels.data, unpackTile(out, 8, 2, 3).data)
    }
}
