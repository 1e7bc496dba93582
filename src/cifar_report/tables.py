"""What LaTeX includes besides figures: tables by pandas' writer, and every number of the text as a named result."""

import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from cifar_report import datasets
from cifar_report.files import read_json, to_json, write_text
from cifar_report.latex import escape, num
from cifar_report.results import Run, load_runs
from cifar_report.statistics import Interval, t_interval

TABLES = ("summary", "settings", "search", "figures", "provenance")

PLACED = ("samples", "comparison", "first-layer", "confusion", "calibration")
DATA_NOTES = {
    "digits": "This report was made from the handwritten digits that scikit-learn ships, as a demonstration of the "
    "pipeline; it says nothing about CIFAR-10.",
    "image-folder": "The images were read from image files, not from the official CIFAR-10 archive; where these files "
    "were encoded anew, as JPEG for instance, accuracies may differ slightly from those on the archive.",
    "cifar10": "The images are those of the official CIFAR-10 archive.",
}
_OPTIMISERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}
_WRAPPED = r">{\raggedright\arraybackslash\hangindent=1em}X"  # a column of a tabularx

# {"text": as LaTeX prints it, "files": what it was computed from}, and where it is a mean "runs", the same files.
Number = dict[str, Any]


def write(stage: dict[str, Any], results: Path) -> None:
    """Writes `numbers.tex`, `numbers.json` and `tables/<name>.tex` for each name of TABLES below a study's folder.

    Args:
        stage: {"variants", "searches", "study", "report"} of the plan.
    """
    runs = load_runs(results / "runs", stage["variants"])
    data = datasets.load(results / "dataset")
    search = pd.read_csv(results / "search.csv", dtype={"hidden": str}) if stage["searches"] else None
    claims, figures = read_json(results / "claims.json"), read_json(results / "figures" / "figures.json")
    found = numbers(stage, runs, data, search, claims, figures)
    write_text(results / "numbers.tex", numbers_as_latex(found, runs))
    write_text(results / "numbers.json", to_json(found))
    tables = {
        "summary": summary_table(stage, pd.read_csv(results / "summary.csv")),
        "settings": settings_table(stage, runs),
        "search": search_table(search),
        "figures": figure_list(figures),
        "provenance": provenance_table(stage, runs),
    }
    for name, text in tables.items():
        write_text(results / "tables" / f"{name}.tex", text)


def numbers_as_latex(found: dict[str, Number], runs: dict[str, list[Run]]) -> str:
    r"""One `\setresult{key}{text}` a line, and as a comment the time that the PDF is dated with."""
    date = max((run.record["commit"]["time"] or 0 for members in runs.values() for run in members), default=0)
    lines = [f"\\setresult{{{key}}}{{{number['text']}}}" for key, number in found.items()]
    return "\n".join([f"% SOURCE_DATE_EPOCH {date}", *lines]) + "\n"


def numbers(
    stage: dict[str, Any],
    runs: dict[str, list[Run]],
    data: datasets.Dataset,
    search: pd.DataFrame | None,
    claims: list[dict[str, Any]],
    figures: list[dict[str, Any]],
) -> dict[str, Number]:
    """Every result that the report may print, by its key; its files are named from the study's folder."""
    every = [run for members in runs.values() for run in members]
    found = _from(_plan_numbers(stage), "plan/stages/tables.json")
    found |= _from(_data_numbers(data), "dataset/dataset.json")
    found |= _from(_run_numbers(every), *_records(every))
    for variant in stage["variants"]:
        texts = _variant_numbers(variant, runs[variant["name"]])
        found |= {f"{variant['name']}.{key}": number for key, number in texts.items()}
    if search is not None:
        found |= _from(_search_numbers(search), "search.csv")
    found |= _from(_claim_numbers(claims), "claims.json")
    found |= _from(_figure_numbers(figures), "figures/figures.json")
    sources = {figure["name"]: figure["sources"] for figure in figures} | {
        "tables/summary": ["summary.csv"],
        "tables/settings": _records([members[0] for members in runs.values()]),
        "tables/search": ["search.csv"] if search is not None else [],
        "tables/figures": ["figures/figures.json"],
        "tables/provenance": _records(every),
    }
    for name, files in sources.items():
        found |= _from({f"sources.{name}": escape(shortened(files))}, *files)
    return found


