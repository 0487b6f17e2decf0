package dev.burnish.demo

import android.Manifest
import android.content.ActivityNotFoundException
import android.content.Context
import android.content.pm.PackageManager
import android.net.Uri
import android.os.Build
import androidx.activity.compose.rememberLauncherForActivityResult
import androidx.activity.result.PickVisualMediaRequest
import androidx.activity.result.contract.ActivityResultContracts
import androidx.annotation.StringRes
import androidx.compose.foundation.layout.Arrangement
import androidx.compose.foundation.layout.Column
import androidx.compose.foundation.layout.Row
import androidx.compose.foundation.layout.fillMaxWidth
import androidx.compose.foundation.layout.padding
import androidx.compose.foundation.rememberScrollState
import androidx.compose.foundation.verticalScroll
import androidx.compose.material3.Button
import androidx.compose.material3.LinearProgressIndicator
import androidx.compose.material3.MaterialTheme
import androidx.compose.material3.OutlinedButton
import androidx.compose.material3.Slider
import androidx.compose.material3.Text
import androidx.compose.material3.TextButton
import androidx.compose.runtime.Composable
import androidx.compose.runtime.getValue
import androidx.compose.runtime.mutableStateOf
import androidx.compose.runtime.saveable.rememberSaveable
import androidx.compose.runtime.setValue
import androidx.compose.ui.Modifier
import androidx.compose.ui.platform.LocalContext
import androidx.compose.ui.res.stringResource
import androidx.compose.ui.unit.dp
import androidx.core.content.FileProvider
import androidx.lifecycle.compose.collectAsStateWithLifecycle
import dev.burnish.core.Stop
import dev.burnish.core.qualityToPsnr
import java.io.File
import kotlin.math.log10
import kotlin.math.pow
import kotlin.math.roundToInt

/** Pick or take a photo, say what is wanted, watch it get better, compare, save. */
@Composable
fun RestoreScreen(model: RestoreViewModel, modifier: Modifier = Modifier) {
    val state by model.state.collectAsStateWithLifecycle()
    Column(modifier.verticalScroll(rememberScrollState()).padding(16.dp), Arrangement.spacedBy(12.dp)) {
        BundleLine(state, model)
        PhotoButtons(state, model)
        state.photo?.let { photo ->
            if (photo.bitmap.width < photo.fullWidth) {
                Text(
                    stringResource(
                        R.string.opened_smaller,
                        photo.bitmap.width,
                        photo.bitmap.height,
                        photo.fullWidth,
                        photo.fullHeight,
                    ),
                )
            }
            Comparison(photo.bitmap, state.after, state.drawn)
        }
        WishSliders(state.wishes, model::wish)
        Actions(state, model)
        Outcome(state)
    }
    state.problem?.let { ProblemDialog(it, model::dismiss) }
}

@Composable
private fun BundleLine(state: RestoreState, model: RestoreViewModel) {
    val restorer = state.restorer
    when {
        restorer != null -> Text(
            stringResource(R.string.bundle_ready, restorer.program, state.licence, restorer.iterationMs),
            style = MaterialTheme.typography.bodySmall,
        )
        state.isLoading -> Text(stringResource(R.string.bundle_loading), style = MaterialTheme.typography.bodySmall)
        else -> TextButton(onClick = { model.loadBundle() }) { Text(stringResource(R.string.bundle_retry)) }
    }
}

@Composable
private fun PhotoButtons(state: RestoreState, model: RestoreViewModel) {
    val context = LocalContext.current
    // Survives the app being put away while the camera is open.
    var capture by rememberSaveable { mutableStateOf<Uri?>(null) }
    val pick = rememberLauncherForActivityResult(ActivityResultContracts.PickVisualMedia()) { uri ->
        if (uri != null) model.open(uri)
    }
    val take = rememberLauncherForActivityResult(ActivityResultContracts.TakePicture()) { taken ->
        capture?.let { if (taken) model.open(it) }
    }
    Row(horizontalArrangement = Arrangement.spacedBy(12.dp)) {
        Button(
            onClick = { pick.launch(PickVisualMediaRequest(ActivityResultContracts.PickVisualMedia.ImageOnly)) },
            enabled = state.progress == null,
        ) { Text(stringResource(R.string.pick)) }
        OutlinedButton(
            onClick = {
                try {
                    val uri = newCapture(context)
                    capture = uri
                    take.launch(uri)
                } catch (error: ActivityNotFoundException) {
                    model.fail(error)
                } catch (error: SecurityException) {
                    model.fail(error)
                }
            },
            enabled = state.progress == null,
        ) { Text(stringResource(R.string.take)) }
    }
}

