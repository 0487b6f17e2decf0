package dev.burnish.demo

import android.app.ActivityManager
import android.content.Context
import android.os.Build
import android.os.PowerManager
import androidx.annotation.StringRes
import dev.burnish.core.Identity
import dev.burnish.core.Instruments
import kotlin.math.max
import kotlinx.coroutines.sync.Mutex

/** What this phone is, and how it is just now. */
class Phone(context: Context) : Instruments() {
    private val power = context.getSystemService(PowerManager::class.java)
    private val activities = context.getSystemService(ActivityManager::class.java)

    val cores: Int = Runtime.getRuntime().availableProcessors()

    /** As many as most phones have fast cores; the slow ones would be waited for. */
    val threads: Int = max(1, cores / 2)

    val isEmulator: Boolean =
        Build.HARDWARE in setOf("goldfish", "ranchu") || Build.FINGERPRINT.startsWith("generic") || "sdk_gphone" in Build.PRODUCT

    val identity: Identity = Identity(
        platform = "android-" + if (Build.SUPPORTED_ABIS.firstOrNull() == "arm64-v8a") "arm64" else "x86_64",
        model = "${Build.MANUFACTURER} ${Build.MODEL}",
        cpu = if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.S) Build.SOC_MODEL else Build.HARDWARE,
        cores = cores,
        memoryBytes = memory().totalMem,
        os = "Android ${Build.VERSION.RELEASE}",
        kernel = System.getProperty("os.version").orEmpty(),
        emulated = if (isEmulator) "Android emulator" else "",
    )

    override fun freeBytes(): Long = memory().availMem

    override fun isThrottled(): Boolean =
        Build.VERSION.SDK_INT >= Build.VERSION_CODES.Q && power.currentThermalStatus >= PowerManager.THERMAL_STATUS_MODERATE

    /** The system's word for how hot it is. */
    @StringRes
    fun thermalStatus(): Int {
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.Q) return R.string.thermal_unknown
        return when (power.currentThermalStatus) {
            PowerManager.THERMAL_STATUS_NONE -> R.string.thermal_none
            PowerManager.THERMAL_STATUS_LIGHT -> R.string.thermal_light
            PowerManager.THERMAL_STATUS_MODERATE -> R.string.thermal_moderate
            PowerManager.THERMAL_STATUS_SEVERE -> R.string.thermal_severe
            else -> R.string.thermal_critical
        }
    }

    private fun memory() = ActivityManager.MemoryInfo().also(activities::getMemoryInfo)

    companion object {
        // Of the heap, features may have a quarter. A picture's original, canvas and tiles take twelve bytes a pixel.
        private const val FEATURE_SHARE = 4
        private const val BYTES_A_PIXEL = 12

        // Android draws no bitmap of more than 100 MiB, four bytes a pixel: it throws.
        private const val DRAWABLE_PIXELS = (100L shl 20) / 4

        /** Held while a program is loaded or runs: all share a pool of threads, which loading with another number replaces. */
        val programs = Mutex()

        /** How often a program was loaded; one that was loaded before may look for a pool that is gone, and crash. */
        var loads = 0

        /** Megabytes of features that the heap has room for. */
        fun featureMemoryMb(): Double = Runtime.getRuntime().maxMemory() / FEATURE_SHARE / 1048576.0

        /** Pixels that the other half of the heap has room for, and that can be shown. */
        fun maxPixels(): Int = (Runtime.getRuntime().maxMemory() / 2 / BYTES_A_PIXEL).coerceAtMost(DRAWABLE_PIXELS).toInt()
    }
}