def shortened(files: Iterable[str]) -> str:
    """Paths as few words: those that differ in one part are joined, two in braces and more with a star.

    A star may stand for fewer files than there are; `numbers.json` has them all.
    """
    paths = [tuple(file.split("/")) for file in sorted(set(files))]
    for part in reversed(range(max(map(len, paths), default=0))):
        alike: dict[tuple, list[str]] = {}
        for path in paths:
            here = path[part : part + 1]
            alike.setdefault((path[:part], path[part + 1 :], bool(here)), []).extend(here)
        paths = [
            (*before, _joined(names), *after) if present else (*before, *after)
            for (before, after, present), names in alike.items()
        ]
    return ", ".join(map("/".join, paths))


def _joined(names: list[str]) -> str:
    if len(names) <= 2:
        return names[0] if len(names) == 1 else f"{{{','.join(names)}}}"
    start = re.sub(r"\w*$", "", os.path.commonprefix(names))  # noqa: RUF071 (characters, not folders)
    endings = [name[len(start) :][::-1] for name in names]
    end = re.sub(r"\w*$", "", os.path.commonprefix(endings))[::-1]  # noqa: RUF071
    return f"{start}*{end}"


def _from(texts: dict[str, str], *files: str) -> dict[str, Number]:
    """Texts that were computed from these files."""
    return {key: {"text": text, "files": list(files)} for key, text in texts.items()}


def _mean(texts: dict[str, str], runs: list[Run]) -> dict[str, Number]:
    """Texts that are means over these runs."""
    return {key: number | {"runs": number["files"]} for key, number in _from(texts, *_records(runs)).items()}


def _records(runs: list[Run]) -> list[str]:
    return [f"runs/{run.variant}/seed-{run.seed}/run.json" for run in runs]


def _plan_numbers(stage: dict[str, Any]) -> dict[str, str]:
    report = stage["report"]
    found = {
        "study": escape(stage["study"]),
        "study.variants": num(len(stage["variants"])),
        "report.title": escape(report["title"]),
        "report.author": escape(report["author"]),
    }
    if report.get("affiliation"):
        found["report.affiliation"] = escape(report["affiliation"])
    if originals := sum(v["original_test_accuracy"] is not None for v in stage["variants"]):
        found["study.originals"] = num(originals)
    return found


def _data_numbers(data: datasets.Dataset) -> dict[str, str]:
    return {
        "data.name": escape(data.name),
        "data.note": DATA_NOTES[data.source],
        "data.classes": num(len(data.class_names)),
        "data.class-names": ", ".join(map(escape, data.class_names)),
        "data.shape": r" \times ".join(map(str, data.description["shape"])),
        "data.inputs": num(math.prod(data.description["shape"])),
        **{f"data.{split}-images": num(count) for split, count in data.counts.items()},
        "data.training-images": num(data.counts["train"] + data.counts["validation"]),
        "data.digest": ", ".join(f"{k} {v[:12]}" for k, v in data.digests().items() if k.endswith("images")),
        "data.chance": percent(1 / len(data.class_names)),
    }


