package dev.burnish.core

import com.google.gson.JsonArray
import com.google.gson.JsonObject
import com.google.gson.JsonParser
import java.io.File
import java.nio.file.Files
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

class BundleTest {
    @get:Rule
    val scratch = TemporaryFolder()

    private lateinit var folder: File
    private lateinit var manifest: JsonObject

    @Before
    fun makeBundle() {
        folder = scratch.newFolder("some.bundle")
        val program = File(folder, "programs/executorch-xnnpack-int8/student.pte")
        program.parentFile!!.mkdirs()
        program.writeText("a program")
        manifest = JsonParser.parseString(
            """
            {"format": 1, "student": {"size": "nano", "config": {}, "parameters": 1, "macs": {}, "rank": 4},
             "tile": 64, "licence": "CC BY-SA 4.0", "weights": {"path": "w", "bytes": 0, "sha256": "${"0".repeat(64)}"},
             "routing": {"tree": {"weather": ["rain", "haze"], "detail": ["blur"]}, "threshold": -2.5, "softness": 0.5, "top": 2},
             "programs": [{"target": "executorch-xnnpack", "precision": "int8", "boundary_bytes": {"encode": 1000},
               "made_with": {"executorch": "1.5.1"}, "calibration": {"slope": 0.5, "offset": 0.25},
               "files": [{"path": "programs/executorch-xnnpack-int8/student.pte", "bytes": 9,
                          "sha256": "${sha256(program)}"}]}],
             "profiles": [{"device": "a phone", "program": "executorch-xnnpack-int8",
                           "encode_ms": [10, 1], "refine_ms": [20, 2]}]}
            """,
        ).asJsonObject
    }

    private fun open(): Bundle {
        File(folder, "bundle.json").writeText(manifest.toString())
        return Bundle.open(folder)
    }

    private fun assertRefused(word: String, work: () -> Unit) {
        val message = assertThrows(BundleException::class.java) { work() }.message!!
        assertTrue("'$message' does not say '$word'", word in message)
        assertTrue("'$message' is not one line", '\n' !in message)
    }

    private fun file(): JsonObject =
        manifest.getAsJsonArray("programs")[0].asJsonObject.getAsJsonArray("files")[0].asJsonObject

    @Test
    fun readsWhatIsThere() {
        val bundle = open()
        assertEquals(64, bundle.manifest.tile)
        assertEquals(listOf("weather", "detail", "rain", "haze", "blur"), bundle.manifest.routing.experts)
        assertEquals(setOf("haze", "low_light"), bundle.manifest.routing.whole)
        assertEquals(setOf("low_light"), bundle.manifest.routing.uneven)
        assertEquals(emptySet<String>(), bundle.manifest.routing.lookTokens)
        assertEquals(emptySet<String>(), bundle.manifest.routing.meanTokens)
        assertEquals(emptySet<String>(), bundle.manifest.routing.specialists)
        assertEquals(emptyMap<String, Double>(), bundle.manifest.routing.variance)
        val program = bundle.firstProgram(listOf("executorch-xnnpack-fp32", "executorch-xnnpack-int8"))
        assertEquals("1.5.1", program.madeWith["executorch"])
        assertEquals(0.65, program.calibration.apply(0.8), 1e-12)
        assertEquals("a program", bundle.files(program).single().readText())
        assertEquals(Estimate(20.0, 2.0), bundle.manifest.profiles.single().refine)
    }

    @Test
    fun refusesPathsThatLeave() {
        for (path in listOf("../x", "/etc/passwd", "a/../../x", "a\\b", "C:x", "a//b", "./a", "", "a\u0000b")) {
            file().addProperty("path", path)
            assertRefused("leaves the bundle") { open() }
        }
    }

    @Test
    fun refusesProgramsThatLeave() {
        file().addProperty("path", "student.safetensors")
        assertRefused("is not in programs/") { open() }
        makeBundleAgain()
        manifest.getAsJsonArray("programs")[0].asJsonObject.addProperty("target", "../../elsewhere")
        assertRefused("target") { open() }
    }

    @Test
    fun refusesLinksThatLeave() {
        val outside = scratch.newFile("outside").apply { writeText("a program") }
        val inside = File(folder, "programs/executorch-xnnpack-int8/student.pte")
        inside.delete()
        Files.createSymbolicLink(inside.toPath(), outside.toPath())
        val bundle = open()
        assertRefused("leads out") { bundle.files(bundle.manifest.programs[0]) }
    }