// One file, used again: the camera app writes it, nobody else reads it.
private fun newCapture(context: Context): Uri {
    val file = File(context.cacheDir, "captures/photo.jpg")
    file.parentFile?.mkdirs()
    return FileProvider.getUriForFile(context, "${context.packageName}.captures", file)
}

@Composable
private fun WishSliders(wishes: Wishes, change: ((Wishes) -> Wishes) -> Unit) {
    val budget = wishes.budgetMs?.let { stringResource(R.string.budget_seconds, it / 1000) }
    Text(stringResource(R.string.budget, budget ?: stringResource(R.string.budget_none)))
    Slider(
        value = budgetToSlider(wishes.budgetMs),
        onValueChange = { value -> change { it.copy(budgetMs = sliderToBudget(value)) } },
    )
    val quality = wishes.minQuality?.let { stringResource(R.string.quality_db, qualityToPsnr(it)) }
    Text(stringResource(R.string.quality, quality ?: stringResource(R.string.quality_none)))
    Slider(
        value = wishes.minQuality?.toFloat() ?: 1f,
        onValueChange = { value -> change { it.copy(minQuality = value.toDouble().takeIf { q -> q < 1.0 }) } },
    )
    Text(stringResource(R.string.iterations, wishes.maxIterations))
    Slider(
        value = wishes.maxIterations.toFloat(),
        onValueChange = { value -> change { it.copy(maxIterations = value.roundToInt()) } },
        valueRange = 1f..8f,
        steps = 6,
    )
}

// The slider is logarithmic, from a tenth of a second to a hundred seconds; its right end is no limit.
private const val SHORTEST_MS = 100.0
private const val DECADES = 3.0

private fun sliderToBudget(value: Float): Double? =
    if (value >= 1f) null else SHORTEST_MS * 10.0.pow(DECADES * value)

private fun budgetToSlider(budgetMs: Double?): Float =
    if (budgetMs == null) 1f else (log10(budgetMs / SHORTEST_MS) / DECADES).toFloat()

@Composable
private fun Actions(state: RestoreState, model: RestoreViewModel) {
    val context = LocalContext.current
    val allow = rememberLauncherForActivityResult(ActivityResultContracts.RequestPermission()) { granted ->
        if (granted) model.save() else model.fail(SecurityException("not allowed to write"))
    }
    Row(horizontalArrangement = Arrangement.spacedBy(12.dp)) {
        if (state.progress == null) {
            Button(onClick = model::restore, enabled = state.photo != null && state.restorer != null) {
                Text(stringResource(R.string.restore))
            }
        } else {
            Button(onClick = model::stop) { Text(stringResource(R.string.stop)) }
        }
        OutlinedButton(
            onClick = {
                val permission = Manifest.permission.WRITE_EXTERNAL_STORAGE
                val isAllowed = Build.VERSION.SDK_INT >= Build.VERSION_CODES.Q ||
                    context.checkSelfPermission(permission) == PackageManager.PERMISSION_GRANTED
                if (isAllowed) model.save() else allow.launch(permission)
            },
            enabled = state.result != null && state.progress == null,
        ) { Text(stringResource(R.string.save)) }
    }
    state.saved?.let { Text(stringResource(R.string.saved, it)) }
}

@Composable
private fun Outcome(state: RestoreState) {
    state.progress?.let { progress ->
        LinearProgressIndicator(
            progress = { progress.done.toFloat() / progress.tiles },
            modifier = Modifier.fillMaxWidth(),
        )
        Text(stringResource(R.string.progress, progress.done, progress.tiles, qualityToPsnr(progress.quality)))
    }
    state.result?.let { result ->
        Text(
            stringResource(
                R.string.result,
                stringResource(words(result.reason)),
                result.elapsedMs,
                qualityToPsnr(result.quality),
                result.tiles,
            ),
        )
        if (result.hadBrokenStep && result.reason != Stop.BROKEN) Text(stringResource(R.string.stopped_broken))
        TraceView(result)
    }
}

@StringRes
private fun words(reason: Stop): Int = when (reason) {
    Stop.QUALITY -> R.string.stopped_quality
    Stop.REGRESSION -> R.string.stopped_regression
    Stop.PLATEAU -> R.string.stopped_plateau
    Stop.ITERATIONS -> R.string.stopped_iterations
    Stop.BUDGET -> R.string.stopped_budget
    Stop.BROKEN -> R.string.stopped_broken
    Stop.CANCELLED -> R.string.stopped_cancelled
}