def _run_numbers(runs: list[Run]) -> dict[str, str]:
    commits = {run.record["commit"]["hash"]: run.record["commit"]["time"] or 0 for run in runs}
    ordered = [
        rf"\texttt{{{name[:7]}}}" for name in sorted(filter(None, commits), key=lambda name: (commits[name], name))
    ]
    earlier = f" and {len(ordered) - 1} earlier" if len(ordered) > 1 else ""
    dirty = any(run.record["commit"]["dirty"] for run in runs)
    found = {
        "study.runs": num(len(runs)),
        "commit": ", ".join(ordered) or "none",
        "commit.short": (ordered or ["none"])[-1] + earlier,
        "commit.note": "with changes that were not committed" if dirty else "without uncommitted changes",
    }
    if diverged := sum(not run.completed for run in runs):
        found["study.diverged"] = num(diverged)
    return found


def _search_numbers(search: pd.DataFrame) -> dict[str, str]:
    best = search[search["selected"]].iloc[0]
    return {
        "search.trials": num(len(search)),
        "search.best-validation-accuracy": percent(best["validation_accuracy"]),
        "search.worst-validation-accuracy": percent(search["validation_accuracy"].min()),
    }


def _claim_numbers(claims: list[dict[str, Any]]) -> dict[str, str]:
    verdicts = [claim["verdict"] for claim in claims]
    counts = {f"claims.{v}": num(verdicts.count(v)) for v in ("supported", "refuted", "inconclusive", "untested")}
    return {"claims": num(len(claims)), **counts}


def _figure_numbers(figures: list[dict[str, Any]]) -> dict[str, str]:
    r"""What `\resultfigure` prints of each figure: its caption and alternative text."""
    found = {}
    for figure in figures:
        name = figure["name"]
        facts = "; ".join(f"{key.replace('-', ' ')}: {value}" for key, value in figure["facts"].items())
        found[f"figures.{name}"] = escape(figure["caption"]).replace(r" \%", r"\,\%")
        found[f"alternative.{name}"] = escape(f"{figure['title']}. {facts}".strip())
    return found


def _variant_numbers(variant: dict[str, Any], runs: list[Run]) -> dict[str, Number]:
    completed = [run for run in runs if run.completed]
    record = runs[0].record
    settings = record["settings"]
    planned = {"label": escape(variant["label"])}
    if variant["original_test_accuracy"] is not None:
        planned["original"] = percent(variant["original_test_accuracy"])
    counts = {"seeds": num(len(completed)), "diverged": num(len(runs) - len(completed))}
    size = {
        "parameters": num(record["parameters"]),
        "steps": num(settings["steps"]),
        "batch-size": num(settings["batch_size"]),
        "learning-rate": num(settings["learning_rate"]),
        "images-seen": num(settings["steps"] * settings["batch_size"]),
        "hidden": _hidden(settings),
        "forward-flops": flops(record["forward_flops"]),
        "training-flops": flops(training_flops(record)),
        "evaluation-images": num(settings["evaluation_images"]),
    }
    means = {}
    for split in ("train", "validation", "test"):
        values = [run.final(split, "accuracy") for run in completed if split in run.record["final"]]
        if values:
            means[f"{split}-accuracy"] = interval(t_interval(values))
            means[f"{split}-loss"] = num(sum(run.final(split, "loss") for run in completed) / len(completed), 3)
    if completed:
        gaps = [run.final("train", "accuracy") - run.final("test", "accuracy") for run in completed]
        means["gap"] = interval(t_interval(gaps))
    return (
        _from(planned, "plan/stages/tables.json")
        | _from(counts, *_records(runs))
        | _from(size, *_records(runs[:1]))
        | _mean(means, completed)
    )


