package dev.burnish.core

import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class PerfTest {
    @Test
    fun percentilesAreMeasuredValues() {
        val timing = Timing.of((1..50).map { it.toDouble() }.shuffled())
        assertEquals(25.5, timing.p50Ms, 0.0)
        assertEquals(45.0, timing.p90Ms, 0.0)
        assertEquals(50.0, timing.p99Ms, 0.0)
        assertEquals(1.0, timing.leastMs, 0.0)
        assertEquals(25.5, timing.meanMs, 0.0)
        assertEquals(14.4309, timing.deviationMs, 0.0)
    }

    @Test
    fun oneRunIsAllPercentiles() {
        assertEquals(Timing(1, 7.0, 0.0, 7.0, 7.0, 7.0, 7.0), Timing.of(listOf(7.0)))
    }

    @Test
    fun aPlanNeedsARunInEachBlock() {
        assertThrows(InputException::class.java) { BenchmarkPlan(runs = 3, blocks = 5) }
    }

    @Test
    fun instrumentsReadThisMachineOrSayNothing() {
        val instruments = Instruments()
        assertTrue(instruments.residentBytes() > 1_000_000)
        assertTrue(instruments.freeBytes()!! > 1_000_000)
        instruments.temperatureC()?.let { assertTrue(it in 1.0..150.0) } ?: assertNull(instruments.temperatureC())
    }
}
