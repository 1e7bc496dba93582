"""What LaTeX includes besides figures: tables by pandas' writer, and every number of the text as a named result."""

import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from cifar_report.analysis.statistics import (
    CALIBRATION_BINS,
    Interval,
    binomial_error,
    confusion_counts,
    reliability,
    t_interval,
)
from cifar_report.base.files import read_json, to_json, write_text
from cifar_report.data import datasets
from cifar_report.rendering.latex import escape, num
from cifar_report.runs.devices import guarantee
from cifar_report.runs.record import Run, load_runs, main_models
from cifar_report.study.config import NEUTRAL

TABLES = (
    "summary",
    "splits",
    "differences",
    "classes",
    "best",
    "flips",
    "settings",
    "search",
    "search-figures",
    "figures",
    "provenance",
)

PLACED = ("samples", "comparison", "first-layer", "confusion", "calibration")
OF_SEARCHES = ("search-", "interactions-", "batch-size")  # how the names of their figures begin
DATA_NOTES = {
    "digits": "This report was made from the handwritten digits that scikit-learn ships, as a demonstration of the "
    "pipeline; it says nothing about CIFAR-10.",
    "image-folder": "The images were read from image files; where these were encoded anew, as JPEG for instance, "
    "accuracies may differ slightly from those on the original images.",
    "cifar10": "The images are those of the official CIFAR-10 archive.",
}
_OPTIMISERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}
_WRAPPED = r">{\raggedright\arraybackslash\hangindent=1em}X"  # a column of a tabularx
_MOST_CLASSES = 20  # of a table
# Settings that have columns of their own in the table of settings, and those that say nothing of a recipe.
_COLUMNS = ("kind", "hidden", "slope", "optimiser", "learning_rate", "steps", "batch_size", "initial_std", "train_on")
_APART = ("evaluate_every", "evaluation_images", "threads", "deterministic")

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
    flips = pd.read_csv(results / "flips.csv")
    labels = data.split("test")[1]
    answers = {name: [Answers.of(run, labels) for run in runs[name] if run.completed] for name in runs}
    found = numbers(stage, runs, data, search, claims, figures, flips, answers)
    write_text(results / "numbers.tex", numbers_as_latex(found, runs))
    write_text(results / "numbers.json", to_json(found))
    tables = {
        "summary": summary_table(stage, pd.read_csv(results / "summary.csv"), data.counts["test"]),
        "splits": splits_table(stage, runs, answers),
        "differences": differences_table(stage, runs),
        "classes": classes_table(stage, runs, answers, data.class_names),
        "best": best_table(stage, runs),
        "flips": flips_table(stage, flips),
        "settings": settings_table(stage, runs),
        "search": search_table(search),
        "search-figures": search_figure_list(figures),
        "figures": figure_list(figures),
        "provenance": provenance_table(stage, runs),
    }
    for name, text in tables.items():
        write_text(results / "tables" / f"{name}.tex", text)


