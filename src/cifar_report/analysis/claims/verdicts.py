"""From intervals to verdicts: each claim with what its comparisons gave, what follows, and the sentence that says it.

`claims.json` has numbers and words without markup; `Notation` is how a writer with markup puts the same.
"""

import math
import string
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from cifar_report.analysis.claims.comparisons import Evidence, Measured, decided_by, former, measure
from cifar_report.analysis.claims.file import Change, Claim, Comparison, Direction, Part, Verdict, load
from cifar_report.analysis.statistics import Estimate, Interval
from cifar_report.base.files import to_json, write_text

_SCALES = {"points": 100, "percent": 100, "nats": 1, "share": 1}
_WORDS = {"points": " percentage points", "nats": " nats", "share": ""}
SIDES: dict[Direction, str] = {"above": "above", "below": "below", "within": "within plus or minus"}


def write(stage: dict[str, Any], results: Path, claims: Path | None) -> None:
    """Writes `claims.json` into a study's folder.

    Args:
        stage: {"variants": the study's entries, "catalogue": names of all variants that exist}.
        results: folder of the study.
        claims: claims.yaml; None: there are none.

    Raises:
        InputError: claims.yaml is wrong (the message names the claim, the key, the value and the line), or a file of
            the study is.
    """
    tested = evaluate(load(claims, stage.get("catalogue")), Evidence.of(stage, results)) if claims else []
    write_text(results / "claims.json", to_json(tested))


def evaluate(claims: list[Claim], evidence: Evidence) -> list[dict[str, Any]]:
    """Each claim with its verdict and what it rests on, as `docs/results.md` describes claims.json.

    Estimate, interval, runs and reason of a claim are those of the part that its verdict is told by. Limits and
    estimates that do not exist are None.
    """
    return [_tested(claim, evidence) for claim in claims]


class Judged(NamedTuple):
    """What a part's intervals say of its smallest effect; `adjusted` ones are those at 1 - 0.05/k of k parts."""

    supports: bool = False  # the 95 % interval lies wholly in the supporting region
    supports_adjusted: bool = False
    outside: bool = False  # the 95 % interval lies wholly outside of it
    refutes: bool = False  # so does the adjusted one
    untested: bool = False
    adjusted: float = 0.95

    @property
    def verdict(self) -> Verdict:
        """Of the part alone."""
        if self.untested:
            return "untested"
        return "supported" if self.supports else "refuted" if self.refutes else "inconclusive"


def judge(measured: Measured, smallest: float, direction: Direction, of: int = 1) -> Judged:
    """What a part's intervals say of the smallest effect that matters.

    Supporting is one-sided at 2.5 %; within a tolerance it is two one-sided tests at 2.5 % each (Schuirmann 1987).

    Args:
        direction: where an interval must lie to support: `above` or `below` the smallest effect, or `within` its
            negative and itself.
        of: how many parts decide the claim.
    """
    level, adjusted = 0.95, 1 - 0.05 / of  # so that all parts together err in 5 % at most where one of them refutes
    if measured.lacks:
        return Judged(untested=True, adjusted=adjusted)

    def lies(estimate: Estimate, confidence: float) -> tuple[bool, bool]:
        return _lies(estimate.interval(confidence), smallest, direction)

    refuting = measured.next_run or measured.estimate
    return Judged(
        supports=lies(measured.estimate, level)[0],
        supports_adjusted=lies(measured.estimate, adjusted)[0],
        outside=lies(refuting, level)[1],
        refutes=lies(refuting, adjusted)[1],
        adjusted=adjusted,
    )


def _lies(interval: Interval, smallest: float, direction: Direction) -> tuple[bool, bool]:
    """Whether an interval lies wholly where it supports, and wholly outside; differences of rounding count as none."""
    low: Any  # an array where `judge` is given many estimates at once
    high: Any
    low, high = (np.where(np.isclose(end, smallest, rtol=1e-12, atol=0), smallest, end) for end in interval[1:])
    match direction:
        case "above":
            return low > smallest, high < smallest
        case "below":
            return high <= smallest, low > smallest  # with the bound, so that what is exact is decided
        case "within":
            return (-smallest < low) & (high < smallest), (low > smallest) | (high < -smallest)


