/** Does what a test's job.json asks on the JVM: the demo's own code, with the shim in place of ExecuTorch's Android library. */

import com.google.gson.Gson
import com.google.gson.JsonElement
import com.google.gson.JsonObject
import com.google.gson.JsonParser
import dev.burnish.core.BenchmarkPlan
import dev.burnish.core.Bundle
import dev.burnish.core.BurnishException
import dev.burnish.core.Identity
import dev.burnish.core.Instruments
import dev.burnish.core.Pixels
import dev.burnish.core.Policy
import dev.burnish.core.Restoration
import dev.burnish.core.Restorer
import dev.burnish.core.benchmark
import dev.burnish.core.perfJson
import dev.burnish.executorch.ExecuTorchSession
import java.io.File
import kotlin.system.exitProcess
import kotlinx.coroutines.runBlocking

fun main(arguments: Array<String>) {
    val job = JsonParser.parseString(File(arguments[0]).readText()).asJsonObject
    val out = File(arguments[1])
    try {
        val bundle = Bundle.open(File(job["bundle"].asString))
        val program = job["program"]?.let { bundle.program(it.asString) } ?: bundle.firstProgram(ExecuTorchSession.PROGRAMS)
        val open = { ExecuTorchSession.load(bundle, program, 1) }
        job["benchmark"]?.asJsonObject?.let { plan ->
            val measured = runBlocking {
                benchmark(
                    bundle,
                    program,
                    BenchmarkPlan(plan["warm_up"].asInt, plan["runs"].asInt, plan["blocks"].asInt),
                    Instruments(),
                    "a test",
                    1,
                    open,
                    progress = { _, _ -> },
                )
            }
            val identity = Identity("linux-x86_64", "a test", "", 1, 0, "", "")
            out.resolve("perf.json").writeText(perfJson(bundle, "jvm", identity, listOf(measured), "2026-01-01T00:00:00+00:00", mapOf("test" to "1")))
        }
        val pictures = job["pictures"]?.asJsonArray?.map { it.asJsonObject }.orEmpty()
        if (pictures.isNotEmpty()) {
            Restorer.of(bundle, program, open(), job["feature_memory_mb"].asDouble).use { restorer ->
                pictures.forEach { restore(restorer, it, out) }
            }
        }
    } catch (error: BurnishException) {
        System.err.println("${error.javaClass.simpleName}: ${error.message}")
        exitProcess(2)
    }
}

private fun restore(restorer: Restorer, picture: JsonObject, out: File) {
    val name = picture["name"].asString
    val raw = File(picture["file"].asString).readBytes()
    val source = Pixels(picture["height"].asInt, picture["width"].asInt, raw)
    val policy = picture.getAsJsonObject("policy").entrySet().fold(Policy()) { policy, (key, value) ->
        when (key) {
            "max_iterations" -> policy.copy(maxIterations = value.asInt)
            "min_iterations" -> policy.copy(minIterations = value.asInt)
            "min_gain" -> policy.copy(minGain = value.asDouble)
            "min_quality" -> policy.copy(minQuality = value.asDouble)
            "rollback" -> policy.copy(rollback = value.asBoolean)
            else -> throw IllegalArgumentException("unknown policy $key")
        }
    }
    val degradations = picture["degradations"]?.asJsonObject?.entrySet()?.associate { it.key to it.value.asDouble }
    val stream = restorer.restore(source, policy, degradations)
    runBlocking { stream.updates.collect {} }
    val result = stream.result
    out.resolve("$name.rgb").writeBytes(result.picture.copy().data)
    out.resolve("$name.json").writeText(Gson().toJson(json(result)))
}

private fun json(result: Restoration): JsonElement = Gson().toJsonTree(
    mapOf(
        "iteration" to result.iteration,
        "quality" to result.quality,
        "reason" to result.reason.word,
        "tiles" to result.tiles,
        "program" to result.program,
        "trace" to result.trace.map {
            listOf(it.ran.word, it.tile, it.iteration, it.quality?.takeUnless { q -> q.isNaN() }, it.prospect, it.difference)
        },
        "steps" to result.steps.map {
            mapOf("iteration" to it.iteration, "quality" to it.quality, "gates" to it.gates, "degradations" to it.degradations)
        },
    ),
)
