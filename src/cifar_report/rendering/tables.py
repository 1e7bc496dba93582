"""The tables of the LaTeX report, by pandas' writer; written together with the numbers of its text."""

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cifar_report.analysis import measurements, searches
from cifar_report.analysis.ablations import worths
from cifar_report.analysis.compatibility import Compatibility
from cifar_report.analysis.selection import main_models
from cifar_report.analysis.statistics import Interval, binomial_error, t_interval
from cifar_report.analysis.summary import Facts, facts, paired_differences
from cifar_report.base.files import read_json, read_table, to_json, write_text
from cifar_report.data import datasets
from cifar_report.rendering.latex import escape, growing, num
from cifar_report.rendering.layers import layers
from cifar_report.rendering.numbers import best_pairs, common, first_vgg, numbers, numbers_as_latex, origin
from cifar_report.rendering.words import (
    OPTIMISERS,
    changes,
    hidden_units,
    phrases,
    ranges,
    setting_change,
    setting_text,
)
from cifar_report.runs.finished import Run, load_runs
from cifar_report.study.settings import Settings

TABLES = (
    "summary",
    "compatibility",
    "splits",
    "differences",
    "classes",
    "best",
    "flips",
    "noise",
    "agreement",
    "settings",
    "layers",
    "search",
    "search-figures",
    "ablations",
    "recipes",
    "figures",
    "provenance",
)
# Figures that the text places itself.
PLACED = ("samples", "comparison", "originals", "first-layer", "confusion", "calibration", "shifts")
OF_SEARCHES = ("search-", "interactions-", "batch-size")  # how the names of their figures begin
_WRAPPED = r">{\raggedright\arraybackslash\hangindent=1em}X"  # a column of a tabularx
_MOST_CHANGES = 3  # that are named one by one
_MOST_CLASSES = 20  # of a table
# Settings that have columns of their own in the table of settings.
_COLUMNS = ("kind", "hidden", "optimiser", "learning_rate", "steps", "batch_size", "initial_std")


def write(stage: dict[str, Any], results: Path) -> None:
    """Writes `numbers.tex`, `numbers.json` and `tables/<name>.tex` for each name of TABLES below a study's folder.

    Args:
        stage: {"variants", "searches", "study", "report"} of the plan.
    """
    runs = load_runs(results / "runs", stage["variants"])
    data = datasets.load(results / "dataset")
    search = searches.read(results / "search.csv") if stage["searches"] else None
    claims, figures = read_json(results / "claims.json"), read_json(results / "figures" / "figures.json")
    flips = measurements.read(results / "flips.csv", measurements.FLIPS)
    agreement = measurements.read(results / "agreement.csv", measurements.AGREEMENT)
    by_batch = measurements.read(results / "batch-statistics.csv", measurements.BATCH_STATISTICS)
    of_variants = facts(runs, data.split("test")[1], flips, by_batch)
    entries = numbers(stage, of_variants, data, search, claims, figures)
    write_text(results / "numbers.tex", numbers_as_latex(entries, runs))
    write_text(results / "numbers.json", to_json(entries))
    tables = {
        "summary": summary_table(stage, read_table(results / "summary.csv"), data.counts["test"]),
        "compatibility": compatibility_table(stage, of_variants),
        "splits": splits_table(stage, of_variants),
        "differences": differences_table(stage, of_variants),
        "classes": classes_table(stage, of_variants, data.class_names),
        "best": best_table(stage, of_variants),
        "flips": flips_table(stage, of_variants),
        "noise": noise_table(stage, of_variants),
        "agreement": agreement_table(stage, agreement),
        "settings": settings_table(stage, runs, common(of_variants)),
        "layers": layers_table(runs, tuple(data.description["shape"]), len(data.class_names)),
        "search": search_table(search, [*stage["ablations"], *stage["recipes"]]),
        "ablations": ablations_table(stage["ablations"], search),
        "recipes": recipes_table(stage["recipes"], search),
        "search-figures": search_figure_list(figures),
        "figures": figure_list(
            figures, [v["name"] for v in stage["variants"] if v["original_test_accuracy"] is not None]
        ),
        "provenance": provenance_table(stage, runs),
    }
    for name, text in tables.items():
        write_text(results / "tables" / f"{name}.tex", text)


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
                "{SD}": _cell(row.test_accuracy_std, 2),
                "{SE}": _cell(binomial_error(row.test_accuracy_mean, test_images), 2),
                "{Original}": _cell(row.original_test_accuracy, 1),
            }
        )
    formats = ["8.0", "8.0", "2.0", "3.2", "2.2", "2.2", "2.2", "2.1"]
    table = pd.DataFrame(rows)
    if summary["original_test_accuracy"].isna().all():
        formats, table = formats[:-1], table.drop(columns="{Original}")
    return growing(_latex(table, f"{_WRAPPED} {_numeric(*formats)}", wide=True))