def decide(rule: Literal["all", "each"], deciding: list[Judged], premises: Iterable[Judged] = ()) -> Verdict:
    """The verdict that follows from the deciding parts: all must hold, or each is a case of its own.

    An `all` claim falls with one part that is refuted at its adjusted level, so that more parts make no false
    refutation likelier. Where each case lies outside at 95 %, they all do. One whose premise does not hold is
    inconclusive, and untested where its premise is.
    """
    premises = list(premises)
    if any(premise.untested for premise in premises):
        return "untested"
    untested = any(part.untested for part in deciding)
    supported = all(part.supports for part in deciding)
    found: Verdict = "inconclusive"
    if rule == "all" and any(part.refutes for part in deciding):
        found = "refuted"
    elif untested:
        return "untested"
    elif supported:
        found = "supported"
    elif rule == "each" and all(part.outside for part in deciding):
        found = "refuted"
    elif rule == "each" and any(part.supports_adjusted for part in deciding) and any(part.refutes for part in deciding):
        found = "mixed"
    return found if all(premise.supports for premise in premises) else "inconclusive"


def _tested(claim: Claim, evidence: Evidence) -> dict[str, Any]:
    count = sum(part.role == "decides" for part in claim.parts)
    found = [(part, *_judged(part, evidence, count if part.role == "decides" else 1)) for part in claim.parts]
    by_role = {role: [judged for part, _, judged in found if part.role == role] for role in ("decides", "premise")}
    verdict = decide(claim.decides, by_role["decides"], by_role["premise"])
    if verdict == "refuted" and claim.decides == "each":  # each of them, by its interval at 95 %
        found = [(part, measured, judged._replace(refutes=judged.outside)) for part, measured, judged in found]
    parts = [_entry(part, measured, judged) for part, measured, judged in found]
    deciding, premises = ([part for part in parts if part["role"] == role] for role in ("decides", "premise"))
    told = _told_by(verdict, deciding, premises)
    template = getattr(claim.sentences, verdict)
    estimated = {part["id"] for part in parts if part["estimate"] is not None}
    has_all = named(claim.sentences.beside or "") <= estimated
    beside = claim.sentences.beside if has_all and verdict != "untested" else None
    tested = {
        "id": claim.id,
        "statement": claim.statement,
        "verdict": verdict,
        **{key: told[key] for key in ("estimate", "ci95_low", "ci95_high", "runs")},
        "reason": told["reason"] if count == 1 and not premises else f"{told['label']}: {told['reason']}",
        **{key: told[key] for key in ("smallest_effect", "direction", "unit", "pairs", "why", "image_level")},
        "title": claim.title,
        "decides": claim.decides,
        "sampled": any(part.comparison.sampled for part in claim.parts if part.role == "decides"),
        "part": told["id"],
        "parts": parts,
        "template": template,
        "beside": beside,
        "changed": claim.changed
        and {
            **claim.changed.model_dump(exclude={"parts"}),
            "known": former_verdict(claim.changed, evidence),
            "fresh": _is_fresh(claim),
            "earlier_runs": _earlier_runs(claim, evidence),
        },
    }
    return tested | {"sentence": sentence(tested)}


def _told_by(verdict: Verdict, deciding: list[dict[str, Any]], premises: list[dict[str, Any]]) -> dict[str, Any]:
    """The part that a claim's verdict is told by: the first that is why it is this one."""
    match verdict:
        case "refuted":
            reasons = [part for part in deciding if part["refutes"]]
        case "untested":
            reasons = [part for part in premises + deciding if part["verdict"] == "untested"]
        case "inconclusive":
            reasons = [part for part in premises + deciding if part["verdict"] != "supported"]
        case _:
            reasons = []
    return (reasons or deciding)[0]


def former_verdict(change: Change, evidence: Evidence) -> Verdict | None:
    """What the former rule says of this study's runs of the seeds that were known; None where it is not computed.

    It asked for 95 % intervals that keep to the smallest effects, and fell with one wholly outside. Two seeds were
    enough.
    Nothing is computed where the study does not run what was known, or has too little of it to tell.
    """
    if not change.parts:
        return None
    found = []
    for part in change.parts:
        measured = former(part, evidence)
        if measured is None:
            return None
        supports, refutes = _lies(measured.estimate.interval(), part.smallest_effect, part.direction)
        found.append(Judged(supports, refutes=refutes, untested=measured.pairs < 2))
    verdict = decide("all", found)
    return None if verdict == "untested" else verdict


def _is_fresh(claim: Claim) -> bool:
    """Whether the claim is decided by seeds alone that its rule calls fresh, its premises too."""
    return all(getattr(comparison, "fresh_seeds", None) is not None for comparison in _deciding(claim))


def _earlier_runs(claim: Claim, evidence: Evidence) -> int | None:
    """How many of the runs that decide were, by their records, not made by a commit as late as that of the rule.

    None where the rule names no commit.
    """
    frozen = claim.changed and claim.changed.frozen
    if not frozen:
        return None
    runs = {run.folder: run for comparison in _deciding(claim) for run in decided_by(comparison, evidence)}
    times = [(run.record.get("commit") or {}).get("time") or 0 for run in runs.values()]
    return sum(time < frozen.time for time in times)


