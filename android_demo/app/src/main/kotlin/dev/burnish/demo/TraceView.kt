package dev.burnish.demo

import androidx.compose.foundation.layout.Arrangement
import androidx.compose.foundation.layout.Column
import androidx.compose.material3.MaterialTheme
import androidx.compose.material3.Text
import androidx.compose.runtime.Composable
import androidx.compose.ui.Modifier
import androidx.compose.ui.res.stringResource
import androidx.compose.ui.unit.dp
import dev.burnish.core.Restoration
import dev.burnish.core.qualityToPsnr

// What is smaller changes next to nothing.
private const val WORTH_TELLING = 0.1

/** A row a round: what the student found, which experts it asked, what came of it. */
@Composable
fun TraceView(result: Restoration, modifier: Modifier = Modifier) {
    Column(modifier, Arrangement.spacedBy(8.dp)) {
        Text(stringResource(R.string.trace), style = MaterialTheme.typography.titleSmall)
        for (step in result.steps) {
            Column {
                Text(stringResource(R.string.trace_row, step.iteration, qualityToPsnr(step.quality), step.elapsedMs))
                val found = shares(step.degradations)
                val words = if (found.isEmpty()) stringResource(R.string.trace_nothing) else stringResource(R.string.trace_found, found)
                Text(words, style = MaterialTheme.typography.bodySmall)
                val experts = shares(step.gates)
                if (experts.isNotEmpty()) {
                    Text(stringResource(R.string.trace_experts, experts), style = MaterialTheme.typography.bodySmall)
                }
            }
        }
    }
}

@Composable
private fun shares(values: Map<String, Double>): String {
    val told = values.filterValues { it >= WORTH_TELLING }.toList().sortedByDescending { it.second }
    return told.map { (name, value) -> stringResource(R.string.share, name.replace('_', ' '), 100 * value) }.joinToString()
}
