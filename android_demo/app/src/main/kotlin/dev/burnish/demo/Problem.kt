package dev.burnish.demo

import android.content.ActivityNotFoundException
import android.content.Context
import androidx.annotation.StringRes
import dev.burnish.core.BundleException
import dev.burnish.core.InputException
import dev.burnish.core.ProgramException
import java.io.FileNotFoundException
import java.io.IOException
import kotlinx.coroutines.CancellationException

/** What went wrong, in words for the one who holds the phone. */
data class Problem(@StringRes val title: Int, @StringRes val advice: Int? = null, val detail: String? = null) {
    /** Advice, or what the failing part said. */
    fun text(context: Context): String = advice?.let(context::getString) ?: detail.orEmpty()

    companion object {
        /** Of everything that is thrown; the app keeps running. A cancellation is none and is thrown on. */
        fun of(error: Throwable): Problem = when (error) {
            is CancellationException -> throw error
            is BundleException -> Problem(R.string.problem_bundle, detail = error.message)
            is ProgramException -> Problem(R.string.problem_program, detail = error.message)
            is InputException -> Problem(R.string.problem_input, detail = error.message)
            is OutOfMemoryError -> Problem(R.string.problem_memory, R.string.problem_memory_detail)
            is SecurityException -> Problem(R.string.problem_permission, R.string.problem_permission_detail)
            is ActivityNotFoundException -> Problem(R.string.problem_camera, R.string.problem_camera_detail)
            is FileNotFoundException -> Problem(R.string.problem_gone, R.string.problem_gone_detail)
            is IOException -> Problem(R.string.problem_files, detail = error.message)
            else -> Problem(R.string.problem_unexpected, detail = "${error.javaClass.simpleName}: ${error.message}")
        }
    }
}
