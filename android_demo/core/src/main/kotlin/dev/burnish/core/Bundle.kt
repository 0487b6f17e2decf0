package dev.burnish.core

import java.io.File
import java.io.IOException
import java.security.MessageDigest

/** An opened bundle: the manifest was checked, files are checked when they are asked for. */
class Bundle private constructor(val folder: File, val manifest: Manifest) {
    /** The program called [name] (target-precision). Throws [BundleException] listing what there is. */
    fun program(name: String): Program = manifest.programs.find { it.name == name } ?: throw BundleException(
        "${folder.name} has no program '$name'; it has: " +
            manifest.programs.joinToString { it.name }.ifEmpty { "none" },
    )

    /** The first of [names] that is there. Throws [BundleException]. */
    fun firstProgram(names: List<String>): Program =
        names.firstNotNullOfOrNull { name -> manifest.programs.find { it.name == name } } ?: throw BundleException(
            "${folder.name} has no program that this app runs (${names.joinToString(" or ")}); it has: " +
                manifest.programs.joinToString { it.name }.ifEmpty { "none" } + "; export it with --program ${names[0]}",
        )

    /** A file whose place, size and hash are as the manifest says. Throws [BundleException]. */
    fun file(entry: BundleFile): File {
        val file = File(folder, entry.path)
        try {
            if (!file.canonicalFile.startsWith(folder.canonicalFile)) {
                throw BundleException("${entry.path} leads out of ${folder.name}; refuse this bundle")
            }
            if (!file.isFile) throw BundleException("${entry.path} is missing from ${folder.name}; copy the bundle again")
            if (file.length() != entry.bytes || sha256(file) != entry.sha256) {
                throw BundleException(
                    "${entry.path} is damaged: ${file.length()} of ${entry.bytes} bytes, or another content; " +
                        "copy the bundle again",
                )
            }
        } catch (error: IOException) {
            throw BundleException("${entry.path} cannot be read (${error.message}); copy the bundle again", error)
        }
        return file
    }

    /** All files of a program, checked. Throws [BundleException]. */
    fun files(program: Program): List<File> = program.files.map(::file)

    companion object {
        const val MANIFEST: String = "bundle.json"
        const val MAX_MANIFEST_BYTES: Long = 1L shl 20

        /** Read and check the manifest of the bundle in [folder]. Throws [BundleException] with what is wrong. */
        fun open(folder: File): Bundle {
            val file = File(folder, MANIFEST)
            if (!file.isFile) {
                throw BundleException("${folder.name} is not a bundle: it has no $MANIFEST; expected what burnish export wrote")
            }
            if (file.length() > MAX_MANIFEST_BYTES) {
                throw BundleException("$MANIFEST has ${file.length()} bytes; expected at most $MAX_MANIFEST_BYTES")
            }
            val text = try {
                file.readText()
            } catch (error: IOException) {
                throw BundleException("$MANIFEST of ${folder.name} cannot be read (${error.message})", error)
            }
            return Bundle(folder, Manifest.parse(MANIFEST, text))
        }
    }
}

/** SHA-256 of a file's bytes, in hex. */
fun sha256(file: File): String {
    val digest = MessageDigest.getInstance("SHA-256")
    file.inputStream().use { stream ->
        val block = ByteArray(1 shl 16)
        while (true) {
            val count = stream.read(block)
            if (count < 0) break
            digest.update(block, 0, count)
        }
    }
    return digest.digest().toHex()
}

internal fun ByteArray.toHex(): String = joinToString("") { "%02x".format(it.toInt() and 0xff) }
