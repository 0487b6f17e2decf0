package dev.burnish.core

/** The method that encodes. */
const val ENCODE: String = "encode"

/** The method that refines where no specialist does. */
const val REFINE: String = "refine"

/** The method of a leaf's specialist, which takes and gives what [REFINE] does. */
fun specialistMethod(leaf: String): String = "${REFINE}_$leaf"
