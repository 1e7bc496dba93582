"""What Snakemake's HTML report shows besides the figures: tables as pages, and captions with the numbers of the run.

Snakemake fills in a caption from its job alone, which does not know the results. So the captions' templates in
`workflow/report/` are filled in here, and Snakemake is given the result.
"""

import re
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from cifar_report.analysis.claims.file import VERDICTS
from cifar_report.base.files import read_json, read_table, write_text
from cifar_report.rendering import equations

# Those of the pages; `claims` and `search` where the study has any.
TABLES = ("summary", "costs", "claims", "search", "equations")
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 14px/1.45 system-ui, sans-serif; color: #1e293b; background: #fff; margin: 1rem; }}
h1 {{ font-size: 1.25rem; margin: 0 0 1rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 0.35rem 0.45rem; text-align: right; vertical-align: top; white-space: nowrap; }}
th {{ border-bottom: 2px solid #1e293b; vertical-align: bottom; white-space: normal; }}
td {{ border-bottom: 1px solid #e2e8f0; }}
th:first-child, td:first-child, .text th, .text td {{ text-align: left; }}
td:first-child {{ white-space: normal; min-width: 8rem; }}
.text td {{ white-space: normal; max-width: 36rem; overflow-wrap: break-word; }}
.text td:nth-child(4) {{ overflow-wrap: anywhere; }} /* names of tests are long words */
.text td:first-child {{ max-width: 20rem; }}
tr.selected td {{ font-weight: 600; }}
</style>
<h1>{title}</h1>
{table}
</html>
"""


def write(stage: dict[str, Any], results: Path, templates: Path, output: Path) -> None:
    """Writes `<table>.html` and `<table>.rst` for each of `TABLES`, captions, `figures/<figure>.rst` and `style.css`.

    Args:
        stage: {"study", "dataset", "variants": [{"name", "label"}, …], "searches": {search: [setting, …]}}.
        results: folder of the study, with its tables, claims and `figures/figures.json`.
        templates: folder of the captions' templates, `figure.rst` being that of all figures, and of `style.css`.
        output: folder to write to.

    Raises:
        InputError: claims or figures are missing.
    """
    labels = {variant["name"]: variant["label"] for variant in stage["variants"]}
    summary = read_table(results / "summary.csv")
    costs = read_table(results / "costs.csv")
    claims = read_json(results / "claims.json")
    checks = equations.read(results / "equations.json")
    figures = read_json(results / "figures/figures.json")
    pages = {
        "summary": _page("Accuracies of all variants", summary_table(summary, labels)),
        "costs": _page("What training cost", costs_table(costs, labels)),
        "equations": _page("How each equation is checked", equations_table(checks), kind="text"),
    }
    if claims:
        pages["claims"] = _page("The claims, and what the runs say of them", claims_table(claims), kind="text")
    runs = summary["seeds"] + summary["diverged"]  # both tables have the variants in the same order
    facts = {
        "study": stage["study"],
        "dataset": stage["dataset"],
        "searches": list(stage["searches"]),
        "variants": len(summary),
        "runs": int(runs.sum()),
        "diverged": int(summary["diverged"].sum()),
        "images": read_json(results / "dataset/dataset.json")["counts"],
        "minutes": f"{(runs * costs['train_seconds_median']).sum() / 60:,.1f}",
        "best": _best(summary, labels),
        "slowest": _slowest(costs, labels),
        "claims": len(claims),
        "equations": len({check["label"] for check in checks}),
        "checks": len(checks),
        "verdicts": _verdicts(claims),
    }
    if stage["searches"]:
        search = read_table(results / "search.csv")
        pages["search"] = _page("Configurations of the searches", search_table(search, stage["searches"]), "text")
        chosen = search[search["selected"]]
        facts["trials"] = len(search)
        facts["selected"] = [
            {
                "search": row["search"],
                "settings": _settings(row, stage["searches"][row["search"]]),
            }
            for row in chosen.drop_duplicates("search").to_dict("records")
        ]
    for name, page in pages.items():
        write_text(output / f"{name}.html", page)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        finalize=literal,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("workflow", "report", *pages):
        write_text(output / f"{name}.rst", environment.get_template(f"{name}.rst").render(facts))
    write_text(output / "style.css", (templates / "style.css").read_text())
    for figure in figures:
        text = environment.get_template("figure.rst").render(figure=figure)
        write_text(output / f"figures/{figure['name']}.rst", text)


def literal(value: Any) -> str:
    """A value as reStructuredText prints it literally; no template of Snakemake's reads anything into it either."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", str(value))


def summary_table(summary: pd.DataFrame, labels: dict[str, str]) -> pd.DataFrame:
    """The page's table of `summary.csv`: labels, per cent, and intervals where there are two seeds or more."""
    columns = {
        "Variant": summary["variant"].map(labels),
        "Test %": summary["test_accuracy_mean"].map(_percent),
        "95 % interval": [
            "" if pd.isna(low) else f"{_percent(low)} to {_percent(high)}"
            for low, high in zip(summary["test_accuracy_ci95_low"], summary["test_accuracy_ci95_high"], strict=True)
        ],
        "Original %": summary["original_test_accuracy"].map(_percent),
        "Validation %": summary["validation_accuracy_mean"].map(_percent),
        "Training %": summary["train_accuracy_mean"].map(_percent),
        "Seeds": summary["seeds"],
        "Diverged": summary["diverged"],
        "Steps": summary["steps"].map("{:,}".format),
        "Batch": summary["batch_size"],
        "Parameters": summary["parameters"].map("{:,}".format),
    }
    return pd.DataFrame({name: values for name, values in columns.items() if any(value != "" for value in values)})


def costs_table(costs: pd.DataFrame, labels: dict[str, str]) -> pd.DataFrame:
    """The page's table of `costs.csv`: seconds, images a second and megabytes without needless digits."""
    return pd.DataFrame(
        {
            "Variant": costs["variant"].map(labels),
            "Seconds a run, median": costs["train_seconds_median"].map("{:,.1f}".format),
            "Images a second": costs["images_per_second"].map("{:,.0f}".format, na_action="ignore"),
            "Memory, MB": costs["peak_memory_mb"].map("{:,.0f}".format),
            "Threads": costs["threads"],
            "Device": costs["device"],
        }
    )


def claims_table(claims: list[dict[str, Any]]) -> pd.DataFrame:
    """The page's table of the claims: title, verdict, the sentence that gives its reason, and the runs behind it."""
    return pd.DataFrame(
        {
            "Claim": [claim["title"] for claim in claims],
            "Verdict": [claim["verdict"] for claim in claims],
            "What was found": [claim["sentence"] for claim in claims],
            "Runs": [claim["runs"] for claim in claims],
        }
    )


def equations_table(checks: list[dict[str, Any]]) -> pd.DataFrame:
    """The page's table of the equations' checks, by label: what each says, its kind, and the test."""
    return pd.DataFrame(
        {
            "Equation": [check["label"].removeprefix("eq:") for check in checks],
            "Check": [check["what"] for check in checks],
            "Kind": [check["how"] for check in checks],
            "Test": [check["test"] for check in checks],
            "Outcome": [check["outcome"] for check in checks],
        }
    )


def search_table(search: pd.DataFrame, searches: dict[str, list[str]]) -> pd.DataFrame:
    """The page's table of `search.csv`: each search's trials, the best of the longest rung first.

    Args:
        search: the table.
        searches: the settings that each search chooses. They share one column: those of several searches, side by side,
            would be wider than a page.
    """
    search = search.sort_values(
        ["search", "rung", "validation_accuracy"], ascending=[True, False, False], kind="stable", ignore_index=True
    )
    settings = [_settings(row, searches[row["search"]]) for row in search.to_dict("records")]
    return pd.DataFrame(
        {
            "Search": search["search"],
            "Trial": search["trial"].str[:8],
            "Settings": settings,
            "Seed": search["seed"],
            "Steps": search["step"].map("{:,}".format),
            "Validation %": search["validation_accuracy"].map(_percent),
            "Loss": search["validation_loss"].map("{:.3f}".format),
            "Status": search["status"],
            "Selected": search["selected"].map({True: "✓", False: ""}),
        }
    )


def _page(title: str, table: pd.DataFrame, kind: str = "numbers") -> str:
    """A table as a page of its own; of the kind "text" where it holds sentences."""
    with pd.option_context("display.max_colwidth", None):
        return _PAGE.format(title=title, table=table.to_html(index=False, border=0, justify="unset", classes=kind))


def _percent(fraction: float) -> str:
    """A fraction in per cent, for a column that says so; empty where there is none."""
    return "" if pd.isna(fraction) else f"{100 * fraction:.1f}"


def _settings(row: dict[str, Any], names: list[str]) -> str:
    """The searched settings of a trial, without needless digits."""
    values = [f"{row[name]:g}" if isinstance(row[name], float) else str(row[name]) for name in names]
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in zip(names, values, strict=True))


def _best(summary: pd.DataFrame, labels: dict[str, str]) -> dict[str, Any] | None:
    """The variant with the highest mean test accuracy; None where every run diverged."""
    completed = summary.dropna(subset="test_accuracy_mean")
    if completed.empty:
        return None
    row = completed.loc[completed["test_accuracy_mean"].idxmax()]
    return {"label": labels[row["variant"]], "accuracy": _percent(row["test_accuracy_mean"]), "seeds": row["seeds"]}


def _slowest(costs: pd.DataFrame, labels: dict[str, str]) -> dict[str, str]:
    """The variant whose runs take the longest."""
    row = costs.loc[costs["train_seconds_median"].idxmax()]
    return {"label": labels[row["variant"]], "seconds": f"{row['train_seconds_median']:,.1f}"}


def _verdicts(claims: list[dict[str, Any]]) -> str:
    """How many claims have each verdict, in words."""
    counts = pd.Series([claim["verdict"] for claim in claims]).value_counts()
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if verdict in counts)