def compatibility_table(stage: dict[str, Any], facts: dict[str, Facts]) -> str:
    """Each printed test accuracy beside ours, in per cent: is it what one new run of ours could give?

    Beside the answer stand what makes it easy or hard: the half width of the prediction interval, the difference that
    would have been found with 80 % power, and p. Without an interval, of fewer than three seeds, there is no answer.
    A network that was measured as the original measured it, by batch statistics, has a row in evaluation mode too.
    """
    rows = []
    for variant in stage["variants"]:
        original, each = variant["original_test_accuracy"], facts[variant["name"]]
        if original is None:
            continue
        label = escape(variant["label"])
        if each.is_measured_as_the_original:
            name, count = (
                rf"{label}\newline by batch statistics, as the original",
                len(each.measured_by_batch_statistics),
            )
            found = each.compatibility(original)
            rows.append(_compatibility_row(name, original, each.batch_statistics_accuracy, count, found))
            label = rf"{label}\newline in evaluation mode"
        found = each.compatibility(original, evaluated=True)
        rows.append(_compatibility_row(label, original, each.accuracy["test"], each.seeds, found))
    if not rows:
        return "% No accuracy was printed of the study's variants.\n"
    formats = _numeric("2.1", "2.0", "2.2", "1.2"), _numeric("2.1", "2.1", "1.3")
    return _latex(pd.DataFrame(rows), f"{_WRAPPED} {formats[0]} c {formats[1]} l", wide=True)


def _compatibility_row(
    label: str, original: float, ours: Interval, seeds: int, found: Compatibility | None
) -> dict[str, str]:
    row = {"Network": label, "{Original}": _cell(original, 1), "{Runs}": str(seeds), "{Mean}": _cell(ours.mean, 2)}
    if found is None:
        missing = ("{SD}", "{One new run}", r"{$\pm$}", "{Detectable}", "{p-value}")
        return row | dict.fromkeys(missing, "{--}") | {"Compatible?": "unknown"}
    low, high = (f"{100 * limit:.1f}" for limit in (found.prediction.low, found.prediction.high))
    return row | {
        "{SD}": _cell(found.std, 2),
        "{One new run}": rf"{{{low} to {high}}}",
        r"{$\pm$}": _cell(found.prediction.half, 1),
        "{Detectable}": _cell(found.detectable, 1),
        "{p-value}": f"{found.p:.3f}",
        "Compatible?": "compatible" if found.compatible else "incompatible",
    }


def splits_table(stage: dict[str, Any], facts: dict[str, Facts]) -> str:
    """Losses (nats) and accuracies (per cent) of the whole splits at the last step, their gap, and the ECE."""
    rows = []
    for variant in stage["variants"]:
        each = facts[variant["name"]]
        row = {"Variant": escape(variant["label"])}
        for split, head in (("train", "Training"), ("test", "Test")):
            loss = each.loss[split].mean
            row[f"{{{head} loss}}"] = "{--}" if math.isnan(loss) else f"{loss:.3f}"
        row["{Training}"] = _cell(each.accuracy["train"].mean, 2)
        row["{Test}"] = _cell(each.accuracy["test"].mean, 2)
        row |= {"{Gap}": _cell(each.gap.mean, 2), r"{$\pm$}": _cell(each.gap.half, 2)}
        row["{ECE}"] = _cell(each.calibration_error.mean, 2)
        rows.append(row)
    formats = _numeric("2.3", "2.3", "3.2", "3.2", "2.2", "2.2", "2.2")
    return growing(_latex(pd.DataFrame(rows), f"{_WRAPPED} {formats}", wide=True))


