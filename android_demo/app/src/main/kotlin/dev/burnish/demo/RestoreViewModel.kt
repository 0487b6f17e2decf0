package dev.burnish.demo

import android.app.Application
import android.graphics.Bitmap
import android.net.Uri
import androidx.lifecycle.AndroidViewModel
import androidx.lifecycle.viewModelScope
import dev.burnish.core.Policy
import dev.burnish.core.Restoration
import dev.burnish.core.Restorer
import dev.burnish.core.Stream
import dev.burnish.executorch.ExecuTorchSession
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.flow.buffer
import kotlinx.coroutines.flow.flowOn
import kotlinx.coroutines.flow.map
import kotlinx.coroutines.flow.update
import kotlinx.coroutines.launch
import kotlinx.coroutines.sync.withLock
import kotlinx.coroutines.withContext

/** What the user asks for; null: no such limit. */
data class Wishes(val budgetMs: Double? = 2_000.0, val minQuality: Double? = null, val maxIterations: Int = 4)

/** How far a restoration is. */
data class Progress(val done: Int, val tiles: Int, val quality: Double)

/**
 * The restore screen.
 *
 * @param restorer null while it is loaded, or where it could not be
 * @param after drawn into while the restoration runs; [drawn] counts how often
 */
data class RestoreState(
    val isLoading: Boolean = true,
    val restorer: Restorer? = null,
    val licence: String = "",
    val wishes: Wishes = Wishes(),
    val photo: Photo? = null,
    val after: Bitmap? = null,
    val drawn: Int = 0,
    val progress: Progress? = null,
    val result: Restoration? = null,
    val saved: String? = null,
    val problem: Problem? = null,
)

/** Loads the bundle, opens photos, restores and saves them; whatever fails becomes a message. */
class RestoreViewModel(application: Application) : AndroidViewModel(application) {
    private val mutableState = MutableStateFlow(RestoreState())
    val state: StateFlow<RestoreState> = mutableState.asStateFlow()

    private var stream: Stream? = null
    private var running: Job? = null
    private var loaded = 0

    init {
        loadBundle()
    }

    /** Look for a bundle again, after another one was pushed. */
    fun loadBundle() = attempt {
        stop()
        running?.join()
        Phone.programs.withLock { load() }
    }

    private suspend fun load() {
        mutableState.value.restorer?.close()
        mutableState.update { it.copy(isLoading = true, restorer = null) }
        try {
            Phone.loads += 1
            loaded = Phone.loads
            withContext(Dispatchers.IO) {
                val application = getApplication<Application>()
                val bundle = BundleStore(application).open()
                val program = bundle.firstProgram(ExecuTorchSession.PROGRAMS)
                val session = ExecuTorchSession.load(bundle, program, Phone(application).threads)
                val restorer = Restorer.of(bundle, program, session, Phone.featureMemoryMb())
                try {
                    restorer.warmUp()
                } catch (error: Throwable) {
                    // Also when the app was left meanwhile: nobody else would unload the program.
                    restorer.close()
                    throw error
                }
                mutableState.update { it.copy(restorer = restorer, licence = bundle.manifest.licence) }
            }
        } finally {
            mutableState.update { it.copy(isLoading = false) }
        }
    }

    fun wish(change: (Wishes) -> Wishes) = mutableState.update { it.copy(wishes = change(it.wishes)) }

    fun open(uri: Uri) = attempt {
        stop()
        running?.join()
        val resolver = getApplication<Application>().contentResolver
        val photo = withContext(Dispatchers.IO) { readPhoto(resolver, uri, Phone.maxPixels()) }
        mutableState.update { it.copy(photo = photo, after = null, result = null, saved = null, progress = null) }
    }

    fun restore() {
        if (running?.isActive == true) return
        running = attempt {
            val photo = mutableState.value.photo ?: return@attempt
            Phone.programs.withLock {
                // A measurement came between.
                if (loaded != Phone.loads) load()
                mutableState.value.restorer?.let { restore(photo, it) }
            }
        }
    }

    private suspend fun restore(photo: Photo, restorer: Restorer) {
        try {
            val (pixels, after) = withContext(Dispatchers.Default) {
                val copy = photo.bitmap.copy(Bitmap.Config.ARGB_8888, true) ?: throw OutOfMemoryError("no second bitmap")
                pixelsOf(photo.bitmap) to copy
            }
            mutableState.update { it.copy(after = after, result = null, saved = null, progress = Progress(0, 1, 0.0)) }
            val wishes = mutableState.value.wishes
            val policy = Policy(wishes.budgetMs, wishes.minQuality, wishes.maxIterations)
            val stream = restorer.restore(pixels, policy).also { stream = it }
            // Every patch is drawn: the next one may be of another tile.
            stream.updates.buffer(capacity = Int.MAX_VALUE).map { update ->
                update.patch?.let { draw(it, after, update.region.top, update.region.left) }
                Progress(update.done, update.tiles, update.quality)
            }.flowOn(Dispatchers.Default).collect { progress ->
                mutableState.update { it.copy(drawn = it.drawn + 1, progress = progress) }
            }
            mutableState.update { it.copy(result = stream.result) }
        } finally {
            mutableState.update { it.copy(progress = null) }
        }
    }

    /** End after the step that is running; what there is stays. */
    fun stop() {
        stream?.cancel()
    }

    fun save() = attempt {
        val (photo, after) = mutableState.value.run { photo to after }
        if (photo != null && after != null) {
            val name = withContext(Dispatchers.IO) { savePhoto(getApplication(), after, photo.metadata) }
            mutableState.update { it.copy(saved = name) }
        }
    }

    fun fail(error: Throwable) = mutableState.update { it.copy(problem = Problem.of(error)) }

    fun dismiss() = mutableState.update { it.copy(problem = null) }

    override fun onCleared() {
        mutableState.value.restorer?.close()
    }

    // Errors too: an OutOfMemoryError ends the restoration, not the app.
    private fun attempt(work: suspend () -> Unit): Job = viewModelScope.launch {
        try {
            work()
        } catch (error: Throwable) {
            fail(error)
        }
    }
}
