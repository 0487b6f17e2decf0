package dev.burnish.demo

import androidx.compose.foundation.layout.Arrangement
import androidx.compose.foundation.layout.Column
import androidx.compose.foundation.layout.fillMaxWidth
import androidx.compose.foundation.layout.padding
import androidx.compose.foundation.rememberScrollState
import androidx.compose.foundation.verticalScroll
import androidx.compose.material3.Button
import androidx.compose.material3.LinearProgressIndicator
import androidx.compose.material3.MaterialTheme
import androidx.compose.material3.Slider
import androidx.compose.material3.Text
import androidx.compose.runtime.Composable
import androidx.compose.runtime.getValue
import androidx.compose.ui.Modifier
import androidx.compose.ui.keepScreenOn
import androidx.compose.ui.res.stringResource
import androidx.compose.ui.unit.dp
import androidx.lifecycle.compose.collectAsStateWithLifecycle
import dev.burnish.core.ProgramPerf
import dev.burnish.core.Timing
import kotlin.math.roundToInt

private const val MEGABYTE = 1048576.0

/** Measure the bundle on this phone: percentiles, thermal status, memory; the same perf.json as `burnish profile`. */
@Composable
fun BenchmarkScreen(model: BenchmarkViewModel, modifier: Modifier = Modifier) {
    val state by model.state.collectAsStateWithLifecycle()
    Column(modifier.verticalScroll(rememberScrollState()).padding(16.dp), Arrangement.spacedBy(12.dp)) {
        Text(stringResource(R.string.benchmark_intro))
        if (model.phone.isEmulator) Text(stringResource(R.string.benchmark_emulated))
        Text(stringResource(R.string.thermal, stringResource(state.thermal)))
        Text(stringResource(R.string.benchmark_threads, state.threads))
        Slider(
            value = state.threads.toFloat(),
            onValueChange = { model.setThreads(it.roundToInt()) },
            valueRange = 1f..model.phone.cores.toFloat(),
            enabled = !state.isRunning && model.phone.cores > 1,
        )
        Text(stringResource(R.string.benchmark_runs, state.runs))
        Slider(
            value = state.runs.toFloat(),
            onValueChange = { model.setRuns(it.roundToInt()) },
            valueRange = 10f..200f,
            enabled = !state.isRunning,
        )
        if (state.isRunning) {
            Button(onClick = model::stop) { Text(stringResource(R.string.stop)) }
            // With the screen off Android moves the app to slow cores: another measurement.
            LinearProgressIndicator(
                progress = { if (state.total > 0) state.done.toFloat() / state.total else 0f },
                modifier = Modifier.fillMaxWidth().keepScreenOn(),
            )
            Text(stringResource(R.string.benchmark_progress, state.done, state.total))
        } else {
            Button(onClick = { model.start() }) { Text(stringResource(R.string.benchmark_start)) }
        }
        state.programs.forEach { Measured(it) }
        state.written?.let { Text(stringResource(R.string.benchmark_written, it), style = MaterialTheme.typography.bodySmall) }
    }
    state.problem?.let { ProblemDialog(it, model::dismiss) }
}

@Composable
private fun Measured(perf: ProgramPerf) {
    Column(verticalArrangement = Arrangement.spacedBy(4.dp)) {
        Text(perf.program, style = MaterialTheme.typography.titleSmall)
        TimingLine("encode", perf.encode)
        TimingLine("refine", perf.refine)
        TimingLine("encode + refine", perf.iteration)
        Text(stringResource(R.string.benchmark_load, perf.loadColdMs, perf.loadWarmMs, perf.firstRunMs))
        Text(stringResource(R.string.benchmark_memory, perf.programBytes / MEGABYTE, perf.processBytes / MEGABYTE))
        Text(stringResource(R.string.benchmark_drift, perf.drift))
        if (perf.throttled) Text(stringResource(R.string.benchmark_throttled), color = MaterialTheme.colorScheme.error)
    }
}

@Composable
private fun TimingLine(name: String, timing: Timing) {
    Text(stringResource(R.string.benchmark_row, name, timing.p50Ms, timing.p90Ms, timing.p99Ms, timing.leastMs))
}
