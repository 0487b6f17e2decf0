package dev.burnish.demo

import android.app.Application
import android.os.Build
import androidx.lifecycle.AndroidViewModel
import androidx.lifecycle.viewModelScope
import dev.burnish.core.BenchmarkPlan
import dev.burnish.core.Bundle
import dev.burnish.core.ProgramPerf
import dev.burnish.core.benchmark
import dev.burnish.core.perfJson
import dev.burnish.executorch.ExecuTorchSession
import java.io.File
import java.io.IOException
import java.time.Instant
import java.time.ZoneOffset
import java.time.format.DateTimeFormatter
import java.time.temporal.ChronoUnit
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.flow.update
import kotlinx.coroutines.launch
import kotlinx.coroutines.sync.withLock
import kotlinx.coroutines.withContext

/** The benchmark screen. [thermal]: the system's word for how hot the phone is. */
data class BenchmarkState(
    val threads: Int,
    val runs: Int = 50,
    val thermal: Int,
    val done: Int = 0,
    val total: Int = 0,
    val isRunning: Boolean = false,
    val programs: List<ProgramPerf> = emptyList(),
    val written: String? = null,
    val problem: Problem? = null,
)

/** Measures the bundle's programs and writes perf.json, asked by the screen or by a command over adb. */
class BenchmarkViewModel(application: Application) : AndroidViewModel(application) {
    val phone = Phone(application)
    private val mutableState = MutableStateFlow(BenchmarkState(threads = phone.threads, thermal = phone.thermalStatus()))
    val state: StateFlow<BenchmarkState> = mutableState.asStateFlow()

    private var running: Job? = null

    fun setThreads(count: Int) = mutableState.update { it.copy(threads = count.coerceIn(1, phone.cores)) }

    fun setRuns(count: Int) = mutableState.update { it.copy(runs = count.coerceIn(5, 1000)) }

    /** Measure every program that runs here. [device]: what the command line calls this phone. */
    fun start(device: String = "app") {
        if (running?.isActive == true) return
        running = viewModelScope.launch {
            val results = getApplication<Application>().getExternalFilesDir(null)
            val perf = File(results, "perf.json")
            val failure = File(results, "perf.failure")
            mutableState.update { it.copy(isRunning = true, programs = emptyList(), written = null, problem = null) }
            try {
                withContext(Dispatchers.IO) {
                    perf.delete()
                    failure.delete()
                }
                Phone.programs.withLock {
                    Phone.loads += 1
                    measure(device, perf)
                }
            } catch (error: Throwable) {
                val problem = Problem.of(error)
                mutableState.update { it.copy(problem = problem) }
                // Whoever waits for perf.json over adb learns why there is none, where that can be written at all.
                withContext(Dispatchers.IO) { runCatching { replace(failure, problem.text(getApplication())) } }
            } finally {
                mutableState.update { it.copy(isRunning = false, thermal = phone.thermalStatus()) }
            }
        }
    }

    fun stop() {
        running?.cancel()
    }

    fun dismiss() = mutableState.update { it.copy(problem = null) }

    private suspend fun measure(device: String, perf: File) {
        val bundle = withContext(Dispatchers.IO) { BundleStore(getApplication()).open() }
        val asked = mutableState.value
        val known = bundle.manifest.programs.filter { it.name in ExecuTorchSession.PROGRAMS }
        val programs = known.ifEmpty { listOf(bundle.firstProgram(ExecuTorchSession.PROGRAMS)) }
        for (program in programs) {
            val row = benchmark(
                bundle,
                program,
                BenchmarkPlan(runs = asked.runs),
                phone,
                "demo app ${BuildConfig.VERSION_NAME}, executorch-android ${BuildConfig.EXECUTORCH}",
                asked.threads,
                open = { ExecuTorchSession.load(bundle, program, asked.threads) },
                progress = { done, total ->
                    mutableState.update { it.copy(done = done, total = total, thermal = phone.thermalStatus()) }
                },
            )
            mutableState.update { it.copy(programs = it.programs + row) }
        }
        withContext(Dispatchers.IO) { replace(perf, json(bundle, device)) }
        mutableState.update { it.copy(written = perf.path) }
    }

    private fun json(bundle: Bundle, device: String): String {
        val now = Instant.now().truncatedTo(ChronoUnit.SECONDS).atOffset(ZoneOffset.UTC)
        val made = now.format(DateTimeFormatter.ofPattern("yyyy-MM-dd'T'HH:mm:ssxxx"))
        val versions = mapOf(
            "demo app" to BuildConfig.VERSION_NAME,
            "executorch-android" to BuildConfig.EXECUTORCH,
            "android" to Build.VERSION.RELEASE,
        )
        return perfJson(bundle, device, phone.identity, mutableState.value.programs, made, versions)
    }

    // Beside it, then renamed: whoever pulls it gets all of it.
    private fun replace(file: File, text: String) {
        val beside = File(file.parentFile, ".${file.name}")
        beside.writeText(text)
        if (!beside.renameTo(file)) throw IOException("cannot write ${file.path}; is the phone's storage full?")
    }
}