def _deciding(claim: Claim) -> list[Comparison]:
    return [part.comparison for part in claim.parts if part.role != "shown"]


def _judged(part: Part, evidence: Evidence, of: int) -> tuple[Measured, Judged]:
    measured = measure(part.comparison, evidence)
    return measured, Judged() if part.smallest_effect is None else judge(
        measured, part.smallest_effect, part.direction, of
    )


def _entry(part: Part, measured: Measured, judged: Judged) -> dict[str, Any]:
    smallest = part.smallest_effect
    adjusted = None if smallest is None else _limits(measured, judged.adjusted)
    entry = {
        "id": part.id,
        "label": part.label,
        "role": part.role,
        "kind": part.comparison.kind,
        "verdict": None if smallest is None else judged.verdict,
        **_limits(measured),
        "adjusted": None if smallest is None else judged.adjusted,
        "adjusted_low": adjusted and adjusted["ci95_low"],
        "adjusted_high": adjusted and adjusted["ci95_high"],
        "runs": measured.runs,
        "reason": "",
        "smallest_effect": smallest,
        "direction": None if smallest is None else part.direction,
        "unit": measured.unit,
        "pairs": measured.pairs,
        "why": part.why,
        "outside": bool(judged.outside),
        "supports": bool(judged.supports_adjusted),
        "refutes": bool(judged.refutes),
        "image_level": measured.image_level and _as_json(measured.image_level),
        "next_run": measured.next_run and _as_json(measured.next_run.interval()),
        "known": measured.known
        and {**_limits(measured.known), "pairs": measured.known.pairs, "runs": measured.known.runs},
        "left_out": list(measured.left_out),
    }
    left_out = f"left out: {', '.join(measured.left_out)}" if measured.left_out else ""
    reason = "; ".join(filter(None, (measured.lacks or _grounds(entry), left_out)))
    return entry | {"reason": reason}


def _limits(measured: Measured, confidence: float = 0.95) -> dict[str, float | None]:
    """Estimate and limits; no limits where there are too few values for a verdict, or nothing is left to chance."""
    interval = measured.estimate.interval(confidence)
    has_none = measured.lacks or measured.estimate.is_exact
    return _as_json(Interval(interval.mean, math.nan, math.nan) if has_none else interval)


def _as_json(interval: Interval) -> dict[str, float | None]:
    keys = ("estimate", "ci95_low", "ci95_high")
    return {key: float(x) if math.isfinite(x) else None for key, x in zip(keys, interval, strict=True)}


def _grounds(part: dict[str, Any]) -> str:
    """Why a part has its verdict, in words."""
    interval = f"the interval {number(part, 'ci95_low')} to {quantity(part, 'ci95_high')}"
    if part["verdict"] is None:
        return "not judged" if part["ci95_low"] is None else f"{interval}, not judged"
    side = SIDES[part["direction"]]
    if part["ci95_low"] is None:
        place = "lies" if part["verdict"] == "supported" else "does not lie"
        return f"{quantity(part, 'estimate')} {place} {side} {number(part, 'smallest_effect')}"
    bound = f"{side} {number(part, 'smallest_effect')}"
    if part["next_run"] is not None and part["verdict"] != "supported":
        one = f"the prediction interval for one new run, {prediction(part)},"
        return f"{one} {'does not reach' if part['verdict'] == 'refuted' else 'reaches'} what supports it, {bound}"
    if is_adjusted(part):
        confidence, low, high = limits(part)
        return (
            f"{interval} lies wholly outside of what supports it, {bound}, but that at {confidence} %, "
            f"which allows for the number of parts, does not: {low} to {high}"
        )
    return {
        "supported": f"{interval} lies wholly {bound}",
        "refuted": f"{interval} lies wholly outside of what supports it, {bound}",
        "inconclusive": f"{interval} does not settle it: what supports it lies {bound}",
    }[part["verdict"]]


# --- how a part's values are put --------------------------------------------------------------------------------------


class Notation(NamedTuple):
    """How words, a number (its digits) and a percentage are written; as plain text by default."""

    words: Callable[[str], str] = str
    number: Callable[[str], str] = str
    percent: Callable[[str], str] = "{} %".format


PLAIN = Notation()


def sentence(claim: dict[str, Any], notation: Notation = PLAIN) -> str:
    """A claim's templates with its parts' values in the place of `file.PLACEHOLDERS` and `file.LISTS`."""
    parts = {part["id"]: part for part in claim["parts"]}
    told = _filled(claim["template"], claim, parts, notation)
    if claim["beside"] is None:
        return told
    alike = {"decimals": min((_decimals(parts[each]) for each in named(claim["beside"])), default=2)}
    return f"{told} {_filled(claim['beside'], claim, {key: part | alike for key, part in parts.items()}, notation)}"


