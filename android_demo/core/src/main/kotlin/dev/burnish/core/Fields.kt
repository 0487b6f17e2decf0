package dev.burnish.core

import com.google.gson.Gson
import com.google.gson.JsonElement
import com.google.gson.JsonIOException
import com.google.gson.JsonObject
import com.google.gson.JsonParseException
import com.google.gson.stream.JsonReader
import com.google.gson.stream.JsonToken
import java.io.IOException
import java.io.StringReader
import kotlin.math.abs
import kotlin.math.round

/** The fields of an object of a manifest, read by name and type; what is not as expected throws [BundleException]. */
internal class Fields(private val place: String, private val values: JsonObject) {
    val names: Set<String> get() = values.keySet()

    operator fun contains(name: String): Boolean = values.has(name)

    fun text(name: String): String {
        val value = required(name)
        if (!value.isJsonPrimitive || !value.asJsonPrimitive.isString) fail(name, "expected a text")
        return value.asString
    }

    fun number(name: String): Double = numberOf(name, required(name))

    fun whole(name: String): Long {
        val value = number(name)
        if (value != round(value) || abs(value) > 1e15) fail(name, "expected a whole number")
        return value.toLong()
    }

    fun fields(name: String): Fields = fieldsOf(name, required(name))

    fun allFields(name: String): List<Fields> = elements(name).mapIndexed { i, value -> fieldsOf("$name.$i", value) }

    fun texts(name: String): List<String> = elements(name).mapIndexed { i, value ->
        if (!value.isJsonPrimitive || !value.asJsonPrimitive.isString) fail("$name.$i", "expected a text")
        value.asString
    }

    fun numbers(name: String): List<Double> = elements(name).mapIndexed { i, value -> numberOf("$name.$i", value) }

    fun fail(name: String, message: String): Nothing = throw BundleException("$place.$name: $message; export it again")

    private fun elements(name: String): List<JsonElement> {
        val value = required(name)
        if (!value.isJsonArray) fail(name, "expected a list")
        return value.asJsonArray.toList()
    }

    private fun required(name: String): JsonElement = values.get(name) ?: fail(name, "missing")

    private fun numberOf(name: String, value: JsonElement): Double {
        if (!value.isJsonPrimitive || !value.asJsonPrimitive.isNumber) fail(name, "expected a number")
        val number = value.asDouble
        if (number.isNaN() || number.isInfinite()) fail(name, "expected a finite number")
        return number
    }

    private fun fieldsOf(name: String, value: JsonElement): Fields {
        if (!value.isJsonObject) fail(name, "expected an object")
        return Fields("$place.$name", value.asJsonObject)
    }

    companion object {
        /** The object that a JSON text is; [place] names it in messages. */
        fun parse(place: String, text: String): Fields {
            val value = try {
                // The adapter leaves the reader strict, unlike JsonParser.
                val reader = JsonReader(StringReader(text))
                val element = Gson().getAdapter(JsonElement::class.java).read(reader)
                if (reader.peek() != JsonToken.END_DOCUMENT) throw JsonParseException("something follows it")
                element
            } catch (error: IOException) {
                throw invalid(place, error)
            } catch (error: JsonParseException) {
                throw invalid(place, error)
            } catch (error: JsonIOException) {
                throw invalid(place, error)
            } catch (error: NumberFormatException) {
                throw invalid(place, error)
            }
            if (!value.isJsonObject) throw BundleException("$place is no JSON object; export the bundle again")
            return Fields(place, value.asJsonObject)
        }

        private fun invalid(place: String, error: Exception) =
            BundleException("$place is not valid JSON (${error.message?.take(80)}); export the bundle again", error)
    }
}
