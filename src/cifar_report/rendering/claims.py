"""The tested claims as LaTeX: a table of all of them, and a paragraph for each."""

from pathlib import Path
from typing import Any

from cifar_report.analysis.claims.verdicts import Notation, number, quantity, sentence
from cifar_report.base.files import read_json, write_text
from cifar_report.rendering.latex import escape

SYMBOLS = {"supported": r"$\checkmark$", "refuted": r"$\times$", "inconclusive": r"$\sim$", "untested": "--"}

_LATEX = Notation(escape, r"\num{{{}}}".format, r"\qty{{{}}}{{\percent}}".format)
_UNITS = {"points": "", "percent": r"\,\%", "ppm": r"\,ppm", "nats": r"\,nats"}
_SIGNS = {"above": ">", "below": "<", "within": r"\pm"}
_CAPTION = (
    "The claims, the original's first, and what the runs of this study say of them: estimate with its "
    r"\qty{95}{\percent} interval, the bound that the interval must keep to for the claim to be supported, the runs or "
    "trials behind it, and the verdict. Without a unit, values are percentage points; ppm is parts per "
    "million. Rows without a bound are shown beside the others and not judged."
)


def write(results: Path) -> None:
    """Writes `tables/claims.tex`, the table, and `tables/claims-text.tex`, the paragraphs.

    Args:
        results: folder of the study, with its `claims.json`.
    """
    claims = read_json(results / "claims.json")
    write_text(results / "tables" / "claims.tex", table(claims))
    write_text(results / "tables" / "claims-text.tex", "\n".join(map(paragraph, claims)))


def table(claims: list[dict[str, Any]]) -> str:
    r"""A `table` environment labelled `tab:claims`: a row a claim with its verdict, and below it its parts."""
    rows = []
    for claim in claims:
        single = sum(part["verdict"] is not None for part in claim["parts"]) == 1
        rows.append(rf"\multicolumn{{5}}{{@{{}}l}}{{\textbf{{{escape(claim['title'])}}}}} & {_verdict(claim)} \\*")
        rows += [_row(part, with_verdict=not single) for part in claim["parts"]]
        rows.append(r"\addlinespace")
    return "\n".join(
        [
            r"\begin{table}[p]",
            r"  \centering\footnotesize\setlength{\tabcolsep}{4pt}\renewcommand{\arraystretch}{0.9}",
            rf"  \caption{{{_CAPTION}}}",
            r"  \label{tab:claims}",
            r"  \begin{tabularx}{\textwidth}{@{} >{\raggedright\arraybackslash}X r@{\;}l l r l @{}}",
            r"    \toprule",
            r"    Claim & \multicolumn{2}{l}{Estimate, interval} & Bound & Runs & Verdict \\",
            r"    \midrule",
            *(f"    {row}" for row in rows[:-1]),
            r"    \bottomrule",
            r"  \end{tabularx}",
            r"\end{table}",
            "",
        ]
    )


def paragraph(claim: dict[str, Any]) -> str:
    r"""A claim as a `\paragraph`: the statement, the sentence that the verdict chose, and what the bound means."""
    deciding = next(part for part in claim["parts"] if part["label"] == claim["part"])
    is_tested = claim["verdict"] != "untested"
    sentences = [
        rf"\paragraph{{{escape(claim['title'])}: {claim['verdict']}.}}",
        rf"\emph{{{escape(claim['statement'])}}}",
        sentence(claim["template"], deciding, _LATEX),
    ]
    if claim["image_level"] is not None:
        shown = deciding | claim["image_level"]
        low, high = number(shown, "ci95_low", _LATEX), quantity(shown, "ci95_high", _LATEX)
        alone = rf"So far {escape(claim['part'])} is {quantity(shown, 'estimate', _LATEX)}, and resampling"
        opening = "Resampling" if is_tested else alone
        sentences.append(f"{opening} the test images instead of the seeds gives {low} to {high}.")
    if is_tested:
        if deciding["left_out"]:
            sentences.append(f"Left out: {escape(', '.join(deciding['left_out']))}.")
        sentences.append(escape(claim["why"]))
    return "\n".join(sentences) + "\n"


def _row(part: dict[str, Any], with_verdict: bool) -> str:
    estimate, interval = "--", ""
    if part["estimate"] is not None:
        estimate, interval = number(part, "estimate", _LATEX), _UNITS[part["unit"]]
    if part["ci95_low"] is not None:
        low, high = number(part, "ci95_low", _LATEX), number(part, "ci95_high", _LATEX)
        interval = f"[{low}, {high}]{_UNITS[part['unit']]}"
    bound = "--"
    if part["smallest_effect"] is not None:
        bound = rf"${_SIGNS[part['direction']]}$\,{number(part, 'smallest_effect', _LATEX)}"
    verdict = _verdict(part) if with_verdict and part["verdict"] else ""
    label = rf"\hangindent=2em\hspace*{{1em}}{escape(part['label'])}"
    return " & ".join([label, estimate, interval, bound, rf"\num{{{part['runs']}}}", verdict]) + r" \\"


def _verdict(judged: dict[str, Any]) -> str:
    return f"{SYMBOLS[judged['verdict']]} {judged['verdict']}"