    @Test
    fun refusesDamagedAndMissingFiles() {
        val bundle = open()
        val inside = File(folder, "programs/executorch-xnnpack-int8/student.pte")
        inside.writeText("a Program")
        assertRefused("damaged") { bundle.files(bundle.manifest.programs[0]) }
        inside.writeText("a program and more")
        assertRefused("damaged") { bundle.files(bundle.manifest.programs[0]) }
        inside.delete()
        assertRefused("missing") { bundle.files(bundle.manifest.programs[0]) }
    }

    @Test
    fun refusesWhatIsNoBundle() {
        assertRefused("not a bundle") { Bundle.open(scratch.newFolder("empty")) }
        val texts = listOf("", "{", "[]", "null", "{'format': 1}", "{\"format\": NaN}", "{} {}", "[".repeat(100_000))
        for (text in texts) {
            File(folder, "bundle.json").writeText(text)
            assertThrows(text.take(20), BundleException::class.java) { Bundle.open(folder) }
        }
        File(folder, "bundle.json").writeText(" ".repeat((1 shl 20) + 1))
        assertRefused("bytes") { Bundle.open(folder) }
    }

    @Test
    fun refusesAnotherFormat() {
        manifest.addProperty("format", 2)
        assertRefused("format 2") { open() }
    }

    @Test
    fun saysWhatIsWrong() {
        val wrong = mapOf(
            "tile" to JsonParser.parseString("63"),
            "programs" to JsonParser.parseString("{}"),
            "licence" to JsonParser.parseString("5"),
            "student" to JsonParser.parseString("""{"size": "nano", "rank": 1.5}"""),
            "routing" to JsonParser.parseString("""{"tree": {"a": []}}"""),
            "profiles" to JsonParser.parseString("""[{"device": "d", "program": "p", "encode_ms": [1], "refine_ms": [1, 1]}]"""),
        )
        for ((name, value) in wrong) {
            makeBundleAgain()
            manifest.add(name, value)
            assertRefused(name) { open() }
            manifest.remove(name)
            if (name != "profiles") assertRefused(name) { open() }
        }
    }

    @Test
    fun aBundleSaysWhenALookIsBelieved() {
        assertEquals(1.0, open().manifest.routing.leastLikely("haze"), 0.0)
        val routing = manifest.getAsJsonObject("routing")
        routing.add("likely", JsonObject().apply { addProperty("haze", "often") })
        assertRefused("haze") { open() }
        routing.add("likely", JsonObject().apply { addProperty("haze", 0.25) })
        assertEquals(listOf(0.25, 1.0), listOf("haze", "rain").map(open().manifest.routing::leastLikely))
    }

    @Test
    fun leavesWithTokensSharedOrSpecialistsAreLists() {
        val routing = manifest.getAsJsonObject("routing")
        for ((name, leaf) in mapOf("look_tokens" to "haze", "mean_tokens" to "rain", "specialists" to "blur")) {
            routing.addProperty(name, leaf)
            assertRefused(name) { open() }
            routing.add(name, JsonArray().apply { add(leaf) })
        }
        assertEquals(setOf("haze"), open().manifest.routing.lookTokens)
        assertEquals(setOf("rain"), open().manifest.routing.meanTokens)
        assertEquals(setOf("blur"), open().manifest.routing.specialists)
    }

    @Test
    fun beliefsThatSpecialistsAskForAreNumbersByLeaf() {
        val routing = manifest.getAsJsonObject("routing")
        for (belief in listOf("\"quite\"", "0", "1")) {
            routing.add("certain", JsonParser.parseString("""{"blur": $belief}"""))
            assertRefused("certain") { open() }
        }
        routing.add("certain", JsonParser.parseString("""{"blur": 0.9}"""))
        assertEquals(mapOf("blur" to 0.9), open().manifest.routing.certain)
    }

    @Test
    fun variancesAreNumbersByLeaf() {
        val routing = manifest.getAsJsonObject("routing")
        for (wrong in listOf("0.1", "[0.1]", """{"rain": "much"}""")) {
            routing.add("variance", JsonParser.parseString(wrong))
            assertRefused("variance") { open() }
        }
        routing.add("variance", JsonParser.parseString("""{"rain": 0.25, "haze": 0}"""))
        assertEquals(mapOf("rain" to 0.25, "haze" to 0.0), open().manifest.routing.variance)
    }

    private fun makeBundleAgain() {
        folder.deleteRecursively()
        scratch.delete()
        scratch.create()
        makeBundle()
    }

    @Test
    fun namesTheProgramsThatAreThere() {
        val bundle = open()
        assertRefused("executorch-xnnpack-int8") { bundle.program("coreml-fp16") }
        manifest.add("programs", JsonArray())
        assertRefused("none") { open().firstProgram(listOf("executorch-xnnpack-int8")) }
    }
}