class Answers(NamedTuple):
    """What a run's test logits say: the expected calibration error, and each class's accuracy (fractions)."""

    calibration_error: float
    class_accuracy: Float[np.ndarray, " classes"]

    @classmethod
    def of(cls, run: Run, labels: Int[np.ndarray, " n"]) -> "Answers":
        """From the logits of a completed run; NaN for a class without a test image."""
        logits = run.test_logits(len(labels))
        counts = confusion_counts(logits, labels)
        with np.errstate(invalid="ignore"):
            accuracy = np.diag(counts) / counts.sum(axis=1)
        return cls(reliability(logits, labels).expected_calibration_error(), accuracy)


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
    flips: pd.DataFrame,
    answers: dict[str, list[Answers]],
) -> dict[str, Number]:
    """Every result that the report may print, by its key; its files are named from the study's folder."""
    every = [run for members in runs.values() for run in members]
    found = _from(_plan_numbers(stage), "plan/stages/tables.json")
    found |= _from(_data_numbers(data), "dataset/dataset.json")
    found |= _from(_run_numbers(every), *_records(every))
    for variant in stage["variants"]:
        name = variant["name"]
        texts = _variant_numbers(variant, runs[name], data.counts["test"])
        texts |= _answer_numbers(runs[name], answers[name])
        texts |= _from(_flip_numbers(flips[flips["variant"] == name]), "flips.csv")
        if (base := stage["like"].get(name)) is not None:
            texts |= _difference_numbers(runs[name], runs[base])
        found |= {f"{name}.{key}": number for key, number in texts.items()}
    found |= _from({"calibration.bins": num(CALIBRATION_BINS)}, "plan/stages/tables.json")
    if rows := _best_pairs(stage, runs):
        found |= _from({"best": num(len(rows))}, "plan/stages/tables.json")
    if len(flips):
        found |= _from({"flips": num(flips["variant"].nunique())}, "flips.csv")
    if stage["like"]:
        found |= _from({"differences": num(len(stage["like"]))}, "plan/stages/tables.json")
    if search is not None:
        found |= _from(_search_numbers(search), "search.csv")
    found |= _from(_claim_numbers(claims), "claims.json")
    found |= _from(_figure_numbers(figures), "figures/figures.json")
    sources = {figure["name"]: figure["sources"] for figure in figures} | {
        "tables/summary": ["summary.csv"],
        "tables/splits": [*_records(every), *_logits(every)],
        "tables/differences": _records(every),
        "tables/classes": _logits([run for name in main_models(stage["main"], runs) for run in runs[name]]),
        "tables/best": _records(
            [run for pair in _best_pairs(stage, runs) for name in pair for run in runs.get(name, [])]
        ),
        "tables/flips": ["flips.csv"],
        "tables/settings": _records([members[0] for members in runs.values()]),
        "tables/search": ["search.csv"] if search is not None else [],
        "tables/search-figures": ["figures/figures.json"],
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


def _logits(runs: list[Run]) -> list[str]:
    return [f"runs/{run.variant}/seed-{run.seed}/test-logits.npy" for run in runs if run.completed]


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
    found = {"search.trials": num(len(search))}
    for name, trials in search.groupby("search", sort=True):
        first = trials[trials["rung"] == 1]
        numbers = {
            "trials": num(len(trials)),
            "configurations": num(len(first)),
            "rungs": num(int(trials["rung"].max())),
            "first-steps": num(int(first["step"].max())),
            "worst-validation-accuracy": percent(first["validation_accuracy"].min()),
            "best-validation-accuracy": percent(trials.loc[trials["selected"], "validation_accuracy"].iloc[0]),
        }
        found |= {f"search.{name}.{key}": text for key, text in numbers.items()}
    return found


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


def _answer_numbers(runs: list[Run], answers: list[Answers]) -> dict[str, Number]:
    if not answers:
        return {}
    return _from({"ece": percent(float(np.mean([a.calibration_error for a in answers])))}, *_logits(runs))


def _flip_numbers(flips: pd.DataFrame) -> dict[str, str]:
    if flips.empty:
        return {}
    return {
        "test-accuracy-flipped": interval(t_interval(flips["accuracy_flipped"])),
        "flip-gain": interval(t_interval(flips["accuracy_flipped"] - flips["accuracy"])),
    }


def _difference_numbers(runs: list[Run], base: list[Run]) -> dict[str, Number]:
    differences = paired(runs, base)
    if not len(differences):
        return {}
    return _from({"difference": interval(t_interval(differences))}, *_records(runs), *_records(base))


def _variant_numbers(variant: dict[str, Any], runs: list[Run], test_images: int) -> dict[str, Number]:
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
        tests = np.array([run.final("test", "accuracy") for run in completed])
        means["test-accuracy-binomial"] = fine_percent(binomial_error(tests.mean(), test_images))
        if len(tests) > 1:
            means["test-accuracy-std"] = fine_percent(tests.std(ddof=1))
    return (
        _from(planned, "plan/stages/tables.json")
        | _from(counts, *_records(runs))
        | _from(size, *_records(runs[:1]))
        | _mean(means, completed)
    )


def summary_table(stage: dict[str, Any], summary: pd.DataFrame, test_images: int) -> str:
    """Every variant's size, effort and test accuracy, in per cent, from the rows of `summary.csv`.

    Beside the mean stand what other seeds would change, the half width of its 95 % interval and the standard deviation
    of one run, and what other test images would, the binomial standard error.
    """
    labels = _labels(stage)
    rows = []
    for row in summary.itertuples():
        half = (row.test_accuracy_ci95_high - row.test_accuracy_ci95_low) / 2
        rows.append(
            {
                "Variant": labels[row.variant],
                "{Parameters}": str(row.parameters),
                "{Images seen}": str(row.steps * row.batch_size),
                "{Seeds}": f"{row.seeds}" + (rf"\rlap{{$^{{-{row.diverged}}}$}}" if row.diverged else ""),
                "{Test}": _cell(row.test_accuracy_mean, 2),
                r"{$\pm$}": _cell(half, 2),
                "{$s$}": _cell(row.test_accuracy_std, 2),
                r"{$\sigma_n$}": _cell(binomial_error(row.test_accuracy_mean, test_images), 2),
                "{Original}": _cell(row.original_test_accuracy, 1),
            }
        )
    formats = ["8.0", "8.0", "2.0", "3.2", "2.2", "1.2", "1.2", "2.1"]
    table = pd.DataFrame(rows)
    if summary["original_test_accuracy"].isna().all():
        formats, table = formats[:-1], table.drop(columns="{Original}")
    return _latex(table, f"{_WRAPPED} {_numeric(*formats)}", wide=True)


def splits_table(stage: dict[str, Any], runs: dict[str, list[Run]], answers: dict[str, list[Answers]]) -> str:
    """Losses (nats) and accuracies (per cent) of the whole splits at the last step, their gap, and the ECE."""
    rows = []
    for variant in stage["variants"]:
        name = variant["name"]
        completed = [run for run in runs[name] if run.completed]
        gap = t_interval([run.final("train", "accuracy") - run.final("test", "accuracy") for run in completed])
        row = {"Variant": escape(variant["label"])}
        for split, head in (("train", "Training"), ("test", "Test")):
            loss = t_interval([run.final(split, "loss") for run in completed]).mean
            row[f"{{{head} loss}}"] = "{--}" if math.isnan(loss) else f"{loss:.3f}"
        row["{Training}"] = _cell(t_interval([run.final("train", "accuracy") for run in completed]).mean, 2)
        row["{Test}"] = _cell(t_interval([run.final("test", "accuracy") for run in completed]).mean, 2)
        row |= {"{Gap}": _cell(gap.mean, 2), r"{$\pm$}": _cell(gap.half, 2)}
        row["{ECE}"] = _cell(t_interval([a.calibration_error for a in answers[name]]).mean, 2)
        rows.append(row)
    formats = _numeric("2.3", "2.3", "3.2", "3.2", "2.2", "2.2", "2.2")
    return _latex(pd.DataFrame(rows), f"{_WRAPPED} {formats}", wide=True)


def differences_table(stage: dict[str, Any], runs: dict[str, list[Run]]) -> str:
    """Each variant against the one that it is `like`: the settings that differ, and the accuracies, paired by seed."""
    labels = _labels(stage)
    rows = []
    for name, base in stage["like"].items():
        found = paired(runs[name], runs[base])
        difference = t_interval(found)
        changed = _changes(runs[name][0].record["settings"], runs[base][0].record["settings"])
        rows.append(
            {
                "Variant": labels[name],
                "Compared with": labels[base],
                "What is different": ", ".join(changed) or "nothing",
                "{Pairs}": str(len(found)),
                "{Difference}": _cell(difference.mean, 2),
                r"{$\pm$}": _cell(difference.half, 2),
            }
        )
    if not rows:
        return "% No variant is like another.\n"
    return _latex(pd.DataFrame(rows), f"{_wrapped(0.9, 0.8, 1.3)} {_numeric('2.0', '+2.2', '2.2')}", wide=True)


def paired(runs: list[Run], base: list[Run]) -> Float[np.ndarray, " pairs"]:
    """Differences of the test accuracies, fractions, of the seeds that both completed."""
    first, second = ({r.seed: r.final("test", "accuracy") for r in found if r.completed} for found in (runs, base))
    return np.array([first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())])


