package dev.burnish.demo

import android.content.Intent
import android.os.Bundle
import androidx.activity.ComponentActivity
import androidx.activity.compose.setContent
import androidx.activity.enableEdgeToEdge
import androidx.activity.viewModels
import androidx.compose.foundation.isSystemInDarkTheme
import androidx.compose.foundation.layout.Column
import androidx.compose.foundation.layout.padding
import androidx.compose.material3.MaterialTheme
import androidx.compose.material3.PrimaryTabRow
import androidx.compose.material3.Scaffold
import androidx.compose.material3.Tab
import androidx.compose.material3.Text
import androidx.compose.material3.darkColorScheme
import androidx.compose.material3.lightColorScheme
import androidx.compose.runtime.Composable
import androidx.compose.runtime.getValue
import androidx.compose.runtime.mutableIntStateOf
import androidx.compose.runtime.saveable.rememberSaveable
import androidx.compose.runtime.setValue
import androidx.compose.ui.Modifier
import androidx.compose.ui.res.stringResource
import androidx.lifecycle.viewmodel.compose.viewModel

/**
 * Two screens: restore, and measure.
 *
 * `adb shell am start -n dev.burnish.demo/.MainActivity --ez benchmark true --es device adb:SERIAL --ei runs 50 --ei threads 4`
 * measures at once; perf.json, or perf.failure, is then in the app's external files.
 */
class MainActivity : ComponentActivity() {
    private val benchmark: BenchmarkViewModel by viewModels()

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        enableEdgeToEdge()
        val isAsked = savedInstanceState == null && measureIfAsked(intent)
        setContent {
            MaterialTheme(colorScheme = if (isSystemInDarkTheme()) darkColorScheme() else lightColorScheme()) {
                Screens(benchmark, first = if (isAsked) 1 else 0)
            }
        }
    }

    override fun onNewIntent(intent: Intent) {
        super.onNewIntent(intent)
        measureIfAsked(intent)
    }

    private fun measureIfAsked(intent: Intent): Boolean {
        // Who opens the app from the list of recent apps sends its last intent again, and asks for nothing.
        val isRecalled = (intent.flags and Intent.FLAG_ACTIVITY_LAUNCHED_FROM_HISTORY) != 0
        if (isRecalled || !intent.getBooleanExtra("benchmark", false)) return false
        intent.getIntExtra("threads", 0).let { if (it > 0) benchmark.setThreads(it) }
        intent.getIntExtra("runs", 0).let { if (it > 0) benchmark.setRuns(it) }
        benchmark.start(intent.getStringExtra("device")?.take(100) ?: "app")
        return true
    }
}

@Composable
private fun Screens(benchmark: BenchmarkViewModel, first: Int) {
    var shown by rememberSaveable { mutableIntStateOf(first) }
    Scaffold { inside ->
        Column(Modifier.padding(inside)) {
            PrimaryTabRow(selectedTabIndex = shown) {
                listOf(R.string.tab_restore, R.string.tab_benchmark).forEachIndexed { index, title ->
                    Tab(selected = shown == index, onClick = { shown = index }, text = { Text(stringResource(title)) })
                }
            }
            // Its model loads a program, which a measurement asked for over adb must not have beside it: made when first shown.
            if (shown == 0) RestoreScreen(viewModel()) else BenchmarkScreen(benchmark)
        }
    }
}