def differences_table(stage: dict[str, Any], facts: dict[str, Facts]) -> str:
    """Each variant against the one that it is `like`: the settings that differ, and the accuracies, paired by seed."""
    labels = _labels(stage)
    rows = []
    for name, base in stage["like"].items():
        differences = paired_differences(facts[name], facts[base])
        difference = t_interval(differences)
        changed = changes(facts[name].settings, facts[base].settings)
        rows.append(
            {
                "Variant": labels[name],
                "Compared with": labels[base],
                "What is different": ", ".join(changed) or "nothing"
                if len(changed) <= _MOST_CHANGES
                else rf"{len(changed)} settings (\cref{{tab:settings}})",
                "{Pairs}": str(len(differences)),
                "{Difference}": _cell(difference.mean, 2),
                r"{$\pm$}": _cell(difference.half, 2),
            }
        )
    if not rows:
        return "% No variant is like another.\n"
    return growing(_latex(pd.DataFrame(rows), f"{_wrapped(0.9, 0.8, 1.3)} {_numeric('2.0', '+2.2', '2.2')}", wide=True))


def classes_table(stage: dict[str, Any], facts: dict[str, Facts], class_names: list[str]) -> str:
    """The accuracy within each class, in per cent, of the main models: means over the seeds.

    Of more than 20 classes, those are shown that the last model has the lowest accuracy in.
    """
    labels = _labels(stage)
    models = main_models(stage["main"], {name: each.runs for name, each in facts.items()})
    if not models:
        return "% Every run diverged.\n"
    means = {name: facts[name].class_accuracy for name in models}
    shown = np.sort(np.argsort(means[models[-1]], kind="stable")[:_MOST_CLASSES])
    heads = {name: rf"{{\parbox[b]{{17mm}}{{\raggedleft {labels[name]}}}}}" for name in models}
    columns = {heads[name]: [_cell(means[name][c], 1) for c in shown] for name in models}
    table = pd.DataFrame({"Class": [escape(class_names[c]) for c in shown]} | columns)
    return _latex(table, f"@{{}}{_WRAPPED} {_numeric(*['3.1'] * len(models))}@{{}}", wide=True)


def best_table(stage: dict[str, Any], facts: dict[str, Facts]) -> str:
    """The original, what its settings reach here, and the variants that go beyond it."""
    variants = {variant["name"]: variant for variant in stage["variants"]}
    rows, last = [], None
    for reproduced, best in best_pairs(stage, facts):
        beyond = facts[best].accuracy["test"]
        if known := reproduced in facts and reproduced != last:
            original = variants[reproduced]["original_test_accuracy"]
            ours = facts[reproduced].accuracy["test"]
        rows.append(
            {
                "Network": escape(variants[reproduced]["label"]) if known else "",
                "{Original}": _cell(math.nan if original is None else original, 1) if known else "",
                "{Here}": _cell(ours.mean, 2) if known else "",
                r"{$\pm$}": _cell(ours.half, 2) if known else "",
                "Beyond it": escape(variants[best]["label"]),
                "{Images seen}": str(facts[best].images_seen),
                "{Best}": _cell(beyond.mean, 2),
                r"{$\pm$ }": _cell(beyond.half, 2),
            }
        )
        last = reproduced
    if not rows:
        return "% The study runs no variant that report.best names.\n"
    numeric = _numeric("2.1", "2.2", "2.2")
    columns = f"{_WRAPPED} {numeric} {_WRAPPED} {_numeric('8.0', '2.2', '2.2')}"
    table = pd.DataFrame(rows)
    if (table["{Original}"].isin(["", "{--}"])).all():
        table, columns = table.drop(columns="{Original}"), columns.replace(numeric, _numeric("2.2", "2.2"))
    return _latex(table, columns, wide=True)