def classes_table(
    stage: dict[str, Any], runs: dict[str, list[Run]], answers: dict[str, list[Answers]], class_names: list[str]
) -> str:
    """The accuracy within each class, in per cent, of the main models: means over the seeds.

    Of more than 20 classes, those are shown that the last model has the lowest accuracy in.
    """
    labels = _labels(stage)
    models = main_models(stage["main"], runs)
    if not models:
        return "% Every run diverged.\n"
    means = {name: np.mean([a.class_accuracy for a in answers[name]], axis=0) for name in models}
    shown = np.sort(np.argsort(means[models[-1]], kind="stable")[:_MOST_CLASSES])
    heads = {name: rf"{{\parbox[b]{{20mm}}{{\raggedleft {labels[name]}}}}}" for name in models}
    columns = {heads[name]: [_cell(means[name][c], 1) for c in shown] for name in models}
    table = pd.DataFrame({"Class": [escape(class_names[c]) for c in shown]} | columns)
    return _latex(table, f"l {_numeric(*['3.1'] * len(models))}")


def best_table(stage: dict[str, Any], runs: dict[str, list[Run]]) -> str:
    """The original, what its settings reach here, and the variants that go beyond it, with their recipes."""
    variants = {variant["name"]: variant for variant in stage["variants"]}
    rows, last = [], None
    for reproduced, best in _best_pairs(stage, runs):
        record = runs[best][0].record
        if known := reproduced in runs and reproduced != last:
            original = variants[reproduced]["original_test_accuracy"]
            ours = _test(runs[reproduced])
        rows.append(
            {
                "Reproduced": escape(variants[reproduced]["label"]) if known else "",
                "{Original}": _cell(math.nan if original is None else original, 1) if known else "",
                "{Here}": _cell(ours.mean, 2) if known else "",
                r"{$\pm$}": _cell(ours.half, 2) if known else "",
                "Beyond it": rf"{escape(variants[best]['label'])}\newline {_recipe(record)}",
                "{Best}": _cell(_test(runs[best]).mean, 2),
                r"{$\pm$ }": _cell(_test(runs[best]).half, 2),
            }
        )
        last = reproduced
    if not rows:
        return "% The study runs no variant that report.best names.\n"
    numeric = _numeric("2.1", "2.2", "2.2")
    columns = f"{_wrapped(0.6)} {numeric} {_wrapped(1.4)} {_numeric('2.2', '2.2')}"
    table = pd.DataFrame(rows)
    if (table["{Original}"].isin(["", "{--}"])).all():
        table, columns = table.drop(columns="{Original}"), columns.replace(numeric, _numeric("2.2", "2.2"))
    return _latex(table, columns, wide=True)


