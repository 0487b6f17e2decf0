package dev.burnish.core

import java.io.File
import java.io.IOException

/** What a Linux or Android kernel says of the device just now; null where it does not say. Android lets apps read little. */
open class Instruments {
    /** Resident bytes of this process. */
    open fun residentBytes(): Long = kilobytes("/proc/self/status", "VmRSS:") ?: 0

    /** Bytes that programs can still have. */
    open fun freeBytes(): Long? = kilobytes("/proc/meminfo", "MemAvailable:")

    /** °C of the hottest processor. */
    open fun temperatureC(): Double? {
        val zones = File("/sys/class/thermal").listFiles { file -> file.name.startsWith("thermal_zone") }.orEmpty()
        return zones.filter { zone -> read(File(zone, "type"))?.contains(PROCESSOR) == true }
            .mapNotNull { zone -> read(File(zone, "temp"))?.toDoubleOrNull() }
            .map { if (it > HOTTEST) it / 1000 else it }
            .filter { it in 1.0..HOTTEST }
            .maxOrNull()
    }

    /** What governs the processors' clock. */
    open fun governor(): String? {
        val processors = File("/sys/devices/system/cpu").listFiles { file -> file.name.matches(CORE) }.orEmpty()
        return processors.sorted().mapNotNull { read(File(it, "cpufreq/scaling_governor")) }.distinct().joinToString(" ")
            .ifEmpty { null }
    }

    /** Whether the system says that it has slowed itself down. */
    open fun isThrottled(): Boolean = false

    private fun kilobytes(file: String, name: String): Long? = read(File(file))?.lineSequence()
        ?.find { it.startsWith(name) }?.filter { it.isDigit() }?.toLongOrNull()?.times(1024)

    private fun read(file: File): String? = try {
        file.readText().trim()
    } catch (_: IOException) {
        null
    } catch (_: SecurityException) {
        null
    }

    private companion object {
        const val HOTTEST = 150.0
        val PROCESSOR = Regex("cpu|soc|tj|tsens|x86_pkg|big|little", RegexOption.IGNORE_CASE)
        val CORE = Regex("cpu[0-9]+")
    }
}