def flips_table(stage: dict[str, Any], facts: dict[str, Facts]) -> str:
    """Test accuracy without and with test-time flips, in per cent, and the gain, paired by seed."""
    labels = _labels(stage)
    rows = []
    for name, each in facts.items():
        if math.isnan(each.flip_gain.mean):  # is not measured
            continue
        rows.append(
            {
                "Variant": labels[name],
                "{Seeds}": str(each.seeds),
                "{Test}": _cell(each.accuracy["test"].mean, 2),
                "{With flips}": _cell(each.flipped_accuracy.mean, 2),
                "{Gain}": _cell(each.flip_gain.mean, 2),
                r"{$\pm$}": _cell(each.flip_gain.half, 2),
            }
        )
    if not rows:
        return "% No variant is measured with test-time flips.\n"
    return growing(_latex(pd.DataFrame(rows), f"{_WRAPPED} {_numeric('2.0', '2.2', '2.2', '+2.2', '2.2')}", wide=True))


def noise_table(stage: dict[str, Any], facts: dict[str, Facts]) -> str:
    """How the test accuracy varies along a run and between seeds: standard deviations in points, with intervals."""
    labels = _labels(stage)
    rows = []
    for name, each in facts.items():
        if each.noise is None:
            continue
        row = {
            "Variant": labels[name],
            "{Seeds}": str(each.seeds),
            "Steps": f"{each.noise.steps[0]} to {each.noise.steps[-1]}",
            "{Images}": str(each.noise.images),
        }
        for head, deviation in (("Along a run", each.noise.along), ("Between seeds", each.noise.between)):
            limits = " to ".join(_cell(limit, 2) for limit in deviation[1:])
            row[head] = f"{_cell(deviation.mean, 2)} ({limits})"
        rows.append(row)
    if not rows:
        return "% No variant has two seeds and two evaluations in the last third of its steps, at a constant rate.\n"
    columns = f"{_WRAPPED} {_numeric('2.0')} r {_numeric('5.0')} l l"
    return growing(_latex(pd.DataFrame(rows), columns, wide=True))


def agreement_table(stage: dict[str, Any], agreement: pd.DataFrame) -> str:
    """The largest differences of each pair of implementations, and how many pre-activations changed their sign."""
    labels = _labels(stage)
    rows = []
    for (first, second), steps in agreement.groupby(["first", "second"], sort=False):
        rows.append(
            {
                "First": labels[first],
                "Second": labels[second],
                "{Steps}": str(len(steps)),
                "Loss": rf"\num{{{steps['loss_difference'].max():.1e}}}",
                "Gradient": rf"\num{{{steps['gradient_difference'].max():.1e}}}",
                "{Tensors}": str(steps["tensors"].min()),
                "{Skipped}": str(steps["skipped"].max()),
                "{Signs}": str(steps["sign_changes"].sum()),
                "{of}": str(steps["pre_activations"].sum()),
            }
        )
    if not rows:
        return "% No two implementations are compared.\n"
    columns = f"{_WRAPPED} {_WRAPPED} {_numeric('2.0')} l l {_numeric('2.0', '2.0', '4.0', '8.0')}"
    return _latex(pd.DataFrame(rows), columns, wide=True)


def settings_table(stage: dict[str, Any], runs: dict[str, list[Run]], elsewhere: Collection[str] = ()) -> str:
    """What each variant was trained with; what few variants have stands below their names.

    Args:
        elsewhere: settings that the text tells, as all variants share them.
    """
    rows = []
    for variant in stage["variants"]:
        s = runs[variant["name"]][0].record["settings"]
        besides = ", ".join(text for name, text in phrases(s).items() if text and name not in (*_COLUMNS, *elsewhere))
        rows.append(
            {
                "Variant": escape(variant["label"]) + (rf"\newline with {besides}" if besides else ""),
                "Hidden units": hidden_units(s),
                "Optimiser": OPTIMISERS[s["optimiser"]],
                "{Rate}": f"{s['learning_rate']:g}",
                "{Steps}": str(s["steps"]),
                "{Batch}": str(s["batch_size"]),
                "Initial weights": "PyTorch's"
                if s["initial_std"] is None
                else rf"$\varsigma = \num{{{s['initial_std']:g}}}$",
                "Seeds": ranges(run.seed for run in runs[variant["name"]]),
            }
        )
    return growing(_latex(pd.DataFrame(rows), f"{_WRAPPED} l l {_numeric('1.5', '5.0', '3.0')} l l", wide=True))


