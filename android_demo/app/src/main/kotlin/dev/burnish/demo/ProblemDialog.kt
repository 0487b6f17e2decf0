package dev.burnish.demo

import androidx.compose.material3.AlertDialog
import androidx.compose.material3.Text
import androidx.compose.material3.TextButton
import androidx.compose.runtime.Composable
import androidx.compose.ui.platform.LocalContext
import androidx.compose.ui.res.stringResource

/** Says what went wrong and what to do. */
@Composable
fun ProblemDialog(problem: Problem, dismiss: () -> Unit) {
    AlertDialog(
        onDismissRequest = dismiss,
        title = { Text(stringResource(problem.title)) },
        text = { Text(problem.text(LocalContext.current)) },
        confirmButton = { TextButton(onClick = dismiss) { Text(stringResource(R.string.dismiss)) } },
    )
}