def summary_table(stage: dict[str, Any], summary: pd.DataFrame) -> str:
    """Every variant's size, effort and accuracies, in per cent, from the rows of `summary.csv`."""
    labels = {variant["name"]: escape(variant["label"]) for variant in stage["variants"]}
    rows = []
    for row in summary.itertuples():
        half = (row.test_accuracy_ci95_high - row.test_accuracy_ci95_low) / 2
        rows.append(
            {
                "Variant": labels[row.variant],
                "{Parameters}": str(row.parameters),
                "{Images seen}": str(row.steps * row.batch_size),
                "{Seeds}": f"{row.seeds}" + (rf"\rlap{{$^{{-{row.diverged}}}$}}" if row.diverged else ""),
                "{Training}": _cell(row.train_accuracy_mean, 1),
                "{Test}": _cell(row.test_accuracy_mean, 2),
                r"{$\pm$}": _cell(half, 2),
                "{Original}": _cell(row.original_test_accuracy, 1),
            }
        )
    formats = ["7.0", "8.0", "2.0", "3.1", "3.2", "2.2", "2.1"]
    table = pd.DataFrame(rows)
    if summary["original_test_accuracy"].isna().all():
        formats, table = formats[:-1], table.drop(columns="{Original}")
    columns = " ".join(f"S[table-format={f}]" for f in formats)
    return _latex(table, f"{_WRAPPED} {columns}", wide=True)


def settings_table(stage: dict[str, Any], runs: dict[str, list[Run]]) -> str:
    """What each variant was trained with; what few variants have stands below their names."""
    rows = []
    for variant in stage["variants"]:
        s = runs[variant["name"]][0].record["settings"]
        extras = [
            f"batch norm ({s['batch_norm']})" if s["batch_norm"] != "none" else "",
            f"{s['schedule']} schedule" if s["schedule"] != "constant" else "",
            f"momentum {num(s['momentum'])}" if s["momentum"] else "",
            f"weight decay {num(s['weight_decay'])}" if s["weight_decay"] else "",
            f"label smoothing {num(s['label_smoothing'])}" if s["label_smoothing"] else "",
            f"dropout {num(s['dropout'])}" if s["dropout"] else "",
            "flips" if s["flip"] else "",
            f"shifts of {s['shift']} pixels" if s["shift"] else "",
            f"weights averaged ({num(s['average_decay'])})" if s["average_decay"] else "",
            "standardised channels" if s["preprocessing"] == "standardise" else "",
        ]
        besides = ", ".join(filter(None, extras))
        rows.append(
            {
                "Variant": escape(variant["label"]) + (rf"\newline with {besides}" if besides else ""),
                "Hidden units": _hidden(s),
                "Optimiser": _OPTIMISERS[s["optimiser"]],
                "{Rate}": f"{s['learning_rate']:g}",
                "{Steps}": str(s["steps"]),
                "{Batch}": str(s["batch_size"]),
                "Initial weights": "PyTorch's"
                if s["initial_std"] is None
                else rf"$\sigma = \num{{{s['initial_std']:g}}}$",
            }
        )
    numeric = "S[table-format=1.5] S[table-format=5.0] S[table-format=3.0]"
    return _latex(pd.DataFrame(rows), f"{_WRAPPED} l l {numeric} l", wide=True)


def search_table(search: pd.DataFrame | None, best: int = 10) -> str:
    """The best configurations of each search by validation accuracy, the selected one in bold."""
    if search is None or search.empty:
        return "% The study has no search.\n"
    tables = []
    for _, trials in search.groupby("search", sort=True):
        top = trials.sort_values(["validation_accuracy", "validation_loss"], ascending=[False, True]).head(best)
        settings = [c for c in trials.columns if c not in _SEARCH_COLUMNS and trials[c].notna().any()]
        rows = []
        for _, trial in top.iterrows():
            bold = r"\bfseries " if trial["selected"] else ""
            shown = {escape(name.replace("_", " ").capitalize()): bold + _setting(trial[name]) for name in settings}
            rows.append(shown | {"{Validation}": bold + f"{100 * trial['validation_accuracy']:.1f}"})
        tables.append(_latex(pd.DataFrame(rows), "l " * len(settings) + "S[table-format=2.1, detect-weight]"))
    return "\n".join(tables)


