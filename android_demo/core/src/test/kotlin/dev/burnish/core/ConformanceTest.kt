package dev.burnish.core

import com.google.gson.JsonElement
import com.google.gson.JsonObject
import com.google.gson.JsonParser
import java.io.File
import kotlin.math.abs
import kotlin.math.max
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.junit.runners.Parameterized

/** Plays every case of tests/conformance as docs/conformance.md says; a case that is added there is one more test here. */
@RunWith(Parameterized::class)
class ConformanceTest(
    @Suppress("unused") private val name: String,
    private val section: String,
    private val case: JsonObject,
    private val tolerance: JsonObject,
) {
    @Test
    fun givesWhatIsExpected() {
        val given = when (section) {
            "controller.estimates" -> playEstimate(case)
            "controller.means" -> playMean(case)
            "controller.refusals" -> playRefusal(case)
            "controller.cases", "tiles.orders" -> playController(case)
            "routing.cases" -> playRouting(case)
            "tiles.plans" -> playPlan(case)
            else -> throw AssertionError("no player for $section")
        }
        compare("", case["expected"], given)
    }

    private fun compare(place: String, expected: JsonElement, given: Any?) {
        when {
            expected.isJsonObject -> {
                val values = given as Map<*, *>
                assertEquals("names in $place", expected.asJsonObject.keySet().toList(), values.keys.toList())
                for ((key, value) in expected.asJsonObject.entrySet()) compare("$place.$key", value, values[key])
            }
            expected.isJsonArray -> {
                val values = given as List<*>
                assertEquals("length of $place", expected.asJsonArray.size(), values.size)
                expected.asJsonArray.forEachIndexed { i, value -> compare("$place.$i", value, values[i]) }
            }
            given is Double -> {
                val wanted = expected.asDouble
                val allowed = max(
                    tolerance["relative"].asDouble * max(abs(wanted), abs(given)),
                    tolerance["absolute"].asDouble,
                )
                assertTrue("$place: $given, expected $wanted", abs(wanted - given) <= allowed)
            }
            given is Int -> assertEquals(place, expected.asInt, given)
            given is Boolean -> assertEquals(place, expected.asBoolean, given)
            else -> assertEquals(place, expected.asString, given)
        }
    }

    companion object {
        @JvmStatic
        @Parameterized.Parameters(name = "{1}: {0}")
        fun cases(): List<Array<Any>> = listOf("controller", "routing", "tiles").flatMap { name ->
            val file = JsonParser.parseString(File(folder(), "$name.json").readText()).asJsonObject
            assertEquals("format of $name.json", 1, file["format"].asInt)
            file.entrySet().filter { it.value.isJsonArray }.flatMap { (section, cases) ->
                cases.asJsonArray.map { case ->
                    val values = case.asJsonObject
                    arrayOf<Any>(values["name"].asString, "$name.$section", values, file.getAsJsonObject("tolerance"))
                }
            }
        }

        private fun folder() = File(
            System.getProperty("burnish.conformance")
                ?: throw AssertionError("set -Dburnish.conformance to tests/conformance of the repository"),
        )
    }
}

// JSON has no NaN: null stands for it.
private fun JsonElement.number() = if (isJsonNull) Double.NaN else asDouble

private fun JsonElement.numbers() = asJsonArray.map { it.number() }

private fun JsonObject.numberOr(name: String, default: Double) = this[name]?.asDouble ?: default

private fun playEstimate(case: JsonObject): Map<String, Any> {
    val (mean, deviation) = case["start"].numbers()
    val last = case["observe"].numbers().fold(Estimate(mean, deviation)) { estimate, value -> estimate.observe(value) }
    return mapOf("mean" to last.mean, "deviation" to last.deviation, "upper" to last.upper)
}

private fun playRefusal(case: JsonObject): Map<String, Any> {
    val seed = case.getAsJsonObject("cost")
    fun seeded(method: String) = seed[method].numbers().let { (mean, deviation) -> Estimate(mean, deviation) }
    var cost = CostModel(seeded("encode"), seeded("refine"))
    for (ms in case["encode_ms"].numbers()) cost = cost.encoded(ms)
    for (ms in case["refine_ms"].numbers()) cost = cost.refined(ms)
    for (budget in case["budgets_ms"].numbers()) cost = cost.refused(budget)
    fun told(part: Estimate) = listOf(part.mean, part.deviation)
    return mapOf("encode" to told(cost.encode), "refine" to told(cost.refine))
}

private fun playMean(case: JsonObject): Map<String, Any> {
    val (one, other, difference) = listOf("one", "other", "difference").map { case[it].asDouble }
    return mapOf("quality" to qualityOfMean(one, case["count"]?.asInt ?: 1, other, difference))
}

private fun policyOf(values: JsonObject): Policy = values.entrySet().fold(Policy()) { policy, (name, value) ->
    when (name) {
        "budget_ms" -> policy.copy(budgetMs = value.asDouble)
        "min_quality" -> policy.copy(minQuality = value.asDouble)
        "max_iterations" -> policy.copy(maxIterations = value.asInt)
        "min_iterations" -> policy.copy(minIterations = value.asInt)
        "min_gain" -> policy.copy(minGain = value.asDouble)
        "rollback" -> policy.copy(rollback = value.asBoolean)
        else -> throw AssertionError("unknown policy $name")
    }
}

