"""From intervals to verdicts: each claim with what its comparisons gave, what follows, and the sentence that says it.

`claims.json` has numbers and words without markup; `Notation` is how a writer with markup puts the same.
"""

import math
import string
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, get_args

from cifar_report.analysis.claims.comparisons import Evidence, Measured, measure
from cifar_report.analysis.claims.file import Claim, Direction, Part, Verdict, load
from cifar_report.analysis.statistics import Interval
from cifar_report.base.files import to_json, write_text

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

_SCALES = {"points": 100, "percent": 100, "ppm": 1e6, "nats": 1}
_WORDS = {"points": " percentage points", "ppm": " parts per million", "nats": " nats"}


def write(stage: dict[str, Any], results: Path, claims: Path) -> None:
    """Writes `claims.json` into a study's folder.

    Args:
        stage: {"variants": the study's entries, "catalogue": names of all variants that exist}.
        results: folder of the study.
        claims: claims.yaml.

    Raises:
        InputError: claims.yaml is wrong (the message names the claim, the key, the value and the line), or a file of
            the study is.
    """
    tested = evaluate(load(claims, stage.get("catalogue")), Evidence.of(stage, results))
    write_text(results / "claims.json", to_json(tested))


def evaluate(claims: list[Claim], evidence: Evidence) -> list[dict[str, Any]]:
    """Each claim with its verdict and what it rests on, as `docs/results.md` describes claims.json.

    Estimate, interval, runs and reason of a claim are those of the part that decided: the first with the claim's
    verdict. Limits and estimates that do not exist are None.
    """
    return [_tested(claim, evidence) for claim in claims]


def verdict(measured: Measured, smallest: float, direction: Direction) -> Verdict:
    """What an interval says of the smallest effect that matters.

    Args:
        direction: where the interval must lie to support: `above` or `below` the smallest effect, or `within` its
            negative and itself.
    """
    if measured.lacks:
        return "untested"
    _, low, high = measured.interval
    if direction == "below":
        low, high, smallest = -high, -low, -smallest
    if direction == "within":
        supported, refuted = -smallest < low and high < smallest, low > smallest or high < -smallest
    else:
        supported, refuted = low > smallest, high < smallest
    return "supported" if supported else "refuted" if refuted else "inconclusive"


