"""Writes controller.json, routing.json and tiles.json: python tests/conformance/make.py [FOLDER]

What a case asks is written here; what is expected is what the Python runtime answers, to be read before it is committed.
docs/conformance.md says what the fields mean. Cases that are there keep their meaning: Kotlin and Swift run them too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "runtime"))

from conformance import PLAYERS, Case  # noqa: E402

RISING = [0.5, 0.6, 0.65, 0.68, 0.69, 0.695, 0.7, 0.7]
SEED = {"encode": [10, 0], "refine": [20, 0]}
NOTHING = {"encode": [0, 0], "refine": [0, 0]}
# Cases state that whatever is expected goes on, so that they do not change with the default.
ANY_GAIN: Case = {"min_gain": -1.0}


def tile(
    start: float | None,
    qualities: list[float | None],
    encode_ms: float = 10,
    refine_ms: float | list[float] = 20,
    assessed: list[float | None] | None = None,
    belief: float = 0.8,
    variance: float = 0.1,
    upright: bool = True,
    differences: list[float] | None = None,
) -> Case:
    """One tile's answers: what encode assesses before every iteration, and what refine predicts after it, with the difference
    of a view from the mean; after the first encode says what refine said, unless `assessed` has something else. Its prospect.
    """
    count = len(qualities)
    times = refine_ms if isinstance(refine_ms, list) else [refine_ms] * count
    assessed = [start, *(assessed or qualities[:-1])]
    differences = differences or [0.0, 0.002, 0.001, 0.0008, *[0.0] * count]
    return {
        "prospect": [belief, variance, upright],
        "encode": [[q, encode_ms] for q in assessed],
        "refine": [[q, ms, d] for q, ms, d in zip(qualities, times, differences, strict=False)],
    }


def one(name: str, policy: Case, answers: Case | None = None, cost: Case = NOTHING, **more: Any) -> Case:
    """A case of a picture of one tile. It goes on whatever is expected, unless the policy says otherwise."""
    policy = ANY_GAIN | policy
    return {"name": name, "policy": policy, "cost": cost, **more, "tiles": [answers or tile(0.4, RISING)]}


def controller() -> dict[str, list[Case]]:
    free = {"max_iterations": 8}
    slow = tile(0.4, RISING, refine_ms=[20, 60, 60, 60, 60, 60, 60, 60])
    spike = tile(0.4, RISING, refine_ms=[20, 20, 200, 20, 20, 20, 20, 20])
    cases = [
        one("iteration limit", {"max_iterations": 2}),
        one("default limit is four", {}),
        one("no iterations allowed", {"max_iterations": 0}),
        one("no iterations allowed wins over least iterations", {"max_iterations": 0, "min_iterations": 2}),
        one("limit wins over least iterations", {"max_iterations": 1, "min_iterations": 3}),
        one("quality already there", {"min_quality": 0.4}),
        one("quality just missed at the start", {"min_quality": 0.4000001, "max_iterations": 1}),
        one("quality reached later", {"min_quality": 0.6}),
        one("quality reached exactly", {"min_quality": 0.65, "max_iterations": 8}),
        one("quality comes before the iteration limit", {"min_quality": 0.6, "max_iterations": 2}),
        one("quality of one is never reached", {"min_quality": 1.0}),
        one("quality of zero is there at once", {"min_quality": 0.0}),
        one("no wanted quality never stops by quality", {"max_iterations": 8}, tile(1.0, [1.0] * 8)),
        one("quality waits for the least iterations", {"min_quality": 0.3, "min_iterations": 2}),
        one(
            "quality reached early, lost by the least iterations",
            {"min_quality": 0.55, "min_iterations": 2},
            tile(0.4, [0.6, 0.4, 0.4]),
        ),
        one("regression rolls back", {}, tile(0.4, [0.5, 0.3, 0.6])),
        one("regression in the first step keeps the picture itself", {}, tile(0.4, [0.2, 0.6])),
        one("regression comes before plateau", {"min_gain": 0.5}, tile(0.4, [0.2, 0.6], belief=1.0)),
        one(
            "a picture that is rolled back reaches no quality",
            {"min_quality": 0.3, "min_iterations": 1},
            tile(0.6, [0.4, 0.7]),
        ),
        one("quality comes before plateau", {"min_quality": 0.3, "min_iterations": 1}, tile(0.4, [0.39, 0.6])),
        one("regression waits for the least iterations", {"min_iterations": 2}, tile(0.4, [0.2, 0.5, 0.3])),
        one(
            "a forced regression keeps the best", {"min_iterations": 3, "max_iterations": 3}, tile(0.4, [0.6, 0.3, 0.4])
        ),
        one("small losses of views do not add up", {}, tile(0.4, [0.6, 0.56, 0.54, 0.53], upright=False)),
        one("nor do those from what encode said", {}, tile(0.62, [0.59, 0.58, 0.56, 0.55], upright=False)),
        one(
            "without roll-back the last is kept",
            {"rollback": False, "max_iterations": 3},
            tile(0.4, [0.6, 0.5, 0.3]),
        ),
        one("without roll-back a loss goes on", {"rollback": False, "max_iterations": 3}, tile(0.4, [0.6, 0.5, 0.7])),
        one(
            "a picture in which nothing is believed is not restored",
            {"min_gain": 0.001},
            tile(0.4, RISING, belief=0.04),
        ),
        one("nor one of no belief at all", {"min_gain": 0.0}, tile(0.4, RISING, belief=0.0)),
        one("nor where its assessment is broken", {"min_gain": 0.001}, tile(None, RISING, belief=0.04)),
        one("but where it has to be", {"min_gain": 0.001, "min_iterations": 1}, tile(0.4, RISING, belief=0.04)),
        one("or where more is believed", {"min_gain": 0.001}, tile(0.4, RISING, belief=0.15, variance=0.0)),
        one("wanted quality comes before nothing to gain", {"min_quality": 0.4}, tile(0.4, RISING, belief=0.0)),
        one(
            "plateau: a mirror image that is expected to bring little",
            {"min_gain": 0.001},
            tile(0.4, RISING, variance=0.01),
        ),
        one("a mirror image that is expected to bring more", {"min_gain": 0.001, "max_iterations": 2}),
        {
            "name": "the default's plateau",
            "policy": {},
            "cost": NOTHING,
            "tiles": [tile(0.4, RISING, variance=0.018), tile(0.4, RISING, variance=0.019)],
            "areas": [0.5, 0.5],
        },
        one(
            "plateau: the first two views differ little",
            {"min_gain": 0.001},
            tile(0.4, RISING, upright=False, differences=[0.0, 1e-5, 0.002, 0.002]),
        ),
        one(
            "plateau: the third view differs little from the first two",
            {"min_gain": 0.001},
            tile(0.4, RISING, upright=False, differences=[0.0, 0.002, 1e-5, 0.002]),
        ),
        one("nothing is expected after the mirror image where it stays upright", {"min_gain": 0.0}),
        one(
            "nothing is expected after the views",
            {"min_gain": 0.0, "max_iterations": 6},
            tile(0.4, RISING, upright=False),
        ),
        one("it goes on after the views where it has to", {"min_gain": 0.0, "min_iterations": 3}),
        one("a tie keeps the later picture", {"max_iterations": 2}, tile(0.5, [0.5, 0.5])),
        one(
            "plateau comes before the iteration limit",
            {"min_gain": 0.2, "max_iterations": 1},
            tile(0.4, RISING, belief=1.0),
        ),
        one("a negative least gain leaves regression alone", free, tile(0.4, [0.5, 0.3, 0.6])),
        one("a loss too small to be believed is kept", {"max_iterations": 3}, tile(0.4, [0.5, 0.49, 0.6])),
        one(
            "a loss too small to be believed, a negative least gain",
            {**free, "max_iterations": 3},
            tile(0.4, [0.5, 0.49, 0.6]),
        ),
        one("a small loss in the first step is kept", {"max_iterations": 2}, tile(0.4, [0.38, 0.6])),
        one("a loss just too small to be believed", {"max_iterations": 2}, tile(0.4, [0.355, 0.6])),
        one("a loss just large enough", {}, tile(0.4, [0.345, 0.6])),
        one(
            "small losses, each from the last kept",
            {**free, "max_iterations": 5},
            tile(0.4, [0.5, 0.47, 0.44, 0.41, 0.2]),
        ),
        one(
            "a gain counts from what encode says of the picture",
            {},
            tile(0.4, [0.5, 0.6, 0.58, 0.5], assessed=[None, 0.55, 0.5]),
        ),
        one(
            "a loss counts from what encode says",
            {"max_iterations": 3},
            tile(0.4, [0.5, 0.6, 0.7], assessed=[None, 0.8]),
        ),
        one(
            "encode says nothing of a later picture",
            {"max_iterations": 3},
            tile(0.4, [0.6, 0.7, 0.1], assessed=[None, None]),
        ),
        one(
            "the mean with the mirror image counts from what refine said",
            {"max_iterations": 2},
            tile(0.4, [0.5, 0.53], assessed=[0.3]),
        ),
        one(
            "the mean with the mirror image is lost by what refine said",
            {},
            tile(0.4, [0.6, 0.5], assessed=[0.4]),
        ),
        one(
            "after a forced loss the mean counts from the picture itself",
            {"min_iterations": 2, "max_iterations": 2},
            tile(0.5, [0.3, 0.48]),
        ),
        one(
            "after a forced loss the kept picture is what counts",
            {"min_iterations": 3, "max_iterations": 4},
            tile(0.4, [0.6, 0.3, 0.56, 0.7], assessed=[None, 0.2, 0.5]),
        ),
        one("all views, then on from there", free | {"max_iterations": 6}, tile(0.4, RISING, upright=False)),
        one(
            "a view counts from what refine said",
            {"max_iterations": 4},
            tile(0.4, [0.5, 0.53, 0.52, 0.54], assessed=[0.3, 0.3, 0.3], upright=False),
        ),
        one(
            "after the views a loss counts from what encode says",
            {"max_iterations": 6},
            tile(0.4, [0.5, 0.51, 0.52, 0.53, 0.54, 0.54], assessed=[0.9, 0.9, 0.9, 0.53, 0.6], upright=False),
        ),
        one("a broken view", {}, tile(0.4, [0.5, 0.51, None, 0.6], upright=False)),
        one("broken first step", {}, tile(0.4, [None, 0.6])),
        one("broken later step", {}, tile(0.4, [0.5, None, 0.6])),
        one("broken ends even forced iterations", {"min_iterations": 3}, tile(0.4, [0.5, None, 0.6])),
        one("broken ends without roll-back too", {"rollback": False}, tile(0.4, [0.5, None, 0.6])),
        one("broken assessment counts as zero", {"max_iterations": 1}, tile(None, [0.1, 0.2])),
        one(
            "broken assessment does not reach a quality", {"min_quality": 0.1, "max_iterations": 1}, tile(None, [0.05])
        ),
        one("budget of zero", {"budget_ms": 0}, cost=SEED),
        one("budget of zero, nothing known of the machine", {"budget_ms": 0}),
        one("budget below one step", {"budget_ms": 32}, cost=SEED),
        one("budget of exactly the predicted step", {"budget_ms": 32.7}, cost=SEED),
        one("budget for two steps", {"budget_ms": 66, **free}, cost=SEED),
        one("budget for all", {"budget_ms": 10_000}, cost=SEED),
        one("budget with forced iterations", {"budget_ms": 0, "min_iterations": 2}, cost=SEED),
        one("time passed before the first step", {"budget_ms": 40, **free}, cost=SEED, started_ms=10),
        one("time passes between steps", {"budget_ms": 100, **free}, cost=SEED, idle_ms=15),
        one(
            "the encode was slow: its refine no longer fits",
            {"budget_ms": 40, **free},
            tile(0.4, RISING, encode_ms=30),
            SEED,
        ),
        one(
            "an unsteady machine leaves more room",
            {"budget_ms": 66, **free},
            cost={"encode": [10, 1], "refine": [20, 4]},
        ),
        one("a slowdown is noticed within two steps", {"budget_ms": 330, **free}, slow, SEED),
        one("one outlier does not end it", {"budget_ms": 440, **free}, spike, SEED),
        one("seeds far too high refuse", {"budget_ms": 100, **free}, cost={"encode": [100, 5], "refine": [200, 5]}),
        one(
            "seeds far too high, first step forced, corrected in two",
            {"budget_ms": 400, "min_iterations": 2, **free},
            cost={"encode": [100, 5], "refine": [200, 5]},
        ),
        one(
            "quality comes before budget",
            {"budget_ms": 31, "min_quality": 0.5},
            cost={"encode": [10, 0.1], "refine": [15, 0.1]},
        ),
        one("regression comes before budget", {"budget_ms": 40}, tile(0.4, [0.2, 0.6]), SEED),
        one("cancelled before the first refine", {}, cancel_after=1),
        one("cancelled after two iterations keeps the best", {}, cancel_after=4),
        one("cancelled when all is done was not cancelled", {"max_iterations": 1}, cancel_after=2),
    ]
    estimates = [
        {"name": "knows nothing", "start": [0, 0], "observe": []},
        {"name": "the first duration", "start": [0, 0], "observe": [40]},
        {"name": "a steady machine keeps a least margin", "start": [20, 0], "observe": [20, 20, 20, 20]},
        {"name": "small changes are followed", "start": [20, 1], "observe": [21, 22, 21.5, 22]},
        {"name": "one outlier counts to the edge", "start": [20, 1], "observe": [200]},
        {"name": "an outlier and back", "start": [20, 1], "observe": [200, 20, 20]},
        {"name": "two outliers are the new pace", "start": [20, 1], "observe": [60, 62]},
        {"name": "outliers on both sides are no pace", "start": [20, 1], "observe": [60, 2]},
        {"name": "twice as fast", "start": [20, 0.5], "observe": [10, 10]},
        {"name": "outliers apart do not add up", "start": [20, 1], "observe": [60, 20, 60]},
        {"name": "a duration of zero", "start": [20, 1], "observe": [0]},
    ]

    def refusal(
        name: str, budgets_ms: list[float], encode_ms: list[float], refine_ms: list[float], seed: Case = NOTHING
    ) -> Case:
        return {"name": name, "cost": seed, "encode_ms": encode_ms, "refine_ms": refine_ms, "budgets_ms": budgets_ms}

    refusals = [
        refusal("what let nothing begin is doubted", [100], [20, 20, 80, 90], [40, 40, 160, 180]),
        refusal("again and again", [100] * 6, [20, 20, 80, 90], [40, 40, 160, 180]),
        refusal("but never below what a step once took", [100] * 40, [20, 24, 80, 90], [50, 40, 160, 180]),
        refusal("nor where even that does not fit", [59, 10, 0], [20, 20, 80, 90], [40, 40, 160, 180]),
        refusal("it fits when it is as long", [60], [20, 20, 80, 90], [40, 40, 160, 180]),
        refusal(
            "a seed that nothing was measured of has no least",
            [100] * 3,
            [],
            [],
            {"encode": [900, 9], "refine": [2000, 30]},
        ),
        refusal("what knows nothing stays so", [0], [], []),
    ]
    means = [
        {"name": "alike", "one": 0.5, "other": 0.5, "difference": 0.0},
        {"name": "one is better", "one": 0.6, "other": 0.5, "difference": 1e-4},
        {"name": "as far apart as independent errors", "one": 0.5, "other": 0.5, "difference": 0.002},
        {"name": "further apart than that", "one": 0.5, "other": 0.45, "difference": 0.1},
        {"name": "the ends of the scale", "one": 0.0, "other": 1.0, "difference": 0.01},
        {"name": "a third joins", "one": 0.52, "count": 2, "other": 0.5, "difference": 0.001},
        {"name": "a fourth joins, far apart", "one": 0.53, "count": 3, "other": 0.45, "difference": 0.1},
    ]
    return {"estimates": estimates, "means": means, "refusals": refusals, "cases": cases}


TREE = {"weather": ["rain", "snow", "haze"], "exposure": ["low_light", "noise"], "detail": ["blur", "jpeg"]}
ROUTING = {
    "tree": TREE,
    "threshold": -3.0,
    "softness": 0.7,
    "top": 4,
    "whole": ["haze", "low_light"],
    "uneven": ["low_light"],
    "specialists": ["noise", "rain", "jpeg"],
    "certain": {"jpeg": 0.9, "noise": 0.2},
    "variance": {"rain": 0.2, "snow": 0.15, "haze": 0.05, "low_light": 0.08, "noise": 0.12, "blur": 0.01},
}


def routing() -> dict[str, list[Case]]:
    leaves = [leaf for group in TREE.values() for leaf in group]

    def logits(default: float = -6.0, **named: float | None) -> list[float | None]:
        return [named.get(leaf, default) for leaf in leaves]

    def case(name: str, granularity: float | None, values: list[float | None], *looks: list[float | None]) -> Case:
        more = {"looks": list(looks)} if looks else {}
        return {"name": name, "routing": ROUTING, "granularity": granularity, "logits": values, **more}

    def given(name: str, degradations: dict[str, float], **seen: float) -> Case:
        return {"name": name, "routing": ROUTING, "given": degradations, "logits": logits(**seen)}

    small = {"tree": {"a": ["x", "y"]}, "threshold": 0.0, "softness": 1.0, "top": 1, "whole": [], "uneven": []}
    cases = [
        case("clean, certain", -8, logits()),
        case("clean, uncertain", 2, logits()),
        case("one leaf, certain", -9, logits(rain=6.0)),
        case("one leaf, uncertain, goes to its parent", 3, logits(rain=6.0)),
        case("granularity at the threshold shares equally", -3, logits(noise=4.0)),
        case("a mixture opens several", -9, logits(rain=6.0, noise=5.0)),
        case("all leaves at once, the top four stay", -4, logits(1.0)),
        case("ties go to who comes first", -3, logits(0.0)),
        case("a parent takes its strongest leaf", -3, logits(rain=1.0, snow=2.0, haze=3.0)),
        case("huge logits do not overflow", -1000, logits(-1000.0, haze=1000.0)),
        case("huge granularity does not overflow", 1000, logits(haze=1000.0)),
        case("a NaN logit is not believed", -9, logits(rain=None, noise=5.0)),
        case("NaN granularity is no confidence", None, logits(rain=6.0)),
        case("all NaN opens nothing", None, logits(**dict.fromkeys(leaves))),
        case(
            "haze comes from the look, rain from the tile",
            -9,
            logits(haze=-6.0, rain=4.0),
            logits(haze=5.0, rain=-6.0),
        ),
        case("a tile may see darkness where the look does not", -9, logits(low_light=8.0), logits()),
        case("a tile that is less sure than the look does not", -9, logits(low_light=5.0), logits()),
        case("look and tile add up where neither is sure", -9, logits(low_light=0.6), logits(low_light=0.5)),
        case("a sum that is not above 1 opens nothing", -9, logits(low_light=0.5), logits(low_light=0.4)),
        case("darkness that the look finds just likely", -9, logits(), logits(low_light=1.1)),
        case("darkness that it does not, and the tile denies", -9, logits(), logits(low_light=0.9)),
        case("of NaN in the tile the first look may deny", -9, logits(low_light=None), logits(), logits(low_light=5.0)),
        case("look and tile that cancel out open nothing", -9, logits(low_light=1.5), logits(low_light=-1.5)),
        case(
            "the surer of both where the look finds it likely: tile", -9, logits(low_light=3.0), logits(low_light=1.2)
        ),
        case("the surer of both where the look finds it likely: look", -9, logits(), logits(low_light=1.2)),
        case("of haze no tile overrules the look", -9, logits(haze=5.0), logits()),
        case("haze is left where the look is in doubt", -9, logits(haze=5.0), logits(haze=1.0)),
        case("haze that the look finds likely is not", -9, logits(haze=-5.0), logits(haze=1.1)),
        case("darkness of the look where the tile's is NaN", -9, logits(low_light=None), logits(low_light=2.0)),
        case("haze of the look where the tile's is NaN", -9, logits(haze=None), logits(haze=2.0)),
        case("haze of the tile where the look's is NaN", -9, logits(haze=2.0), logits(haze=None)),
        case("a tile goes by its own round's look", -9, logits(), logits(haze=0.5), logits(haze=5.0), logits(haze=2.0)),
        case(
            "haze that a later look no longer finds is gone", -9, logits(haze=5.0), logits(haze=5.0), logits(haze=0.5)
        ),
        case("haze that the first look found unlikely stays so", -9, logits(), logits(haze=0.0), logits(haze=5.0)),
        case("darkness may show in a later round", -9, logits(), logits(), logits(low_light=5.0)),
        case("a sure tile sees darkness in a later round", -9, logits(low_light=8.0), logits(), logits()),
        case("a first look of NaN denies nothing", -9, logits(), logits(haze=None), logits(haze=5.0)),
        case("blur comes from the tile though the look is sharp", -9, logits(blur=4.0), logits()),
        case("a leaf that has a specialist, alone", -9, logits(noise=1.0)),
        case("two leaves with specialists", -9, logits(noise=6.0, rain=0.1)),
        case("a leaf without a specialist", -9, logits(snow=6.0)),
        case("a specialist's leaf as likely as not", -9, logits(rain=0.0)),
        case("a specialist that is asked where its leaf is unlikely", -9, logits(noise=-1.3)),
        case("a specialist whose leaf is more unlikely than that", -9, logits(noise=-1.5)),
        case("a likelier leaf bars an unlikely one's specialist", -9, logits(noise=-0.5, blur=-0.4)),
        case("of leaves as unlikely the first has a specialist", -9, logits(noise=-0.5, blur=-0.5)),
        case("of leaves as unlikely the first has none", -9, logits(noise=-0.5, low_light=-0.5)),
        case("a specialist that is asked where its leaf is certain", -9, logits(jpeg=2.3)),
        case("a specialist whose leaf is not as certain as asked", -9, logits(jpeg=2.1)),
        case("another leaf that is likely bars a certain one's specialist", -9, logits(jpeg=6.0, blur=0.1)),
        case("a specialist is asked whatever the parent's gate", 3, logits(noise=6.0)),
        case("the look's darkness joins the tile's noise", -9, logits(noise=6.0), logits(low_light=5.0)),
        case("haze that the look denies leaves rain alone", -9, logits(haze=5.0, rain=6.0), logits()),
        given("a specialist that the caller asks for", {"noise": 1.0}, rain=6.0),
        given("a weight that is not as certain as asked", {"jpeg": 0.8}, jpeg=6.0),
        given("half a weight asks for no specialist", {"rain": 0.5}, rain=6.0),
        given("a weight that asks for a specialist where little does", {"noise": 0.3}, rain=6.0),
        given("a weight as certain as asked is not more", {"noise": 0.2}, rain=6.0),
        given("a parent's weight bars no specialist", {"exposure": 1.0, "noise": 0.3}),
        {"name": "another tree, one gate", "routing": small, "granularity": -1.0, "logits": [2.0, 1.9]},
        {
            "name": "another tree, top wider than the tree",
            "routing": small | {"top": 9},
            "granularity": 0.5,
            "logits": [2.0, -2.0],
        },
        {
            "name": "a sharp threshold",
            "routing": ROUTING | {"softness": 0.01},
            "granularity": -2.9,
            "logits": logits(rain=6.0),
        },
        {
            "name": "nothing judged by the whole",
            "routing": ROUTING | {"whole": []},
            "granularity": -9,
            "logits": logits(),
            "looks": [logits(haze=6.0)],
        },
        *(
            case(name, -9, logits(), *looks)
            | {"routing": ROUTING | {"look_tokens": ["haze", "rain"], "mean_tokens": ["low_light", "rain"]}}
            for name, looks in {
                "a likely leaf has tiles take the look's tokens": [logits(haze=1.1)],
                "one of several is enough": [logits(rain=2.0, snow=3.0)],
                "a doubtful one does not": [logits(haze=1.0)],
                "nor does a leaf that is not named": [logits(snow=5.0)],
                "nor one of which the look says NaN": [logits(haze=None)],
                "the first look decides on tokens": [logits(), logits(haze=5.0)],
                "another leaf has tiles take the mean of their tokens": [logits(low_light=0.1)],
                "a likely leaf of both": [logits(rain=1.1)],
                "a doubtful leaf of both": [logits(rain=0.9)],
                "the look's tokens come before the mean": [logits(haze=2.0, low_light=3.0)],
                "an even one brings no mean": [logits(low_light=0.0)],
                "nor does NaN": [logits(low_light=None)],
            }.items()
        ),
        *(
            case(name, -9, logits(haze=5.0, low_light=2.0), *looks)
            | {
                "routing": ROUTING
                | {"likely": {"haze": 0.25}, "look_tokens": ["haze", "rain"], "mean_tokens": ["low_light"]}
            }
            for name, looks in {
                "a bundle may believe looks earlier": [logits(haze=0.3)],
                "no earlier than it says": [logits(haze=0.25)],
                "in later rounds too": [logits(haze=0.3), logits(haze=0.2)],
                "of another leaf no earlier": [logits(rain=0.3, low_light=0.3)],
            }.items()
        ),
        given("given by hand", {"rain": 0.7, "noise": 0.3}),
        given("haze that is given keeps it upright, noise is seen", {"haze": 0.6}, noise=5.0),
        given("nothing given opens nothing", {}),
        given("what is seen is believed where nothing is given", {}, jpeg=5.0),
        given("a parent can be given", {"weather": 1.0}),
        given("more than the top can be given", dict.fromkeys(leaves, 0.5)),
        given("an unknown leaf is refused", {"fog": 1.0}),
        given("a weight above one is refused", {"rain": 1.5}),
        given("a negative weight is refused", {"rain": -0.1}),
    ]
    return {"cases": cases}


def tiles() -> dict[str, list[Case]]:
    def plan(name: str, height: int, width: int, points: list[list[int]], side: int = 272, overlap: int = 32) -> Case:
        return {"name": name, "height": height, "width": width, "tile": side, "overlap": overlap, "points": points}

    plans = [
        plan("one pixel", 1, 1, [[0, 0, 0, 0]]),
        plan("smaller than a tile", 100, 200, [[0, 0, 99, 199]]),
        plan("exactly a tile", 272, 272, [[0, 0, 0, 271]]),
        plan("one pixel more than a tile", 273, 272, [[0, 0, 0, 0], [0, 0, 271, 5], [1, 0, 0, 5]]),
        plan("a strip, lying", 20, 12000, [[0, 1, 0, 0], [0, 1, 19, 31]]),
        plan("a strip, standing", 12000, 20, [[49, 0, 271, 19]]),
        plan("500 square is four tiles", 500, 500, [[0, 0, 0, 0], [0, 0, 250, 250], [0, 1, 3, 3], [1, 1, 21, 21]]),
        plan("512 square is four tiles", 512, 512, [[0, 0, 255, 0], [1, 0, 15, 0]]),
        plan("513 needs nine", 513, 513, [[1, 1, 40, 40], [1, 1, 135, 135], [2, 2, 256, 256]]),
        plan("kodak", 512, 768, [[0, 1, 100, 12], [1, 3, 271, 271]]),
        plan("full HD", 1080, 1920, [[2, 3, 5, 9]]),
        plan("a phone's 12 megapixels", 3024, 4032, [[6, 8, 0, 100]]),
        plan("small tiles, overlaps that meet", 100, 65, [[0, 1, 33, 1], [1, 0, 32, 63]], side=64, overlap=32),
        plan("no overlap", 128, 192, [[0, 0, 63, 63], [1, 2, 0, 0]], side=64, overlap=0),
        plan("prime sides", 997, 1009, [[1, 2, 11, 13]]),
        plan("tile of sixteen, the last ones nearly empty", 33, 17, [[0, 0, 7, 7], [2, 1, 0, 0]], side=16, overlap=0),
        plan("edges off the grid", 333, 550, [[1, 2, 0, 0], [1, 2, 268, 261]]),
    ]
    third = [1 / 3] * 3
    good, fair, bad = ([0.7, 0.71, 0.712, 0.713], [0.5, 0.52, 0.53, 0.535], [0.3, 0.4, 0.45, 0.47])
    mixed = [
        tile(0.6, good, belief=0.3),
        tile(0.3, fair, belief=0.9),
        tile(0.1, bad, belief=0.9),
    ]
    alike = [tile(0.3, fair) for _ in range(3)]

    def order(name: str, policy: Case, answers: list[Case], **more: Any) -> Case:
        policy = ANY_GAIN | policy
        return {"name": name, "policy": policy, "cost": SEED, "areas": third, **more, "tiles": answers}

    looking = {"looks": True, "look_ms": 12}
    surveying = looking | {"survey": True}
    turned = [
        tile(0.6, [0.7, 0.71, 0.712, 0.713, 0.714], upright=False, differences=[0, 2e-4, 3e-4, 1e-5, 0]),
        tile(0.3, [0.5, 0.52, 0.53, 0.535, 0.54], upright=False, differences=[0, 1e-3, 2e-4, 2e-5, 0]),
        tile(0.3, [0.4, 0.45, 0.47, 0.48, 0.49]),
    ]
    varied = [
        tile(0.1, bad, variance=0.001),
        tile(0.3, fair, variance=0.05),
        tile(0.3, fair, belief=0.05, variance=0.2),
    ]
    fifth, five = [0.2] * 5, [*mixed, *alike[:2]]
    slow = [tile(0.3, fair, encode_ms=20) for _ in range(3)]
    forced = {"min_iterations": 2, "max_iterations": 2}
    orders = [
        order("every tile once, then the worst", {"budget_ms": 190}, mixed),
        order("the mirror image where it is expected to bring most", {"budget_ms": 130}, varied),
        order("a tile in which nothing is believed is passed", {"max_iterations": 2, "min_gain": 0.001}, varied),
        order("views where they bring most, until they bring little", {"min_gain": 0.001}, turned, **looking),
        order("a survey finds nothing to restore", {"min_gain": 0.001}, [varied[2]] * 3, **surveying),
        order("to the iteration limit", {"max_iterations": 2}, mixed),
        order("no iterations allowed", {"max_iterations": 0}, mixed),
        order("alike tiles go round", {"max_iterations": 2}, alike),
        order("alike tiles, shares decide", {"max_iterations": 2}, alike, areas=[0.2, 0.3, 0.5]),
        order("budget within the first round", {"budget_ms": 75}, mixed),
        order("budget of zero", {"budget_ms": 0}, mixed),
        order("least iterations go in rounds", forced | {"rollback": False}, mixed),
        order("least iterations whatever the budget", forced | {"budget_ms": 0}, alike),
        order("a tile that is good is not refined", {"min_quality": 0.6, "max_iterations": 1}, mixed),
        order("the picture is good enough before all tiles are", {"min_quality": 0.455, "max_iterations": 4}, mixed),
        order("a tile that got worse is done", {"max_iterations": 3}, [mixed[0], tile(0.5, [0.3, 0.6, 0.7]), mixed[2]]),
        order("a broken tile is done", {"max_iterations": 2}, [mixed[0], tile(0.3, [None, 0.6, 0.7]), mixed[2]]),
        order("all tiles broken", {}, [tile(0.3, [None, 0.5])] * 3),
        order("the mirror image goes by the first look", {"max_iterations": 2}, mixed, **looking),
        order("one look a round after that", {"max_iterations": 4}, mixed, **looking),
        order("no time for the look", {"budget_ms": 40}, mixed, **looking),
        order("the look of a third round has to fit", {"budget_ms": 230}, alike, **looking),
        order("a survey comes before the first refine", {"max_iterations": 2}, mixed, **surveying),
        order(
            "after a survey what promises most goes first",
            {"max_iterations": 1},
            [*alike[:2], *mixed[::2]],
            areas=[0.1, 0.4, 0.3, 0.2],
            **surveying,
        ),
        order("a survey of what can be kept", {"max_iterations": 1}, five, areas=fifth, keep=3, **surveying),
        order("no survey with room for one", {"max_iterations": 2}, mixed, keep=1, **surveying),
        order("no survey where all do not fit", {"budget_ms": 100}, mixed, **surveying),
        order("a survey that turns out slow leaves what fits", {"budget_ms": 115}, slow, **surveying),
        order("a survey whatever the budget", forced | {"budget_ms": 0}, alike, **surveying),
        order("a survey finds tiles that are good", {"min_quality": 0.6, "max_iterations": 1}, mixed, **surveying),
        order("no iterations allowed, no survey", {"max_iterations": 0}, mixed, **surveying),
        order("views in the order of their gains", {"max_iterations": 4}, turned, **looking),
        order(
            "after the views a second look",
            {"max_iterations": 5},
            turned[:2],
            areas=[0.4, 0.6],
            **looking,
        ),
        order("views want no room", {"max_iterations": 4}, turned, keep=1),
        order("after the views the original is encoded again", {"max_iterations": 5}, turned, keep=1),
        order("room for one tile's features", {"max_iterations": 3}, mixed, keep=1),
        order("room for three tiles' features", {"max_iterations": 3}, mixed, keep=3),
        order("no room costs the mirror images nothing", {"budget_ms": 175}, alike, keep=1),
        order("what was given up costs more and may not fit", {"budget_ms": 235}, alike, keep=1),
        order("cancelled in the first round", {}, mixed, cancel_after=3),
        order("nothing is expected: in order", {"max_iterations": 2}, [tile(0.5, fair, belief=0.0, variance=0.0)] * 3),
    ]
    return {"plans": plans, "orders": orders}


# Blending weights and areas are single precision.
TOLERANCES = {
    "controller": {"relative": 1e-9, "absolute": 1e-9},
    "routing": {"relative": 0.0, "absolute": 1e-6},
    "tiles": {"relative": 1e-6, "absolute": 1e-5},
}


def rounded(value: Any) -> Any:
    """Ten significant digits, so that a platform's last bit does not change the files."""
    if isinstance(value, float):
        return float(f"{value:.10g}")
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list | tuple) else value


def text(name: str, content: dict[str, list[Case]]) -> str:
    """JSON with one line a field, so that cases can be read."""
    parts = [f'{{\n"format": 1,\n"tolerance": {json.dumps(TOLERANCES[name])}']
    for section, cases in content.items():
        rows = []
        for case in cases:
            whole = case | {"expected": rounded(PLAYERS[(name, section)](case))}
            fields = [f"  {json.dumps(key)}: {json.dumps(rounded(value))}" for key, value in whole.items()]
            rows.append("{\n" + ",\n".join(fields) + "\n}")
        parts.append(f'"{section}": [\n' + ",\n".join(rows) + "\n]")
    return ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    for name, content in (("controller", controller()), ("routing", routing()), ("tiles", tiles())):
        (out / f"{name}.json").write_text(text(name, content))