def layers_table(runs: dict[str, list[Run]], shape: tuple[int, ...], classes: int) -> str:
    """The study's convolutional network, row by row, and in the last row what all of them have together."""
    if (vgg := first_vgg(runs)) is None:
        return "% The study runs no convolutional network.\n"
    found = layers(Settings.from_mapping(runs[vgg][0].record["settings"]), shape, classes)
    rows = [(each.words, r"$\times$".join(map(str, each.shape)), each.parameters, each.flops) for each in found]
    total = ("in all", "", sum(each.parameters for each in found), sum(each.flops for each in found))
    heads = ("Layer", "Output", "{Parameters}", "{Operations}")
    table = pd.DataFrame([*rows, total], columns=heads)
    table.iloc[-1, 0] = r"\midrule in all"
    return _latex(table, f"l l {_numeric('8.0', '9.0')}")


def search_table(search: pd.DataFrame | None, elsewhere: Collection[str] = (), best: int = 16) -> str:
    """The best configurations of each search, the selected one in bold: the last rung's first, by mean accuracy.

    Beside the mean stands the standard deviation over the seeds, where there are several.

    Args:
        search: search.csv; elsewhere: searches that have a table of their own.
    """
    if search is None or set(search["search"]) <= set(elsewhere):
        return "% The study has no search.\n"
    search = search[~search["search"].isin(elsewhere)]
    tables = []
    for name, trials in search.groupby("search", sort=True):
        order = ["rung", "validation_accuracy", "validation_loss"]
        top = searches.configurations(trials).sort_values(order, ascending=[False, False, True]).head(best)
        several, replicated = trials["rung"].max() > 1, trials["seed"].nunique() > 1
        settings = searches.settings(trials)
        rows = []
        for _, row in top.iterrows():
            bold = r"\bfseries " if row["selected"] else ""
            shown = {escape(name.replace("_", " ").capitalize()): bold + setting_text(row[name]) for name in settings}
            shown |= {"Steps": bold + str(row["step"])} if several else {}
            shown |= {"{Validation}": bold + f"{100 * row['validation_accuracy']:.1f}"}
            rows.append(shown | ({"{SD}": bold + f"{100 * row['spread']:.1f}"} if replicated else {}))
        columns = "l " * (len(settings) + several) + "S[table-format=2.1, detect-weight] " * (1 + replicated)
        tables.append(f"\\code{{{name}}}\\par\\smallskip\n{_latex(pd.DataFrame(rows), columns)}")
    return "\\par\\bigskip\n".join(tables)


def ablations_table(ablations: dict[str, dict[str, Any]], search: pd.DataFrame | None) -> str:
    """What each ingredient of a recipe is worth, in points of validation accuracy; where trained shorter, that is said.

    Args:
        ablations: {search: {"label", "steps", "steps_of_variant", "configurations": names}}, the whole recipe first.
        search: search.csv.
    """
    tables = []
    for name, entry in ablations.items():
        trials = _of_search(search, name)
        rows = []
        for each in worths(trials, entry["configurations"]):
            low, high = each.worth.low, each.worth.high
            whole = each.name == entry["configurations"][0]
            rows.append(
                {
                    "Taken out": "nothing" if whole else escape(each.name.replace("-", " ")),
                    "{Validation}": f"{{diverged: {each.diverged}}}" if each.diverged else _cell(each.accuracy, 2),
                    "{Worth}": "{--}" if whole else _cell(each.worth.mean, 2),
                    "{Limits}": "{--}" if math.isnan(low) else f"{{{num(100 * low, 2)} to {num(100 * high, 2)}}}",
                }
            )
        columns = f"l {_numeric('2.2', '-2.2')} c"
        head = f"{escape(entry['label'])}, seeds: {num(trials['seed'].nunique())}{_shorter(entry)}"
        tables.append(f"{head}\\par\\smallskip\n{_latex(pd.DataFrame(rows), columns)}")
    return "\\par\\bigskip\n".join(tables) or "% The study has no ablation.\n"