def flips_table(stage: dict[str, Any], flips: pd.DataFrame) -> str:
    """Test accuracy without and with test-time flips, in per cent, and the gain, paired by seed."""
    labels = _labels(stage)
    rows = []
    for name, found in flips.groupby("variant", sort=False):
        gain = t_interval(found["accuracy_flipped"] - found["accuracy"])
        rows.append(
            {
                "Variant": labels[name],
                "{Seeds}": str(len(found)),
                "{Test}": _cell(found["accuracy"].mean(), 2),
                "{With flips}": _cell(found["accuracy_flipped"].mean(), 2),
                "{Gain}": _cell(gain.mean, 2),
                r"{$\pm$}": _cell(gain.half, 2),
            }
        )
    if not rows:
        return "% No variant is measured with test-time flips.\n"
    return _latex(pd.DataFrame(rows), f"l {_numeric('2.0', '2.2', '2.2', '+2.2', '2.2')}")


def settings_table(stage: dict[str, Any], runs: dict[str, list[Run]]) -> str:
    """What each variant was trained with; what few variants have stands below their names."""
    rows = []
    for variant in stage["variants"]:
        s = runs[variant["name"]][0].record["settings"]
        besides = ", ".join(text for name, text in _phrases(s).items() if text and name not in _COLUMNS)
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
    return _latex(pd.DataFrame(rows), f"{_WRAPPED} l l {_numeric('1.5', '5.0', '3.0')} l", wide=True)


