package dev.burnish.demo

import android.graphics.Bitmap
import androidx.compose.foundation.Canvas
import androidx.compose.foundation.gestures.detectHorizontalDragGestures
import androidx.compose.foundation.gestures.detectTapGestures
import androidx.compose.foundation.layout.aspectRatio
import androidx.compose.foundation.layout.fillMaxWidth
import androidx.compose.runtime.Composable
import androidx.compose.runtime.getValue
import androidx.compose.runtime.mutableFloatStateOf
import androidx.compose.runtime.remember
import androidx.compose.runtime.saveable.rememberSaveable
import androidx.compose.runtime.setValue
import androidx.compose.ui.Modifier
import androidx.compose.ui.geometry.Offset
import androidx.compose.ui.graphics.Color
import androidx.compose.ui.graphics.FilterQuality
import androidx.compose.ui.graphics.asImageBitmap
import androidx.compose.ui.graphics.drawscope.clipRect
import androidx.compose.ui.input.pointer.pointerInput
import androidx.compose.ui.res.stringResource
import androidx.compose.ui.semantics.ProgressBarRangeInfo
import androidx.compose.ui.semantics.contentDescription
import androidx.compose.ui.semantics.progressBarRangeInfo
import androidx.compose.ui.semantics.semantics
import androidx.compose.ui.semantics.setProgress
import androidx.compose.ui.unit.IntSize
import androidx.compose.ui.unit.dp

/** The picture before on the left of a line, and [after] on its right; the line is dragged. [drawn]: changes of [after]. */
@Composable
fun Comparison(before: Bitmap, after: Bitmap?, drawn: Int, modifier: Modifier = Modifier) {
    var line by rememberSaveable { mutableFloatStateOf(0.5f) }
    val left = remember(before) { before.asImageBitmap() }
    val right = remember(after) { after?.asImageBitmap() }
    val description = stringResource(R.string.compare)
    Canvas(
        modifier.fillMaxWidth().aspectRatio(before.width.toFloat() / before.height)
            .pointerInput(Unit) {
                detectHorizontalDragGestures { change, _ -> line = (change.position.x / size.width).coerceIn(0f, 1f) }
            }
            .pointerInput(Unit) {
                detectTapGestures { place -> line = (place.x / size.width).coerceIn(0f, 1f) }
            }
            .semantics {
                contentDescription = description
                progressBarRangeInfo = ProgressBarRangeInfo(line, 0f..1f)
                setProgress { wanted ->
                    line = wanted.coerceIn(0f, 1f)
                    true
                }
            },
    ) {
        val whole = IntSize(size.width.toInt(), size.height.toInt())
        drawImage(left, dstSize = whole, filterQuality = FilterQuality.Medium)
        // Reading the count draws again when the bitmap was drawn into.
        if (right != null && drawn >= 0) {
            val place = line * size.width
            clipRect(left = place) { drawImage(right, dstSize = whole, filterQuality = FilterQuality.Medium) }
            drawLine(Color.White, Offset(place, 0f), Offset(place, size.height), strokeWidth = 2.dp.toPx())
        }
    }
}