def joint_verdict(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict of a claim of several parts: one refuted part refutes it, and all must be supported to support it."""
    order: tuple[Verdict, ...] = ("refuted", "untested", "inconclusive", "supported")
    return min(verdicts, key=order.index)


def _tested(claim: Claim, evidence: Evidence) -> dict[str, Any]:
    parts = [_measured(part, evidence) for _, part in claim.parts()]
    judged = [part for part in parts if part["verdict"]]
    joint = joint_verdict(part["verdict"] for part in judged)
    deciding = next(part for part in judged if part["verdict"] == joint)
    template = getattr(claim.sentences, joint)
    return {
        "id": claim.id,
        "statement": claim.statement,
        "verdict": joint,
        **{key: deciding[key] for key in ("estimate", "ci95_low", "ci95_high", "runs")},
        "reason": deciding["reason"] if len(judged) == 1 else f"{deciding['label']}: {deciding['reason']}",
        **{key: deciding[key] for key in ("smallest_effect", "direction", "unit", "pairs", "why", "image_level")},
        "title": claim.title,
        "part": deciding["label"],
        "sentence": sentence(template, deciding),
        "template": template,
        "parts": parts,
    }


def _measured(part: Part, evidence: Evidence) -> dict[str, Any]:
    measured = measure(part.comparison, evidence)
    smallest = part.smallest_effect
    entry = {
        "label": part.label,
        "verdict": None if smallest is None else verdict(measured, smallest, part.direction),
        **_limits(measured.interval),
        "runs": measured.runs,
        "reason": "",
        "smallest_effect": smallest,
        "direction": None if smallest is None else part.direction,
        "unit": measured.unit,
        "pairs": measured.pairs,
        "why": part.why,
        "image_level": measured.image_level and _limits(measured.image_level),
        "left_out": list(measured.left_out),
    }
    left_out = f"left out: {', '.join(measured.left_out)}" if measured.left_out else ""
    return entry | {"reason": "; ".join(filter(None, (measured.lacks or _grounds(entry), left_out)))}


def _limits(interval: Interval) -> dict[str, float | None]:
    keys = ("estimate", "ci95_low", "ci95_high")
    return {key: float(x) if math.isfinite(x) else None for key, x in zip(keys, interval, strict=True)}


def _grounds(part: dict[str, Any]) -> str:
    """Why a part has its verdict, in words."""
    interval = f"the interval {number(part, 'ci95_low')} to {quantity(part, 'ci95_high')}"
    if part["verdict"] is None:
        return f"{interval}, not judged"
    side = {"above": "above", "below": "below", "within": "within plus or minus"}[part["direction"]]
    bound = f"{side} {number(part, 'smallest_effect')}"
    return {
        "supported": f"{interval} lies wholly {bound}",
        "refuted": f"{interval} lies wholly outside of what supports it, {bound}",
        "inconclusive": f"{interval} lies neither wholly inside nor wholly outside of what supports it, {bound}",
    }[part["verdict"]]


# --- how a part's values are put --------------------------------------------------------------------------------------


class Notation(NamedTuple):
    """How words, a number (its digits) and a percentage are written; as plain text by default."""

    words: Callable[[str], str] = str
    number: Callable[[str], str] = str
    percent: Callable[[str], str] = "{} %".format


PLAIN = Notation()


def sentence(template: str, part: dict[str, Any], notation: Notation = PLAIN) -> str:
    """A template of `file.PLACEHOLDERS` with a part's values in their place."""
    estimate = interval = quantity(part, "estimate", notation)
    if part["ci95_low"] is not None:
        low, high = number(part, "ci95_low", notation), number(part, "ci95_high", notation)
        interval = f"{estimate} ({notation.percent('95')} interval {low} to {high})"
    values = {
        "part": notation.words(part["label"]),
        "interval": interval,
        "estimate": estimate,
        "low": quantity(part, "ci95_low", notation),
        "high": quantity(part, "ci95_high", notation),
        "smallest": quantity(part, "smallest_effect", notation),
        "pairs": notation.number(str(part["pairs"])),
        "runs": notation.number(str(part["runs"])),
        "reason": notation.words(part["reason"]),
    }
    pieces = string.Formatter().parse(template)
    return "".join(notation.words(text) + (values[name] if name else "") for text, name, _, _ in pieces)


def number(part: dict[str, Any], key: str, notation: Notation = PLAIN) -> str:
    """One of a part's values in its unit, with two digits of the interval's half width; the bound as it was written."""
    return "none" if part[key] is None else notation.number(_digits(part, key))


def quantity(part: dict[str, Any], key: str, notation: Notation = PLAIN) -> str:
    """The same with its unit."""
    if part["unit"] == "percent":
        return "none %" if part[key] is None else notation.percent(_digits(part, key))
    words = _WORDS[part["unit"]]
    is_one = part[key] is not None and _digits(part, key) == "1"
    return number(part, key, notation) + (words.removesuffix("s") if is_one else words)


def _digits(part: dict[str, Any], key: str) -> str:
    value = _SCALES[part["unit"]] * part[key]
    return f"{value:.6g}" if key == "smallest_effect" else f"{value:.{_decimals(part)}f}"


def _decimals(part: dict[str, Any]) -> int:
    if part["ci95_low"] is None or part["ci95_low"] == part["ci95_high"]:
        return 2
    half = _SCALES[part["unit"]] * (part["ci95_high"] - part["ci95_low"]) / 2
    return min(max(1 - math.floor(math.log10(half)), 0), 4)
