"""The tested claims as LaTeX: a table of all of them, and a paragraph for each."""

from pathlib import Path
from typing import Any

from cifar_report.analysis.claims.verdicts import (
    SIDES,
    Notation,
    is_adjusted,
    limits,
    number,
    quantity,
    sentence,
    with_interval,
)
from cifar_report.base.files import read_json, write_text
from cifar_report.rendering.latex import escape, growing

SYMBOLS = {
    "supported": r"$\checkmark$",
    "refuted": r"$\times$",
    "mixed": r"$\pm$",
    "inconclusive": r"$\sim$",
    "untested": "--",
}

_LATEX = Notation(escape, r"\num{{{}}}".format, r"\qty{{{}}}{{\percent}}".format)
_UNITS = {"points": "", "percent": r"\,\%", "nats": r"\,nats", "share": ""}
_SIGNS = {"above": ">", "below": "<", "within": r"\pm"}
_CHANGED = (
    "Rules that were changed after results were seen: the former rule with its verdict, the present one with its "
    "verdict, and the reason. A former verdict is computed here on the seeds that were known then, or is the one "
    "that was recorded."
)


def write(results: Path) -> None:
    """Writes `claims.tex`, the table, `claims-text.tex`, the paragraphs, `changed-rules.tex` and `verdicts.tex`.

    Args:
        results: folder of the study, with its `claims.json`.
    """
    claims = read_json(results / "claims.json")
    write_text(results / "tables" / "claims.tex", table(claims))
    write_text(results / "tables" / "claims-text.tex", "\n".join(map(paragraph, claims)))
    write_text(results / "tables" / "changed-rules.tex", changed_rules(claims))
    write_text(results / "tables" / "verdicts.tex", lines(claims))


def table(claims: list[dict[str, Any]]) -> str:
    r"""A table: a row a claim with its verdict, and below it its parts."""
    rows = []
    for claim in claims:
        single = sum(part["verdict"] is not None for part in claim["parts"]) == 1
        rows.append(rf"\multicolumn{{5}}{{@{{}}l}}{{\textbf{{{escape(claim['title'])}}}}} & {_verdict(claim)} \\*")
        for part in claim["parts"]:
            rows.append(_row(part, with_verdict=not single))
            if is_adjusted(part):
                confidence, low, high = limits(part, _LATEX)
                wider = rf"\emph{{the same at \qty{{{confidence}}}{{\percent}}, which leaves it open}}"
                interval = f"[{low}, {high}]{_UNITS[part['unit']]}"
                rows.append(rf"\hangindent=2em\hspace*{{1em}}{wider} & & {interval} & & & \\")
            if part["known"] is not None and part["known"]["estimate"] is not None:
                earlier = {"label": "the same over the seeds known before", "role": "shown", "verdict": None}
                rows.append(_row(part | part["known"] | earlier | {"image_level": None}, with_verdict=False))
        rows.append(r"\addlinespace")
    columns = r"@{} >{\raggedright\arraybackslash}X r@{\;}l l r l @{}"
    lines = [
        rf"\begin{{tabularx}}{{\textwidth}}{{{columns}}}",
        r"\toprule",
        r"Claim & \multicolumn{2}{l}{Estimate, interval} & Bound & Runs & Verdict \\",
        r"\midrule",
        *rows[:-1],
        r"\bottomrule",
        r"\end{tabularx}",
        "",
    ]
    return growing("\n".join(lines))


def changed_rules(claims: list[dict[str, Any]]) -> str:
    r"""A `longtable` labelled `tab:changed-rules`: each rule that was changed after results were known, and why.

    The former verdict is computed on the seeds that were known, or else the one that the first reference recorded.
    """
    rows = []
    for claim in claims:
        if (changed := claim["changed"]) is None:
            continue
        bounds, premises = (
            [f"{escape(part['label'])} {_bound(part)}" for part in claim["parts"] if part["role"] == role]
            for role in ("decides", "premise")
        )
        conjunction = {"all": "all of: ", "each": "each: "}[claim["decides"]] if len(bounds) > 1 else ""
        conjunction = f"if {' and '.join(premises)}, {conjunction}" if premises else conjunction
        data = "fresh seeds alone decide" if changed["fresh"] else "rule chosen after seeing data"
        data += f"; fixed by commit {changed['frozen']['commit']}" if changed["frozen"] else ""
        if changed["earlier_runs"]:
            data += rf", which by their records \num{{{changed['earlier_runs']}}} of the runs do not follow"
        cells = [
            rf"\textbf{{{escape(claim['title'])}}}\newline {data}",
            rf"{escape(changed['rule'])}\newline \emph{{{changed['known'] or changed['verdict'] + ' (as recorded)'}}}",
            rf"{conjunction}{'; '.join(bounds)}\newline \emph{{{claim['verdict']}}}",
            escape(changed["reason"]),
        ]
        rows.append(" & ".join(cells) + r" \\\addlinespace")
    if not rows:
        return "% No rule was changed.\n"
    names = r"Claim & Former rule, and its verdict on the seeds known then & Rule, and its verdict here & Reason \\"
    head = rf"\toprule {names}\midrule"
    columns = " ".join(rf">{{\raggedright\arraybackslash}}p{{{width}\linewidth}}" for width in (0.18, 0.25, 0.25, 0.25))
    return "\n".join(
        [
            r"\begingroup\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"\begin{{longtable}}{{@{{}}{columns}@{{}}}}",
            rf"\caption{{{_CHANGED}}}\label{{tab:changed-rules}}\\",
            head + r"\endfirsthead",
            head + r"\endhead",
            r"\bottomrule\endfoot",
            *rows,
            r"\end{longtable}",
            r"\endgroup",
            "",
        ]
    )


