package dev.burnish.core

import java.io.Closeable
import java.util.concurrent.Executors
import java.util.concurrent.RejectedExecutionException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.asCoroutineDispatcher
import kotlinx.coroutines.async
import kotlinx.coroutines.withTimeoutOrNull

/** The answer did not come in time. */
internal class Late : Exception()

/**
 * One thread that runs a session's calls in the order they come, so that anyone may ask for them.
 *
 * Whoever asked waits no longer than he wants: a call that is late ends by itself and its result is dropped.
 */
internal class Worker : Closeable {
    private val dispatcher = Executors.newSingleThreadExecutor { Thread(it, "burnish") }.asCoroutineDispatcher()
    private val scope = CoroutineScope(SupervisorJob() + dispatcher)

    /**
     * The result of [work]; [took] is told its milliseconds without the wait, also of work that is late.
     *
     * Throws [Late] after [timeoutMs], and whatever the work throws.
     */
    suspend fun <T : Any> call(timeoutMs: Double?, took: (Double) -> Unit, work: () -> T): T {
        val answer = scope.async {
            val began = System.nanoTime()
            work().also { took(millisSince(began)) }
        }
        if (timeoutMs == null) return answer.await()
        return withTimeoutOrNull(timeoutMs.toLong()) { answer.await() } ?: run {
            answer.cancel()
            throw Late()
        }
    }

    /** Run [work] after everything that was asked for; not at all once the worker is closed. */
    fun post(work: () -> Unit) {
        try {
            dispatcher.executor.execute(work)
        } catch (_: RejectedExecutionException) {
            // The session is closed, and what it held with it.
        }
    }

    /** End the thread once it has done what was asked for. */
    override fun close() {
        dispatcher.close()
    }
}

internal fun millisSince(nanos: Long): Double = (System.nanoTime() - nanos) / 1e6