private fun playController(case: JsonObject): Map<String, Any> {
    val (encode, refine) = listOf("encode", "refine").map { name ->
        case.getAsJsonObject("cost")[name].numbers().let { Estimate(it[0], it[1]) }
    }
    val controller = Controller(
        policyOf(case.getAsJsonObject("policy")),
        CostModel(encode, refine),
        case["areas"]?.numbers() ?: listOf(1.0),
        looks = case["looks"]?.asBoolean ?: false,
        keep = case["keep"]?.asInt ?: 1_000_000,
    )
    var elapsed = case.numberOr("started_ms", 0.0)
    val actions = mutableListOf<String>()

    fun tile(index: Int) = case["tiles"].asJsonArray[index].asJsonObject

    fun answer(index: Int, kind: String, row: Int) = tile(index)[kind].asJsonArray[row].numbers()

    while (true) {
        val ms: Double
        when (val action = controller.choose(elapsed)) {
            Action.Stop -> break
            is Action.Look -> {
                actions += "look"
                ms = case["look_ms"].asDouble
                val first = controller.roundsLookedAt == 0
                controller.looked(ms, survey = first && case["survey"]?.asBoolean ?: false)
            }
            is Action.Encode -> {
                actions += "encode ${action.tile}"
                val (quality, took) = answer(action.tile, "encode", controller.tiles[action.tile].iteration)
                ms = took
                val (belief, variance, upright) = tile(action.tile)["prospect"].asJsonArray.toList()
                val prospect = Prospect(belief.asDouble, variance.asDouble, upright.asBoolean)
                controller.encoded(action.tile, quality, prospect, ms)
            }
            is Action.Mirror -> {
                actions += "mirror ${action.tile}"
                ms = answer(action.tile, "encode", controller.tiles[action.tile].iteration)[1]
                controller.mirrored(action.tile, ms)
            }
            is Action.Recall -> {
                actions += "recall ${action.tile}"
                ms = answer(action.tile, "encode", 0)[1]
                controller.recalled(action.tile, ms)
            }
            is Action.Refine -> {
                actions += "refine ${action.tile}"
                val (quality, took, difference) = answer(action.tile, "refine", controller.tiles[action.tile].iteration)
                ms = took
                controller.refined(action.tile, quality, ms, difference)
            }
        }
        elapsed += ms + case.numberOr("idle_ms", 0.0)
        if (actions.size == case["cancel_after"]?.asInt) controller.cancel()
    }
    return mapOf(
        "actions" to actions,
        "reason" to controller.reason!!.word,
        "iterations" to controller.tiles.map { it.iteration },
        "kept" to controller.tiles.map { it.bestIteration },
        "quality" to controller.quality,
        "elapsed_ms" to elapsed,
    )
}

private fun playRouting(case: JsonObject): Map<String, Any> {
    val fields = case.getAsJsonObject("routing")
    val routing = Routing(
        tree = fields.getAsJsonObject("tree").entrySet().associate { (parent, leaves) ->
            parent to leaves.asJsonArray.map { it.asString }
        },
        threshold = fields["threshold"].asDouble,
        softness = fields["softness"].asDouble,
        top = fields["top"].asInt,
        whole = fields["whole"].asJsonArray.map { it.asString }.toSet(),
        likely = fields.getAsJsonObject("likely")?.entrySet()?.associate { it.key to it.value.asDouble }.orEmpty(),
        uneven = fields["uneven"].asJsonArray.map { it.asString }.toSet(),
        lookTokens = fields["look_tokens"]?.asJsonArray?.map { it.asString }?.toSet().orEmpty(),
        meanTokens = fields["mean_tokens"]?.asJsonArray?.map { it.asString }?.toSet().orEmpty(),
        specialists = fields["specialists"]?.asJsonArray?.map { it.asString }?.toSet().orEmpty(),
        certain = fields.getAsJsonObject("certain")?.entrySet()?.associate { it.key to it.value.asDouble }.orEmpty(),
        variance = fields.getAsJsonObject("variance")?.entrySet()?.associate { it.key to it.value.asDouble }.orEmpty(),
    )
    val logits = case["logits"].numbers()
    case.getAsJsonObject("given")?.let { given ->
        return try {
            val gates = givenGates(routing, given.entrySet().associate { it.key to it.value.asDouble })
            routed(routing, beliefsOf(routing, logits), gates, gates)
        } catch (_: InputException) {
            mapOf("error" to true)
        }
    }
    val looks = case["looks"]?.asJsonArray?.map { it.numbers() }.orEmpty()
    val agreed = agreedLogits(routing, looks, logits)
    val beliefs = beliefsOf(routing, agreed)
    val said = routed(routing, beliefs, route(routing, case["granularity"].number(), agreed), beliefs)
    return if (looks.isEmpty()) said else said + ("tokens" to tokenSource(routing, looks.first()).word)
}

private fun beliefsOf(routing: Routing, logits: List<Double>) = routing.leaves.zip(logits.map(::sigmoid)).toMap()

// [choosing]: what the method is chosen by.
private fun routed(
    routing: Routing,
    beliefs: Map<String, Double>,
    gates: Gates,
    choosing: Map<String, Double>,
): Map<String, Any> {
    val (belief, variance, upright) = prospect(routing, beliefs, gates)
    return mapOf(
        "gates" to gates,
        "method" to refiner(routing, choosing),
        "prospect" to mapOf("belief" to belief, "variance" to variance, "upright" to upright),
    )
}

private fun playPlan(case: JsonObject): Map<String, Any> {
    val (height, width, tile, overlap) = listOf("height", "width", "tile", "overlap").map { case[it].asInt }
    val plan = planTiles(height, width, tile, overlap)
    return mapOf(
        "rows" to plan.rows,
        "columns" to plan.columns,
        "areas" to if (plan.size <= 12) plan.areas else plan.areas.take(3),
        "weights" to case["points"].asJsonArray.map { point ->
            val (row, column, y, x) = point.asJsonArray.map { it.asInt }
            listOf(row, column, y, x, (plan.down[row][y] * plan.across[column][x]).toDouble())
        },
        "small" to smallSize(height, width, tile).toList(),
    )
}