def figure_list(figures: list[dict[str, Any]]) -> str:
    r"""A `\resultfigure` for each figure that the text does not place itself, so that a new variant appears unasked.

    Learning curves stand two by two.
    """
    names = [figure["name"] for figure in figures if figure["name"] not in PLACED]
    curves = [name for name in names if name.startswith("curves-")]
    pairs = [f"\\resultfigures{{{a}}}{{{b}}}\n" for a, b in zip(curves[::2], curves[1::2], strict=False)]
    single = [*curves[len(curves) // 2 * 2 :], *(name for name in names if name not in curves)]
    return "".join(pairs + [f"\\resultfigure{{{name}}}\n" for name in single])


def provenance_table(stage: dict[str, Any], runs: dict[str, list[Run]]) -> str:
    """On what each variant was trained: device, versions, threads, seeds, commit."""
    rows = []
    for variant in stage["variants"]:
        records = [run.record for run in runs[variant["name"]]]
        devices = sorted({r["device"].get("gpu", r["device"]["cpu"]) for r in records})
        rows.append(
            {
                "Variant": escape(variant["label"]),
                "Seeds": _ranges(record["seed"] for record in records),
                "{Threads}": "/".join(sorted({str(r["threads"]) for r in records})),
                "Device and versions": escape("; ".join([*devices, *sorted({_versions(r) for r in records})])),
                "Commit": r"\ttfamily " + ", ".join(sorted({(r["commit"]["hash"] or "none")[:7] for r in records})),
            }
        )
    commits = r">{\raggedright\arraybackslash}p{16mm}"
    return _latex(pd.DataFrame(rows), f"{_WRAPPED} l c {_WRAPPED} {commits}", wide=True)


def training_flops(record: dict[str, Any]) -> int:
    """Of a whole run: three forward passes' worth a step, as the backward pass costs two."""
    return 3 * record["forward_flops"] * record["samples_seen"]


def percent(fraction: float) -> str:
    """A fraction in per cent, to a tenth."""
    return rf"\qty{{{100 * fraction:.1f}}}{{\percent}}"


def interval(value: Interval) -> str:
    """A mean in per cent with the half width of its 95 % interval, where there is one."""
    return rf"\qty{{{_uncertain(value)}}}{{\percent}}"


def flops(count: float) -> str:
    """Floating-point operations with two digits."""
    return rf"\num{{{count:.1e}}}"


def _uncertain(value: Interval) -> str:
    mean = 100 * value.mean
    half = 100 * (value.high - value.low) / 2
    return f"{mean:.2f}" if half != half else f"{mean:.2f} +- {half:.2f}"


def _cell(fraction: float, digits: int) -> str:
    """A fraction in per cent, for a column of numbers; a dash where it is not a number."""
    return "{--}" if math.isnan(fraction) else f"{100 * fraction:.{digits}f}"


def _latex(table: pd.DataFrame, columns: str, wide: bool = False) -> str:
    text = table.to_latex(index=False, column_format=columns, escape=False)
    if wide:  # pandas knows no tabularx
        text = text.replace(r"\begin{tabular}", r"\begin{tabularx}{\textwidth}").replace(
            r"\end{tabular}", r"\end{tabularx}"
        )
    return text


_SEARCH_COLUMNS = ("trial", "validation_accuracy", "validation_loss", "status", "selected", "search")


def _setting(value: Any) -> str:
    if isinstance(value, str):
        return escape(value.replace("-", ", ") if value[:1].isdigit() else value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _hidden(settings: dict[str, Any]) -> str:
    if settings["kind"] == "torch-vgg":
        return "VGG"
    return ", ".join(map(str, settings["hidden"])) or "none"


def _versions(record: dict[str, Any]) -> str:
    names = {"python": "Python", "numpy": "NumPy", "torch": "PyTorch"}
    return ", ".join(f"{names[k]} {v}" for k, v in record["versions"].items())


def _ranges(seeds: Iterable[int]) -> str:
    ordered = sorted(seeds)
    if len(ordered) > 2 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"{ordered[0]}--{ordered[-1]}"
    return ", ".join(map(str, ordered))