def recipes_table(recipes: dict[str, dict[str, Any]], search: pd.DataFrame | None) -> str:
    """The log of recipes: in what each differs from the first, with which seeds it was tried, and what it reached.

    Args:
        recipes: as of `ablations_table`; search: search.csv.
    """
    tables = []
    for name, entry in recipes.items():
        trials = _of_search(search, name)
        names, each = searches.settings(trials), searches.configurations(trials)
        seeds = ", ".join(map(num, sorted(trials["seed"].unique())))
        rows = []
        for tried, (_, row) in zip(entry["configurations"], each.iterrows(), strict=True):
            changed = [s for s in names if row[s] != each.iloc[0][s]]
            rows.append(
                {
                    "Recipe": escape(tried.replace("-", " ")),
                    "Differs from the first": ", ".join(setting_change(s, row[s]) for s in changed),
                    "{Validation}": _cell(row["validation_accuracy"], 2),
                    "{Diverged}": str(row["diverged"]),
                }
            )
        head = f"{escape(entry['label'])}, seeds: {seeds}{_shorter(entry)}"
        columns = f"l {_WRAPPED} {_numeric('2.2', '1.0')}"
        tables.append(f"{head}\\par\\smallskip\n{_latex(pd.DataFrame(rows), columns, wide=True)}")
    return "\\par\\bigskip\n".join(tables) or "% The study has no log of recipes.\n"


def _of_search(search: pd.DataFrame | None, name: str) -> pd.DataFrame:
    """The trials of a search; a study that tells of one has searches."""
    assert search is not None
    return search[search["search"] == name].reset_index(drop=True)


def _shorter(entry: dict[str, Any]) -> str:
    """That trials train for another number of steps than their variant."""
    if entry["steps"] == entry["steps_of_variant"]:
        return ""
    return f"; shortened, {num(entry['steps'])} steps instead of {num(entry['steps_of_variant'])}"


def search_figure_list(figures: list[dict[str, Any]]) -> str:
    r"""A `\resultfigure` for each figure of a search."""
    names = [figure["name"] for figure in figures if figure["name"].startswith(OF_SEARCHES)]
    return "".join(f"\\resultfigure{{{name}}}\n" for name in names)


def figure_list(figures: list[dict[str, Any]], of_original: Collection[str] = ()) -> str:
    r"""Each figure that the text does not place itself, so that a new one appears unasked; curves two by two.

    Args:
        of_original: variants whose curves stand in the figure `originals`.
    """
    names = [f["name"] for f in figures if f["name"] not in PLACED and not f["name"].startswith(OF_SEARCHES)]
    curves = [name for name in names if name.startswith("curves-")]
    grid = [name for name in curves if name.removeprefix("curves-") not in of_original]
    rows = ["\\hfill\n".join(f"\\curve{{{name}}}" for name in grid[i : i + 2]) for i in range(0, len(grid), 2)]
    others = [f"\\resultfigure{{{name}}}\n" for name in names if name not in curves]
    return "\\par\\bigskip\n".join(f"{row}\n" for row in rows) + "".join(others)


def provenance_table(stage: dict[str, Any], runs: dict[str, list[Run]]) -> str:
    """On what the variants were trained, those alike in a row, and what training them again gives."""
    labels = _labels(stage)
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, members in runs.items():
        origins = zip(*sorted({origin(run) for run in members}), strict=True)
        alike.setdefault(tuple("; ".join(dict.fromkeys(texts)) for texts in origins), []).append(labels[name])
    heads = ("Device", "Threads and versions", "Again", "Variants")
    rows = [(*map(escape, origins), "; ".join(names)) for origins, names in alike.items()]
    return _latex(pd.DataFrame(rows, columns=heads), f"{_wrapped(0.9, 0.9)} l {_wrapped(1.2)}", wide=True)


def _labels(stage: dict[str, Any]) -> dict[str, str]:
    """The label of each variant, as LaTeX."""
    return {variant["name"]: escape(variant["label"]) for variant in stage["variants"]}


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
    """A table as LaTeX, of the text's width where it is wide."""
    text = table.to_latex(index=False, column_format=columns, escape=False)
    if wide:  # pandas knows no tabularx
        text = text.replace(r"\begin{tabular}", r"\begin{tabularx}{\textwidth}").replace(
            r"\end{tabular}", r"\end{tabularx}"
        )
    return text
