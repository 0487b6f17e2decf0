package dev.burnish.core

import com.google.gson.GsonBuilder
import com.google.gson.JsonArray
import com.google.gson.JsonNull
import com.google.gson.JsonObject
import kotlin.math.max
import kotlin.math.pow
import kotlin.math.round
import kotlin.math.sqrt

/** Milliseconds over all timed runs. */
data class Timing(
    val runs: Int,
    val meanMs: Double,
    val deviationMs: Double,
    val p50Ms: Double,
    val p90Ms: Double,
    val p99Ms: Double,
    val leastMs: Double,
) {
    companion object {
        /** Statistics of milliseconds. Percentiles are measured values (nearest rank), the median apart. */
        fun of(values: List<Double>): Timing {
            val sorted = values.sorted()
            val mean = sorted.average()
            fun percentile(share: Int) = sorted[max(0, (share * sorted.size + 99) / 100 - 1)]
            return Timing(
                runs = sorted.size,
                meanMs = rounded(mean, 4),
                deviationMs = rounded(sqrt(sorted.sumOf { (it - mean) * (it - mean) } / sorted.size), 4),
                p50Ms = rounded(median(sorted), 4),
                p90Ms = rounded(percentile(90), 4),
                p99Ms = rounded(percentile(99), 4),
                leastMs = rounded(sorted.first(), 4),
            )
        }
    }
}

/** What a device is, as perf.json has it. [emulated]: what emulates it; its times then mean nothing. */
data class Identity(
    val platform: String,
    val model: String,
    val cpu: String,
    val cores: Int,
    val memoryBytes: Long,
    val os: String,
    val kernel: String,
    val emulated: String = "",
)

/** One program's measurement on this device; fields as in docs/devices.md. */
data class ProgramPerf(
    val program: String,
    val sha256: String,
    val runner: String,
    val threads: Int,
    val encode: Timing,
    val refine: Timing,
    val iteration: Timing,
    val drift: Double,
    val throttled: Boolean,
    val loadColdMs: Double,
    val loadWarmMs: Double,
    val firstRunMs: Double,
    val programBytes: Long,
    val processBytes: Long,
    val temperatureBefore: Double?,
    val temperatureAfter: Double?,
    val governor: String?,
    val freeBytes: Long?,
    val digest: String,
)

/**
 * perf.json as `burnish profile` writes it, of one device.
 *
 * @param device how the command line names it, such as `adb:SERIAL`
 * @param made UTC, ISO 8601
 * @param versions of the app and the libraries in it
 */
fun perfJson(
    bundle: Bundle,
    device: String,
    identity: Identity,
    programs: List<ProgramPerf>,
    made: String,
    versions: Map<String, String>,
): String {
    val row = JsonObject().apply {
        addProperty("device", device)
        add("identity", identity.json())
        add("programs", JsonArray().apply { programs.forEach { add(it.json(identity.emulated.isNotEmpty())) } })
    }
    val top = JsonObject().apply {
        addProperty("format", 1)
        addProperty("bundle", bundle.folder.name)
        addProperty("student", bundle.manifest.student)
        addProperty("made", made)
        add("versions", JsonObject().apply { versions.forEach { (name, version) -> addProperty(name, version) } })
        add("devices", JsonArray().apply { add(row) })
    }
    return GsonBuilder().setPrettyPrinting().serializeNulls().create().toJson(top) + "\n"
}

private fun Identity.json() = JsonObject().also {
    it.addProperty("platform", platform)
    it.addProperty("model", model)
    it.addProperty("cpu", cpu)
    it.addProperty("cores", cores)
    it.addProperty("memory_bytes", memoryBytes)
    it.addProperty("os", os)
    it.addProperty("kernel", kernel)
    it.addProperty("emulated", emulated)
}

private fun ProgramPerf.json(emulated: Boolean) = JsonObject().also {
    it.addProperty("program", program)
    it.addProperty("sha256", sha256)
    it.addProperty("runner", runner)
    it.addProperty("threads", threads)
    it.addProperty("note", if (emulated) "emulated, not a measurement" else "")
    it.add("encode", encode.json())
    it.add("refine", refine.json())
    it.add("iteration", iteration.json())
    it.addProperty("drift", drift)
    it.addProperty("throttled", throttled && !emulated)
    it.addProperty("load_cold_ms", loadColdMs)
    it.addProperty("load_warm_ms", loadWarmMs)
    it.addProperty("first_run_ms", firstRunMs)
    it.addProperty("program_bytes", programBytes)
    it.addProperty("process_bytes", processBytes)
    val temperature = JsonObject()
    temperature.addOrNull("before_c", temperatureBefore)
    temperature.addOrNull("after_c", temperatureAfter)
    it.add("temperature", temperature)
    if (governor == null) it.add("governor", JsonNull.INSTANCE) else it.addProperty("governor", governor)
    it.addOrNull("free_bytes", freeBytes)
    it.addProperty("digest", digest)
}

private fun Timing.json() = JsonObject().also {
    it.addProperty("runs", runs)
    it.addProperty("mean_ms", meanMs)
    it.addProperty("deviation_ms", deviationMs)
    it.addProperty("p50_ms", p50Ms)
    it.addProperty("p90_ms", p90Ms)
    it.addProperty("p99_ms", p99Ms)
    it.addProperty("least_ms", leastMs)
}

private fun JsonObject.addOrNull(name: String, value: Number?) {
    if (value == null) add(name, JsonNull.INSTANCE) else addProperty(name, value)
}

internal fun median(sorted: List<Double>): Double {
    val half = sorted.size / 2
    return if (sorted.size % 2 == 1) sorted[half] else (sorted[half - 1] + sorted[half]) / 2
}

internal fun rounded(value: Double, digits: Int): Double {
    val scale = 10.0.pow(digits)
    return round(value * scale) / scale
}