def named(template: str) -> set[str]:
    """The ids of the parts that a template names."""
    fields = (field for _, field, _, _ in string.Formatter().parse(template) if field)
    return {part for part, _, _ in (field.rpartition(".") for field in fields) if part}


def _filled(template: str, claim: dict[str, Any], parts: dict[str, dict[str, Any]], notation: Notation) -> str:
    def value(field: str) -> str:
        part, _, name = field.rpartition(".")
        if name in ("supporting", "refuting"):
            key = {"supporting": "supports", "refuting": "refutes"}[name]
            such = [each for each in claim["parts"] if each["role"] == "decides" and each[key]]
            return "; ".join(f"{notation.words(each['label'])}, {with_interval(each, notation)}" for each in such)
        if name == "reason" and not part:
            return notation.words(claim["reason"])
        return _values(parts[part or claim["part"]], notation)[name]

    pieces = string.Formatter().parse(template)
    return "".join(notation.words(text) + (value(field) if field else "") for text, field, _, _ in pieces)


def with_interval(part: dict[str, Any], notation: Notation = PLAIN) -> str:
    """A part's estimate with its unit, and the interval that its verdict rests on, where it has one."""
    estimate = quantity(part, "estimate", notation)
    if part["ci95_low"] is None:
        return estimate
    confidence, low, high = limits(part, notation)
    return f"{estimate} ({notation.percent(confidence)} interval {low} to {high})"


def is_adjusted(part: dict[str, Any]) -> bool:
    """Whether the interval that allows for the number of parts leaves open what the one at 95 % would refute."""
    return bool(part["verdict"] == "inconclusive" and part["outside"] and part["adjusted_low"] is not None)


def limits(part: dict[str, Any], notation: Notation = PLAIN) -> tuple[str, str, str]:
    """The confidence in per cent and the limits of the interval that a part's verdict rests on."""
    name, confidence = ("adjusted", part["adjusted"]) if is_adjusted(part) else ("ci95", 0.95)
    low, high = (number(part, f"{name}_{side}", notation) for side in ("low", "high"))
    return f"{100 * confidence:.4g}", low, high


def _values(part: dict[str, Any], notation: Notation) -> dict[str, str]:
    return {
        "part": notation.words(part["label"]),
        "interval": with_interval(part, notation),
        "estimate": quantity(part, "estimate", notation),
        "low": quantity(part, "ci95_low", notation),
        "high": quantity(part, "ci95_high", notation),
        "smallest": quantity(part, "smallest_effect", notation),
        "pairs": notation.number(str(part["pairs"])),
        "runs": notation.number(str(part["runs"])),
        "prediction": prediction(part, notation),
        "reason": notation.words(part["reason"]),
    }


def prediction(part: dict[str, Any], notation: Notation = PLAIN) -> str:
    """A part's prediction interval for one new run; "none" where it has none."""
    if part["next_run"] is None:
        return "none"
    shown = part | part["next_run"]
    return f"{number(shown, 'ci95_low', notation)} to {quantity(shown, 'ci95_high', notation)}"


def number(part: dict[str, Any], key: str, notation: Notation = PLAIN) -> str:
    """One of a part's values in its unit, with two digits of the interval's half width; the bound as it was written."""
    return _missing(part) if part[key] is None else notation.number(_digits(part, key))


def quantity(part: dict[str, Any], key: str, notation: Notation = PLAIN) -> str:
    """The same with its unit."""
    if part[key] is None:
        return _missing(part)
    if part["unit"] == "percent":
        return notation.percent(_digits(part, key))
    words, is_one = _WORDS[part["unit"]], _digits(part, key) == "1"
    return number(part, key, notation) + (words.removesuffix("s") if is_one else words)


def _missing(part: dict[str, Any]) -> str:
    return "not a finite number" if part["runs"] else "not measured"


def _digits(part: dict[str, Any], key: str) -> str:
    value = _SCALES[part["unit"]] * part[key]
    if part["unit"] == "share":
        return f"{value:.1e}".replace("e-0", "e-").replace(".0e", "e")
    decimals = _decimals(part)
    # Zero has no sign.
    return f"{value:.6g}" if key == "smallest_effect" else f"{round(value, decimals) + 0.0:.{decimals}f}"


def _decimals(part: dict[str, Any]) -> int:
    if "decimals" in part:
        return int(part["decimals"])
    if part["ci95_low"] is None or part["ci95_low"] == part["ci95_high"]:
        return 2
    half = _SCALES[part["unit"]] * (part["ci95_high"] - part["ci95_low"]) / 2
    return min(max(1 - math.floor(math.log10(half)), 0), 4)