def lines(claims: list[dict[str, Any]]) -> str:
    """A `tabularx` with a line a claim: what it says, its verdict, and the estimates that the verdict is told by."""
    rows = []
    for claim in claims:
        told = [part for part in claim["parts"] if part["id"] == claim["part"]]
        if claim["verdict"] == "mixed":
            told = [
                part for part in claim["parts"] if part["role"] == "decides" and (part["supports"] or part["refutes"])
            ]
        found = "; ".join(" ".join(_found(part)).replace(r" \,", r"\,").strip() for part in told)
        rows.append(" & ".join([escape(claim["title"]), _verdict(claim), found]) + r" \\")
    columns = r"@{}>{\raggedright\arraybackslash\hangindent=1em}X l l@{}"
    return "\n".join(
        [
            rf"\begin{{tabularx}}{{\textwidth}}{{{columns}}}",
            r"  \toprule",
            r"  Claim & Verdict & Estimate, interval \\",
            r"  \midrule",
            *(f"  {row}" for row in rows),
            r"  \bottomrule",
            r"\end{tabularx}",
            "",
        ]
    )


def in_latex(part: dict[str, Any]) -> str:
    """A part's estimate with its interval, as the text prints it."""
    return with_interval(part, _LATEX)


def paragraph(claim: dict[str, Any]) -> str:
    r"""A claim as a `\paragraph`: the statement, the sentence that the verdict chose, and what the bound means."""
    told = next(part for part in claim["parts"] if part["id"] == claim["part"])
    is_tested = claim["verdict"] != "untested"
    sentences = [
        rf"\paragraph{{{escape(claim['title'])}: {claim['verdict']}.}}",
        rf"\emph{{{escape(claim['statement'])}}}",
        sentence(claim, _LATEX),
    ]
    if not is_tested and told["estimate"] is not None:
        sentences.append(f"So far {escape(told['label'])} is {quantity(told, 'estimate', _LATEX)}.")
    if claim["image_level"] is not None:
        shown = told | claim["image_level"]
        low, high = number(shown, "ci95_low", _LATEX), quantity(shown, "ci95_high", _LATEX)
        resampled = "Resampling the test images instead of the seeds gives"
        sentences.append(f"{resampled} {low} to {high} for {escape(told['label'])}.")
    if told["next_run"] is not None:
        sentences.append(r"\WithResult{data.copy}{\result{data.copy}}")
    if told["known"] is not None and told["known"]["estimate"] is not None:
        known = told | told["known"]
        limits = f" ({number(known, 'ci95_low', _LATEX)} to {quantity(known, 'ci95_high', _LATEX)})"
        interval = limits if known["ci95_low"] is not None else ""
        estimate = quantity(known, "estimate", _LATEX)
        sentences.append(f"Over the seeds known before the rule was, {escape(told['label'])} is {estimate}{interval}.")
    if claim["changed"] is not None and not claim["changed"]["fresh"]:
        sentences.append("Its rule was chosen after seeing data.")
    if is_tested:
        if told["left_out"]:
            sentences.append(f"Left out: {escape(', '.join(told['left_out']))}.")
        sentences.append(escape(claim["why"]))
    return "\n".join(sentences) + "\n"


def _found(part: dict[str, Any]) -> tuple[str, str]:
    """A part's estimate, and its interval with the unit that both have."""
    estimate, interval = "--", ""
    if part["estimate"] is not None:
        estimate, interval = number(part, "estimate", _LATEX), _UNITS[part["unit"]]
    if part["ci95_low"] is not None:
        low, high = number(part, "ci95_low", _LATEX), number(part, "ci95_high", _LATEX)
        interval = f"[{low}, {high}]{_UNITS[part['unit']]}"
    elif part["image_level"] is not None:
        shown = part | part["image_level"]
        low, high = number(shown, "ci95_low", _LATEX), number(shown, "ci95_high", _LATEX)
        estimate, interval = number(shown, "estimate", _LATEX), rf"[{low}, {high}]{_UNITS[part['unit']]} \textdagger"
    return estimate, interval


def _row(part: dict[str, Any], with_verdict: bool) -> str:
    estimate, interval = _found(part)
    bound = "--"
    if part["smallest_effect"] is not None:
        bound = rf"${_SIGNS[part['direction']]}$\,{number(part, 'smallest_effect', _LATEX)}"
    verdict = _verdict(part) if with_verdict and part["verdict"] else ""
    name = escape(part["label"])
    styled = {"decides": name, "premise": f"premise: {name}", "shown": rf"\emph{{{name}}}"}[part["role"]]
    label = rf"\hangindent=2em\hspace*{{1em}}{styled}"
    return " & ".join([label, estimate, interval, bound, rf"\num{{{part['runs']}}}", verdict]) + r" \\"


def _bound(part: dict[str, Any]) -> str:
    bound = f"{SIDES[part['direction']]} {quantity(part, 'smallest_effect', _LATEX)}"
    if part["kind"] == "next-run":
        bound += ", refuted where the prediction interval for one new run lies outside"
    return bound


def _verdict(judged: dict[str, Any]) -> str:
    return f"{SYMBOLS[judged['verdict']]} {judged['verdict']}"
