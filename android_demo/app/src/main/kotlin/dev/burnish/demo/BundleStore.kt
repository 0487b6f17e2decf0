package dev.burnish.demo

import android.content.Context
import dev.burnish.core.Bundle
import dev.burnish.core.BundleException
import dev.burnish.core.Manifest
import dev.burnish.executorch.ExecuTorchSession
import java.io.File
import java.io.IOException
import java.io.InputStream

/** Finds the bundle: the newest that was pushed over adb, or else the one in the app's assets. */
class BundleStore(private val context: Context) {
    /** Where `adb push` puts bundles. */
    val pushed: File? get() = context.getExternalFilesDir("bundles")

    /** Open it; reads files. Throws [BundleException] where there is none, or it is damaged. */
    fun open(): Bundle {
        val folders = pushed?.listFiles { file -> File(file, Bundle.MANIFEST).isFile }.orEmpty()
        val newest = folders.maxByOrNull { File(it, Bundle.MANIFEST).lastModified() }
        return Bundle.open(newest ?: fromAssets())
    }

    // ExecuTorch maps a file into memory, so what is in the package is copied out of it, once.
    private fun fromAssets(): File {
        val name = context.assets.list("")?.firstOrNull { it.endsWith(".bundle") } ?: throw BundleException(
            "there is no bundle; run burnish export and copy the folder to app/src/main/assets, or push it with adb to $pushed",
        )
        val text = asset("$name/${Bundle.MANIFEST}").use { it.readBytes() }
        val place = File(context.noBackupFilesDir, name)
        val known = File(place, Bundle.MANIFEST)
        if (known.isFile && known.readBytes().contentEquals(text)) return place
        val beside = File(context.noBackupFilesDir, ".$name")
        beside.deleteRecursively()
        val manifest = Manifest.parse("$name/${Bundle.MANIFEST}", text.decodeToString())
        for (program in manifest.programs.filter { it.name in ExecuTorchSession.PROGRAMS }) {
            for (entry in program.files) copy("$name/${entry.path}", File(beside, entry.path))
        }
        beside.mkdirs()
        File(beside, Bundle.MANIFEST).writeBytes(text)
        place.deleteRecursively()
        if (!beside.renameTo(place)) throw IOException("cannot write $place; is the phone's storage full?")
        return place
    }

    private fun copy(path: String, file: File) {
        file.parentFile?.mkdirs()
        asset(path).use { from -> file.outputStream().use(from::copyTo) }
    }

    private fun asset(path: String): InputStream = try {
        context.assets.open(path)
    } catch (error: IOException) {
        throw BundleException("$path is not in the app (${error.message}); copy the whole bundle to the assets", error)
    }
}
