package dev.burnish.core

/** One file of a bundle: its path below the bundle, its size and its SHA-256 in hex. */
data class BundleFile(val path: String, val bytes: Long, val sha256: String)

/** Maps a program's raw predicted quality q to slope·q + offset. */
data class Calibration(val slope: Double = 1.0, val offset: Double = 0.0) {
    /** Calibrated quality, clipped to [0, 1]; NaN stays NaN. */
    fun apply(quality: Double): Double = (slope * quality + offset).coerceIn(0.0, 1.0)
}

/** One exported artifact for one target and precision. */
data class Program(
    val target: String,
    val precision: String,
    val files: List<BundleFile>,
    val madeWith: Map<String, String> = emptyMap(),
    val boundaryBytes: Map<String, Long> = emptyMap(),
    val calibration: Calibration = Calibration(),
) {
    /** target-precision, also its folder's name. */
    val name: String get() = "$target-$precision"
}

/** Measured milliseconds of one program on one class of device. */
data class Profile(val device: String, val program: String, val encode: Estimate, val refine: Estimate)

/** bundle.json, as far as a device needs it. */
data class Manifest(
    val student: String,
    val rank: Int,
    val tile: Int,
    val routing: Routing,
    val programs: List<Program>,
    val profiles: List<Profile>,
    val licence: String,
) {
    companion object {
        const val FORMAT: Long = 1

        /** Read and check a manifest. [place] names it in messages. Throws [BundleException] with what is wrong. */
        fun parse(place: String, text: String): Manifest {
            val top = Fields.parse(place, text)
            val format = top.whole("format")
            if (format != FORMAT) {
                throw BundleException("$place has format $format; this app reads $FORMAT: export the bundle again")
            }
            val student = top.fields("student")
            return Manifest(
                student = student.text("size"),
                rank = student.count("rank", 1024),
                tile = top.count("tile", 4096).also {
                    if (it < 64 || it % 16 != 0) top.fail("tile", "expected a multiple of 16 from 64")
                },
                routing = routing(top.fields("routing")),
                programs = top.allFields("programs").map(::program),
                profiles = if ("profiles" in top) top.allFields("profiles").map(::profile) else emptyList(),
                licence = top.text("licence"),
            )
        }

        private fun Fields.count(name: String, most: Int): Int {
            val value = whole(name)
            if (value !in 1..most) fail(name, "$value, expected a number from 1 to $most")
            return value.toInt()
        }

        private fun routing(fields: Fields): Routing {
            val branches = fields.fields("tree")
            val tree = branches.names.associateWith { branches.texts(it) }
            if (tree.isEmpty() || tree.values.any { it.isEmpty() }) fields.fail("tree", "expected parents with leaves")
            val names = tree.keys + tree.values.flatten()
            if (names.size != tree.size + tree.values.sumOf { it.size }) fields.fail("tree", "a name is there twice")
            val default = Routing(tree)
            val softness = if ("softness" in fields) fields.number("softness") else default.softness
            if (softness <= 0) fields.fail("softness", "$softness, expected a number above 0")
            val certain = fields.map("certain") { values, name -> values.number(name) }
            if (certain.values.any { it <= 0 || it >= 1 }) fields.fail("certain", "$certain, expected numbers between 0 and 1")
            return Routing(
                tree = tree,
                threshold = if ("threshold" in fields) fields.number("threshold") else default.threshold,
                softness = softness,
                top = if ("top" in fields) fields.count("top", Int.MAX_VALUE) else default.top,
                whole = if ("whole" in fields) fields.texts("whole").toSet() else default.whole,
                likely = fields.map("likely") { values, name -> values.number(name) },
                uneven = if ("uneven" in fields) fields.texts("uneven").toSet() else default.uneven,
                lookTokens = if ("look_tokens" in fields) fields.texts("look_tokens").toSet() else default.lookTokens,
                meanTokens = if ("mean_tokens" in fields) fields.texts("mean_tokens").toSet() else default.meanTokens,
                specialists = if ("specialists" in fields) fields.texts("specialists").toSet() else default.specialists,
                certain = certain,
                variance = fields.map("variance") { values, name -> values.number(name) },
            )
        }

        private fun program(fields: Fields): Program {
            val calibration = if ("calibration" in fields) fields.fields("calibration") else null
            val target = fields.words("target")
            val precision = fields.words("precision")
            val files = fields.allFields("files").map(::file)
            val outside = files.firstOrNull { !it.path.startsWith("programs/$target-$precision/") }
            if (outside != null) fields.fail("files", "'${outside.path}' is not in programs/$target-$precision")
            return Program(
                target = target,
                precision = precision,
                files = files,
                madeWith = fields.map("made_with") { values, name -> values.text(name) },
                boundaryBytes = fields.map("boundary_bytes") { values, name -> values.whole(name) },
                calibration = calibration?.let { Calibration(it.number("slope"), it.number("offset")) } ?: Calibration(),
            )
        }

        /** Part of a folder's name. */
        private fun Fields.words(name: String): String {
            val text = text(name)
            if (text.length > 64 || !Regex("[a-z0-9]+(-[a-z0-9]+)*").matches(text)) fail(name, "expected words joined by '-'")
            return text
        }

        private fun <T> Fields.map(name: String, read: (Fields, String) -> T): Map<String, T> {
            if (name !in this) return emptyMap()
            val values = fields(name)
            return values.names.associateWith { read(values, it) }
        }

        private fun profile(fields: Fields) = Profile(
            device = fields.text("device"),
            program = fields.text("program"),
            encode = fields.estimate("encode_ms"),
            refine = fields.estimate("refine_ms"),
        )

        private fun Fields.estimate(name: String): Estimate {
            val values = numbers(name)
            if (values.size != 2 || values.any { it < 0 }) fail(name, "expected a mean and a deviation")
            return Estimate(values[0], values[1])
        }

        private fun file(fields: Fields): BundleFile {
            val path = fields.text("path")
            val parts = path.split("/")
            val outside = parts.any { it.isEmpty() || it == "." || it == ".." } || path.any { it in "\\:" || it < ' ' }
            if (outside) fields.fail("path", "'$path' leaves the bundle, expected a relative path without '..'")
            val bytes = fields.whole("bytes")
            if (bytes < 0) fields.fail("bytes", "$bytes, expected a number from 0 on")
            val hash = fields.text("sha256")
            if (!Regex("[0-9a-f]{64}").matches(hash)) fields.fail("sha256", "expected 64 hexadecimal digits")
            return BundleFile(path, bytes, hash)
        }
    }
}