def _phrases(settings: dict[str, Any]) -> dict[str, str]:
    """Each setting of a recipe in words; empty where it is switched off."""
    s = NEUTRAL | settings
    kinds = {"numpy-mlp": "in NumPy", "torch-mlp": "in PyTorch", "torch-vgg": "a VGG"}
    known = {
        "kind": kinds.get(s["kind"], s["kind"]),
        "hidden": f"hidden units {_hidden(s)}" if s["kind"].endswith("-mlp") else "",
        "slope": "",
        "train_on": "training and validation images" if s["train_on"] == "train+validation" else "training images",
        "initial_std": "PyTorch's initial weights"
        if s["initial_std"] is None
        else rf"initial weights of $\sigma = \num{{{s['initial_std']:g}}}$",
        "steps": f"{num(s['steps'])} steps",
        "batch_size": f"batches of {num(s['batch_size'])}",
        "optimiser": _OPTIMISERS[s["optimiser"]],
        "momentum": f"{'Nesterov ' if s['nesterov'] else ''}momentum {num(s['momentum'])}" if s["momentum"] else "",
        "nesterov": "",
        "learning_rate": f"learning rate {num(s['learning_rate'])}",
        "schedule": f"{s['schedule']} schedule" if s["schedule"] != "constant" else "",
        "warmup": f"warm-up {num(s['warmup'])}" if s["warmup"] else "",
        "batch_norm": f"batch norm ({s['batch_norm']})" if s["batch_norm"] != "none" else "",
        "weight_decay": f"weight decay {num(s['weight_decay'])}" if s["weight_decay"] else "",
        "label_smoothing": f"label smoothing {num(s['label_smoothing'])}" if s["label_smoothing"] else "",
        "dropout": f"dropout {num(s['dropout'])}" if s["dropout"] else "",
        "flip": "flips" if s["flip"] else "",
        "shift": f"shifts of {s['shift']} pixels" if s["shift"] else "",
        "average_decay": f"weights averaged ({num(s['average_decay'])})" if s["average_decay"] else "",
        "preprocessing": "standardised channels" if s["preprocessing"] == "standardise" else "",
        "precision": s["precision"] if s["precision"] != "float32" else "",
    }
    others = {name: value for name, value in s.items() if name not in known and name not in _APART}
    return known | {
        name: escape(f"{name.replace('_', ' ')} {value}") if value != NEUTRAL.get(name) else ""
        for name, value in others.items()
    }


def _changes(settings: dict[str, Any], base: dict[str, Any]) -> list[str]:
    """In words, what of a recipe is not as in another."""
    here, there = _phrases(settings), _phrases(base)
    both = {name: (here.get(name, ""), there.get(name, "")) for name in here | there}
    return [ours or f"no {theirs}" for ours, theirs in both.values() if ours != theirs]


def _recipe(record: dict[str, Any]) -> str:
    """How a variant was trained, in a line or two."""
    settings = record["settings"]
    silent = ("kind", "hidden", "slope", "initial_std", "train_on", "steps", "batch_size")
    told = [text for name, text in _phrases(settings).items() if text and name not in silent]
    seen = num(settings["steps"] * settings["batch_size"])
    return ", ".join(
        [f"{num(settings['steps'])} steps of {num(settings['batch_size'])}, {seen} images seen", *told],
    )


def _best_pairs(stage: dict[str, Any], runs: dict[str, list[Run]]) -> list[tuple[str, str]]:
    """(reproduced, best) of `report.best`, for each best variant that the study runs."""
    best = stage["report"].get("best", {})
    return [(reproduced, name) for reproduced, names in best.items() for name in names if name in runs]


def _test(runs: list[Run]) -> Interval:
    return t_interval([run.final("test", "accuracy") for run in runs if run.completed])


def _labels(stage: dict[str, Any]) -> dict[str, str]:
    return {variant["name"]: escape(variant["label"]) for variant in stage["variants"]}


def search_table(search: pd.DataFrame | None, best: int = 10) -> str:
    """The best configurations of each search, the selected one in bold: the last rung's first, then by accuracy."""
    if search is None or search.empty:
        return "% The study has no search.\n"
    tables = []
    for name, trials in search.groupby("search", sort=True):
        order = ["rung", "validation_accuracy", "validation_loss"]
        top = trials.sort_values(order, ascending=[False, False, True]).head(best)
        several = trials["rung"].max() > 1
        settings = [c for c in trials.columns if c not in _SEARCH_COLUMNS and trials[c].notna().any()]
        rows = []
        for _, trial in top.iterrows():
            bold = r"\bfseries " if trial["selected"] else ""
            shown = {escape(name.replace("_", " ").capitalize()): bold + _setting(trial[name]) for name in settings}
            shown |= {"Steps": bold + str(trial["step"])} if several else {}
            rows.append(shown | {"{Validation}": bold + f"{100 * trial['validation_accuracy']:.1f}"})
        columns = "l " * (len(settings) + several) + "S[table-format=2.1, detect-weight]"
        tables.append(f"\\code{{{name}}}\\par\\smallskip\n{_latex(pd.DataFrame(rows), columns)}")
    return "\\par\\bigskip\n".join(tables)


def search_figure_list(figures: list[dict[str, Any]]) -> str:
    r"""A `\resultfigure` for each figure of a search."""
    names = [figure["name"] for figure in figures if figure["name"].startswith(OF_SEARCHES)]
    return "".join(f"\\resultfigure{{{name}}}\n" for name in names)


