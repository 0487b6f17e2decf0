package dev.burnish.executorch

import dev.burnish.core.Assessment
import dev.burnish.core.Bundle
import dev.burnish.core.BundleException
import dev.burnish.core.ENCODE
import dev.burnish.core.Encoded
import dev.burnish.core.Program
import dev.burnish.core.ProgramException
import dev.burnish.core.REFINE
import dev.burnish.core.Refined
import dev.burnish.core.Session
import dev.burnish.core.specialistMethod
import java.nio.FloatBuffer
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor

/**
 * `encode`, `refine` and the specialists of a multi-method program, by ExecuTorch's Android library.
 *
 * Inputs are direct buffers, read where they are. The features that `encode` gives lie in the program's own memory and are passed
 * to the others from there; only those that must outlive the next `encode` are copied, into buffers that are used again.
 */
class ExecuTorchSession private constructor(private val module: Module, private val tile: Int) : Session {
    private val restored = Tensor.allocateFloatBuffer(3 * tile * tile)
    private var image: Input? = null
    private var tokens: Input? = null
    private var gates: Input? = null
    private val spare = ArrayDeque<Copies>()

    // Whose features lie in the program's memory, where the next encode writes.
    private var latest: Features? = null

    override fun encode(image: FloatBuffer): Encoded {
        latest?.moveOut()
        latest = null
        val outputs = execute(ENCODE, EValue.from(inputOf(image)))
        if (outputs.size < 3) throw ProgramException("encode gives ${outputs.size} outputs; expected three and more")
        val (tokens, assessment) = outputs.takeLast(2).map { it.toTensor() }
        if (this.tokens == null) this.tokens = Input(tokens.shape())
        val said = Assessment.of(assessment.dataAsFloatArray)
        return Features(said, tokens.dataAsFloatArray, outputs.dropLast(2)).also { latest = it }
    }

    override fun refine(
        current: FloatBuffer,
        original: Encoded,
        estimate: Encoded,
        tokens: FloatArray,
        gates: FloatArray,
        method: String,
    ): Refined {
        val evidence = (original as Features).values
        val guess = (estimate as Features).values
        val inputs = buildList {
            add(EValue.from(inputOf(current)))
            addAll(evidence)
            // The estimate's first feature is not looked at.
            addAll(guess.drop(1))
            add(EValue.from(tokensOf(tokens)))
            add(EValue.from(gatesOf(gates)))
        }
        val outputs = execute(method, *inputs.toTypedArray())
        if (outputs.size != 2) throw ProgramException("$method gives ${outputs.size} outputs; expected two")
        restored.clear()
        outputs[0].toTensor().copyDataInto(restored)
        restored.clear()
        return Refined(restored, outputs[1].toTensor().dataAsFloatArray[0].toDouble())
    }

    override fun close() {
        latest = null
        spare.clear()
        module.destroy()
    }

    private fun execute(method: String, vararg inputs: EValue): Array<EValue> = try {
        module.execute(method, *inputs)
    } catch (error: RuntimeException) {
        throw ProgramException("$method failed (${error.oneLine()}); load the program again", error)
    }

    private fun inputOf(buffer: FloatBuffer): Tensor {
        val known = image?.takeIf { it.buffer === buffer }
            ?: Input(buffer, longArrayOf(1, 3, tile.toLong(), tile.toLong())).also { image = it }
        return known.tensor
    }

    // Shaped as those that the first encode gave.
    private fun tokensOf(values: FloatArray): Tensor = checkNotNull(tokens).write { it.put(values) }

    private fun gatesOf(values: FloatArray): Tensor {
        val known = gates?.takeIf { it.buffer.capacity() == values.size }
            ?: Input(longArrayOf(1, values.size.toLong(), 1, 1)).also { gates = it }
        return known.write { it.put(values) }
    }

    /** A direct buffer and the tensor that is a window on it. */
    private class Input(val buffer: FloatBuffer, shape: LongArray) {
        val tensor: Tensor = Tensor.fromBlob(buffer, shape)

        constructor(shape: LongArray) : this(Tensor.allocateFloatBuffer(Tensor.numel(shape).toInt()), shape)

        fun write(values: (FloatBuffer) -> Unit): Tensor {
            buffer.clear()
            values(buffer)
            buffer.clear()
            return tensor
        }
    }

    /** Room for the features of one picture. */
    private class Copies(like: List<EValue>) {
        private val inputs = like.map { Input(it.toTensor().shape()) }
        val values: List<EValue> = inputs.map { EValue.from(it.tensor) }

        fun fill(from: List<EValue>) {
            for ((input, value) in inputs.zip(from)) input.write(value.toTensor()::copyDataInto)
        }
    }

    private inner class Features(
        override val assessment: Assessment,
        override val tokens: FloatArray,
        var values: List<EValue>,
    ) : Encoded {
        private var copies: Copies? = null

        fun moveOut() {
            val room = spare.removeLastOrNull() ?: Copies(values)
            room.fill(values)
            values = room.values
            copies = room
        }

        override fun release() {
            copies?.let { spare.addLast(it) }
            copies = null
            values = emptyList()
            if (latest === this) latest = null
        }
    }

    companion object {
        /** Programs that this session runs, best first. */
        val PROGRAMS: List<String> = listOf("executorch-xnnpack-int8", "executorch-xnnpack-fp32")

        private const val FILE = "student.pte"

        /**
         * Check a program's files and load it, the bundle's specialists too, with [threads] (0: one for each fast core).
         *
         * Throws [BundleException] for a damaged or unsuitable bundle, [ProgramException] where it does not load here.
         */
        fun load(bundle: Bundle, program: Program, threads: Int = 0): ExecuTorchSession {
            val files = bundle.files(program)
            val file = files.find { it.name == FILE } ?: throw BundleException("${program.name} has no $FILE; export it again")
            if (files.size > 1) {
                val others = (files - file).joinToString { it.name }
                throw BundleException(
                    "${program.name} keeps weights apart ($others), which ExecuTorch's Android library cannot load; " +
                        "export it without --experts",
                )
            }
            val exportedWith = program.madeWith["executorch"] ?: "an unknown version"
            val advice = "it was exported with ExecuTorch $exportedWith; use the same version of executorch-android"
            return try {
                val module = Module.load(file.path, Module.LOAD_MODE_MMAP, threads)
                try {
                    val specialists = bundle.manifest.routing.specialists.map(::specialistMethod)
                    (listOf(ENCODE, REFINE) + specialists).forEach(module::loadMethod)
                } catch (error: RuntimeException) {
                    module.destroy()
                    throw error
                }
                ExecuTorchSession(module, bundle.manifest.tile)
            } catch (error: RuntimeException) {
                throw ProgramException("${program.name} does not load (${error.oneLine()}); $advice", error)
            } catch (error: LinkageError) {
                throw ProgramException("ExecuTorch has no library for this device's processor (${error.oneLine()})", error)
            }
        }
    }
}

private fun Throwable.oneLine(): String = (message ?: javaClass.simpleName).lineSequence().first()
