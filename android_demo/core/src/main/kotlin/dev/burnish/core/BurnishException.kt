package dev.burnish.core

/** What burnish throws on purpose. The message says what was given, what was expected and what to do. */
sealed class BurnishException(message: String, cause: Throwable? = null) : Exception(message, cause)

/** A picture or an option the user gave cannot be used. */
class InputException(message: String, cause: Throwable? = null) : BurnishException(message, cause)

/** A bundle is damaged, unsafe, of another format version, or lacks what was asked for. */
class BundleException(message: String, cause: Throwable? = null) : BurnishException(message, cause)

/** A program cannot be loaded or run on this device. */
class ProgramException(message: String, cause: Throwable? = null) : BurnishException(message, cause)