def figure_list(figures: list[dict[str, Any]]) -> str:
    r"""A `\resultfigure` for each figure that the text does not place itself, so that a new variant appears unasked.

    Learning curves stand two by two.
    """
    names = [f["name"] for f in figures if f["name"] not in PLACED and not f["name"].startswith(OF_SEARCHES)]
    curves = [name for name in names if name.startswith("curves-")]
    pairs = [f"\\resultfigures{{{a}}}{{{b}}}\n" for a, b in zip(curves[::2], curves[1::2], strict=False)]
    single = [*curves[len(curves) // 2 * 2 :], *(name for name in names if name not in curves)]
    return "".join(pairs + [f"\\resultfigure{{{name}}}\n" for name in single])


def provenance_table(stage: dict[str, Any], runs: dict[str, list[Run]]) -> str:
    """On what each variant was trained: device, versions, threads, seeds, commit; and what training it again gives."""
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
                "Again": " / ".join(sorted({guarantee(r["settings"], r["device"]) for r in records})),
                "Commit": r"\ttfamily " + ", ".join(sorted({(r["commit"]["hash"] or "none")[:7] for r in records})),
            }
        )
    commits = r">{\raggedright\arraybackslash}p{16mm}"
    return _latex(pd.DataFrame(rows), f"{_WRAPPED} l c {_WRAPPED} l {commits}", wide=True)


def training_flops(record: dict[str, Any]) -> int:
    """Of a whole run: three forward passes' worth a step, as the backward pass costs two."""
    return 3 * record["forward_flops"] * record["samples_seen"]


def percent(fraction: float) -> str:
    """A fraction in per cent, to a tenth."""
    return rf"\qty{{{100 * fraction:.1f}}}{{\percent}}"


def fine_percent(fraction: float) -> str:
    """A fraction in per cent, to a hundredth."""
    return rf"\qty{{{100 * fraction:.2f}}}{{\percent}}"


def interval(value: Interval) -> str:
    """A mean in per cent with the half width of its 95 % interval, where there is one."""
    return rf"\qty{{{_uncertain(value)}}}{{\percent}}"


def flops(count: float) -> str:
    """Floating-point operations with two digits."""
    return rf"\num{{{count:.1e}}}"


def _uncertain(value: Interval) -> str:
    mean = 100 * value.mean
    half = 100 * value.half
    return f"{mean:.2f}" if half != half else f"{mean:.2f} +- {half:.2f}"


def _cell(fraction: float, digits: int) -> str:
    """A fraction in per cent, for a column of numbers; a dash where it is not a number."""
    return "{--}" if math.isnan(fraction) else f"{100 * fraction:.{digits}f}"


def _numeric(*formats: str) -> str:
    """Columns of aligned numbers."""
    return " ".join(f"S[table-format={f}]" for f in formats)


def _wrapped(*shares: float) -> str:
    """Columns of a tabularx that share its free width unequally; the shares sum to their number."""
    return " ".join(rf">{{\hsize={s}\hsize\raggedright\arraybackslash\hangindent=1em}}X" for s in shares)


def _latex(table: pd.DataFrame, columns: str, wide: bool = False) -> str:
    text = table.to_latex(index=False, column_format=columns, escape=False)
    if wide:  # pandas knows no tabularx
        text = text.replace(r"\begin{tabular}", r"\begin{tabularx}{\textwidth}").replace(
            r"\end{tabular}", r"\end{tabularx}"
        )
    return text


_SEARCH_COLUMNS = (
    *("trial", "validation_accuracy", "validation_loss", "status", "selected"),
    *("rung", "step", "curve", "search"),
)


def _setting(value: Any) -> str:
    if isinstance(value, str):
        return escape(value.replace("-", ", ") if value[:1].isdigit() else value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _hidden(settings: dict[str, Any]) -> str:
    if not settings["kind"].endswith("-mlp"):
        return "VGG" if settings["kind"] == "torch-vgg" else settings["kind"].partition("-")[2]
    return ", ".join(map(str, settings["hidden"])) or "none"


def _versions(record: dict[str, Any]) -> str:
    names = {"python": "Python", "numpy": "NumPy", "torch": "PyTorch"}
    return ", ".join(f"{names[k]} {v}" for k, v in record["versions"].items())


def _ranges(seeds: Iterable[int]) -> str:
    ordered = sorted(seeds)
    if len(ordered) > 2 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"{ordered[0]}--{ordered[-1]}"
    return ", ".join(map(str, ordered))
