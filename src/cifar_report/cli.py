"""The command line: a subcommand for each rule of the workflow, of the rule's name, and one for each question."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_report.base.errors import InputError
from cifar_report.base.files import read_json
from cifar_report.base.processes import die_with_parent

if TYPE_CHECKING:
    from cifar_report.study.settings import Settings

PATHS = {
    "stage": "the stage's file in plan/",
    "runs": "folder of <variant>/seed-<n>/",
    "search": "folder of the trials",
    "dataset": "folder that prepare-dataset made",
    "results": "folder of the study",
    "store": "folder of all runs, finished and not",
    "reference": "folder of the reference study",
    "resources": "folder of downloads",
    "summary": "summary.csv to write",
    "costs": "costs.csv to write",
    "templates": "folder of the captions' templates",
    "checks": "what the equations' tests report, to write",
    "kept": "folder of such reports of earlier studies",
    "output": "file or folder to write",
}
# Subcommands of earlier versions, and what does the same now.
GONE = {
    "why": "explain",
    "verify-results": "verify",
    "prepare": "prepare-dataset",
    "train": "train-variant (or train-trial, of a search)",
    "select": "select-trial",
    "summarise": "summarise-runs",
    "shifts": "measure-shifts",
    "flips": "measure-flips",
    "events": "write-events",
    "claims": "test-claims",
    "figures": "draw-figures",
    "equations": "check-equations",
    "tables": "write-tables",
    "pages": "write-pages",
}


def main(arguments: list[str] | None = None) -> int:
    """Runs one subcommand; returns the exit code, 1 with a message where the input is wrong, 2 where it has gone."""
    words = sys.argv[1:] if arguments is None else arguments
    if words and words[0] in GONE:
        print(
            f"cifar-report: {words[0]} has gone; use cifar-report {' '.join([GONE[words[0]], *words[1:]])}",
            file=sys.stderr,
        )
        return 2
    parser, commands = _parser()
    if words and not words[0].startswith("-") and words[0] not in commands:
        from cifar_report.base.validation import did_you_mean

        hint = did_you_mean(words[0], commands, "there are")
        print(f"cifar-report: there is no command '{words[0]}'; {hint}", file=sys.stderr)
        return 2
    options = vars(parser.parse_args(arguments))
    command = options.pop("command")
    try:
        command(**options)
        sys.stdout.flush()
    except InputError as error:
        print(f"cifar-report: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `head` and the like have read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # A full disk, no permission, a vanished mount: the system's own words, and the file.
        print(f"cifar-report: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cifar-report: stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def prepare_dataset(stage: Path, output: Path, resources: Path) -> None:
    """Makes the dataset's arrays, and checks them against what the study asks of them."""
    from cifar_report.data import datasets
    from cifar_report.study import plan

    settings = plan.stage(stage)
    datasets.prepare(**settings, folder=output, resources=resources)
    # No input of the rule: where it has changed and the data have not, Snakemake's next call has checked it.
    plan.check_needs(plan.stage(stage.with_name("needs.json")), output)


def train_variant(
    run_plan: Path,
    dataset: Path,
    seed: int,
    store: Path,
    output: Path,
    selected: Path | None,
    stage: Path | None,
    seeds_per_job: int,
) -> None:
    """Trains one seed of a variant, unless the store holds that run already.

    While start-up outweighs training, other seeds that no job has begun are trained on the way.
    """
    document = _begin(run_plan)
    from cifar_report.study import plan

    chosen = plan.selected_settings(selected) if selected else None
    settings, name = plan.settings_of(document, chosen), document["variant"]
    seeds: list[int] = []
    if stage and seeds_per_job > 1:
        seeds = next(v["seeds"] for v in plan.stage(stage)["variants"] if v["name"] == name)
    runs = [(settings, number, f"{name} seed {number}") for number in (seed, *seeds)]
    _train(runs, document["code"], dataset, store, output, name, seeds_per_job, test=True)


def train_trial(
    run_plan: Path, dataset: Path, store: Path, output: Path, stage: Path | None, seeds_per_job: int
) -> None:
    """Trains one trial of a search, which opens no test array, unless the store holds that run already.

    While start-up outweighs training, other trials that no job has begun are trained on the way.
    """
    document = _begin(run_plan)
    from cifar_report.study import plan

    plans = [document]
    if stage and seeds_per_job > 1:
        listed = [read_json(run_plan.with_name(f"{trial}.json")) for trial in plan.stage(stage)["trials"]]
        plans += [other for other in listed if other["code"] == document["code"]]
    runs = [(plan.settings_of(p), p["seed"], f"{p['variant']} seed {p['seed']}") for p in plans]
    _train(runs, document["code"], dataset, store, output, document["variant"], seeds_per_job, test=False)


def _train(
    runs: "list[tuple[Settings, int, str]]",
    code: str,
    dataset: Path,
    store: Path,
    output: Path,
    name: str,
    at_most: int,
    test: bool,
) -> None:
    """Trains the first of some runs, and others on the way; publishes the first under a study's name for it."""
    from cifar_report.data import datasets
    from cifar_report.runs.store import Request, Store, publish

    data = datasets.load(dataset)
    wanted, *others = (Request(settings, seed, data, code, label, test) for settings, seed, label in runs)
    publish(Store(store).share(wanted, others, at_most), output, wanted, name)


def _planned(stage: Path) -> Any:
    """What the plan says of a stage."""
    from cifar_report.study import plan

    return plan.stage(stage)


def _begin(document_of_job: Path) -> dict[str, Any]:
    """The plan of a job that trains; before it imports what computes: is the code that of the plan?"""
    die_with_parent()
    from cifar_report.study.identity import check_code

    document = read_json(document_of_job)
    check_code(document["settings"]["kind"], document["code"])
    return document


def search_halving(stage: Path, dataset: Path, store: Path, output: Path) -> None:
    """Searches by successive halving: draws, trains and promotes all its trials."""
    document = _begin(stage)
    from cifar_report.runs import halving

    halving.write(document, dataset, store, output)


def select_trial(stage: Path, search: Path, output: Path) -> None:
    """Chooses the trial of a search with the best validation accuracy."""
    from cifar_report.analysis import selection

    selection.select(_planned(stage), search, output)


def tabulate_search(stage: Path, search: Path, output: Path) -> None:
    """Writes a row for each trial of all searches."""
    from cifar_report.analysis import searches

    searches.write(_planned(stage), search, output)


def summarise_runs(stage: Path, runs: Path, summary: Path, costs: Path) -> None:
    """Writes a row for each variant: accuracies with intervals, and what it cost."""
    from cifar_report.analysis.summary import write_summary

    write_summary(_planned(stage), runs, summary, costs)


def measure_shifts(stage: Path, runs: Path, dataset: Path, output: Path) -> None:
    """Measures test accuracy on shifted images."""
    die_with_parent()
    from cifar_report.analysis.perturbed import measure_shifts

    measure_shifts(_planned(stage), runs, dataset, output)


def measure_flips(stage: Path, runs: Path, dataset: Path, output: Path) -> None:
    """Measures test accuracy with test-time flips."""
    die_with_parent()
    from cifar_report.analysis.perturbed import measure_flips

    measure_flips(_planned(stage), runs, dataset, output)


def measure_batch_statistics(stage: Path, runs: Path, dataset: Path, output: Path) -> None:
    """Measures test accuracy where batch norm takes the statistics of each batch of test images."""
    die_with_parent()
    from cifar_report.analysis.perturbed import measure_batch_statistics

    measure_batch_statistics(_planned(stage), runs, dataset, output)


def measure_agreement(stage: Path, dataset: Path, output: Path) -> None:
    """Compares two implementations of one network, step by step in float64."""
    die_with_parent()
    from cifar_report.analysis import agreement

    agreement.write(_planned(stage), dataset, output)


def write_events(stage: Path, runs: Path, output: Path) -> None:
    """Writes TensorBoard event files of all runs."""
    from cifar_report.rendering import events

    events.write(_planned(stage), runs, output)


def test_claims(stage: Path, results: Path, claims: Path | None) -> None:
    """Tests the claims and writes their verdicts, as JSON and LaTeX."""
    from cifar_report.analysis.claims import verdicts
    from cifar_report.rendering import claims as latex

    verdicts.write(_planned(stage), results, claims)
    latex.write(results)


def draw_figures(stage: Path, results: Path) -> None:
    """Draws the figures."""
    from cifar_report.rendering import figures

    settings = _planned(stage)
    search = results / "search.csv" if settings["searches"] else None
    shifts = results / "shifts.csv" if settings["shifted"] else None
    figures.write(settings, results / "runs", results / "dataset", search, results / "figures", shifts)


def check_equations(stage: Path, kept: Path, checks: Path, output: Path) -> None:
    """Checks the equations as the report displays them; writes their marks and the table of the checks."""
    from cifar_report.rendering import equations

    _planned(stage)  # what the plan did not write names nothing that has passed
    equations.run(stage, kept, checks)
    equations.write(checks, Path("report"), output)


def keep_digests(files: list[Path]) -> None:
    """Keeps the digests of files that another program made, so that it is noticed when they are altered."""
    from cifar_report.base.files import keep_digest

    for path in files:
        keep_digest(path)


def check_digests(files: list[Path]) -> None:
    """Compares files with the digests that were kept of them, for a program that reads them and does not."""
    from cifar_report.base.files import unaltered

    for path in files:
        unaltered(path)


def write_tables(stage: Path, results: Path) -> None:
    """Writes the tables and the numbers of the LaTeX report."""
    from cifar_report.rendering import tables

    tables.write(_planned(stage), results)


def write_pages(stage: Path, results: Path, templates: Path, output: Path) -> None:
    """Writes the tables of the HTML report as pages, and its captions."""
    from cifar_report.rendering import pages

    pages.write(_planned(stage), results, templates, output)


def explain(results: Path, what: str) -> None:
    """Tells where a number, table, figure or file comes from, and whether and why it would be made again."""
    from cifar_report.inspection.explain import explain

    print(explain(what, results))


def forget(results: Path, store: Path, variant: str) -> None:
    """Removes a variant's runs from a study and the store, and the study's summary, so that they are trained anew."""
    from cifar_report.runs.forget import forget

    print(f"{variant}: forgot {forget(results, _store_of(results, store), variant)} run(s)")


def export_runs(results: Path, store: Path, output: Path) -> None:
    """Writes all finished runs of a study to a file, for another machine."""
    from cifar_report.runs import exchange

    written, missing = exchange.export(results, _store_of(results, store), output)
    print(f"{output}: {written} run(s)" + (f"; {missing} of the study are not finished" if missing else ""))


def import_runs(source: Path, store: Path, results: Path | None) -> None:
    """Takes finished runs that another machine exported into the store; exit code 1 where one was refused."""
    from cifar_report.runs import exchange

    counts, refused = exchange.import_runs(source, store, results)
    print("\n".join(f"{count} run(s) {what}" for what, count in sorted(counts.items())))
    if refused:
        raise InputError("\n".join(["these runs were refused:", *refused]))


def forecast(results: Path, store: Path | None, reference: Path, cores: int) -> None:
    """Tells how long a study will take, from earlier runs: core minutes by variant, and the time on so many cores."""
    from cifar_report.inspection import forecast

    if cores < 1:
        raise InputError(f"--cores: expected 1 or more, found {cores}")
    store = _store_of(results, store)
    print(forecast.report(forecast.tasks(results, store, forecast.earlier_runs(store, reference)), cores))


def verify(results: Path, reference: Path | None, store: Path | None) -> None:
    """Recomputes every digest of a finished study, or compares it with a reference; exit code 1 where one differs."""
    from cifar_report.inspection.verify import recompute, unknown, verify

    if reference:
        lines, holds = verify(results, reference)
        print("\n".join(lines))
        if not holds:
            raise InputError(f"{results}: differs from {reference} in the variants marked FAIL")
        return
    store = _store_of(results, store)
    checks, stored = recompute(results, store), len(list(store.glob("*/finished")))
    wrong = [f"{check.what}: {check.problem}" for check in checks if check.problem]
    covered = (
        "of all files whose digest is kept or that a rule is known to have made, the plan, "
        f"{stored or 'no'} finished run(s) in {store}, and numbers and tables made once more"
    )
    print("\n".join([*wrong, f"{len(checks) - len(wrong)} of {len(checks)} checks hold: {covered}"]))
    if unchecked := unknown(results):
        print(
            f"not checked, as no digest was kept when it was made (by an earlier version, or by no rule): "
            f"{len(unchecked)} file(s): {', '.join(unchecked[:10])}{', …' if len(unchecked) > 10 else ''}"
        )
    if wrong:
        raise InputError(f"{results}: differs in {len(wrong)} places from what was made, listed above")


def compare(a: str, b: str, output: Path | None) -> None:
    """Tells what changed between two studies or two commits: numbers, claims, curves, and what explains it."""
    from cifar_report.inspection import compare, compare_page

    if output:
        compare_page.check_output(output)
    comparison = compare.compare(compare.read(a), compare.read(b))
    compare_page.show(comparison)
    if output:
        compare_page.write(comparison, output)
        print(f"\n{output}: written")


def _study(given: str) -> Path:
    """A study's folder, by a path that leads to what lies beside it too: not `.`, nor a link that lies elsewhere."""
    paths = Path(given), Path(given).resolve()
    named = (path for path in paths if path.name not in ("", ".."))
    return next((path for path in named if any((path.parent / x).is_dir() for x in (".store", ".records"))), paths[0])


def _store_of(results: Path, named: Path | None) -> Path:
    """The store: the one that is named, which must be there, or the one beside the study."""
    beside = results.parent / ".store"
    if named and not named.is_dir():
        raise InputError(f"--store {named}: expected the folder of all runs, found none; beside the study is {beside}")
    return named or beside


def _parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser, and those of the subcommands by name."""
    parser = argparse.ArgumentParser(prog="cifar-report", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    paths: dict[Callable[..., None], tuple[str, ...]] = {
        prepare_dataset: ("stage", "output", "resources"),
        search_halving: ("stage", "dataset", "store", "output"),
        select_trial: ("stage", "search", "output"),
        tabulate_search: ("stage", "search", "output"),
        summarise_runs: ("stage", "runs", "summary", "costs"),
        measure_shifts: ("stage", "runs", "dataset", "output"),
        measure_flips: ("stage", "runs", "dataset", "output"),
        measure_batch_statistics: ("stage", "runs", "dataset", "output"),
        measure_agreement: ("stage", "dataset", "output"),
        write_events: ("stage", "runs", "output"),
        test_claims: ("stage", "results"),
        draw_figures: ("stage", "results"),
        check_equations: ("stage", "kept", "checks", "output"),
        write_tables: ("stage", "results"),
        write_pages: ("stage", "results", "templates", "output"),
        forecast: ("results",),
        verify: ("results",),
        explain: ("results",),
        forget: ("results", "store"),
        export_runs: ("results", "store", "output"),
        import_runs: ("store",),
    }
    trains: tuple[Callable[..., None], ...] = (train_variant, train_trial)
    for function in sorted(
        (*paths, *trains, compare, keep_digests, check_digests), key=lambda function: function.__name__
    ):
        text, name = function.__doc__, function.__name__.replace("_", "-")
        commands.add_parser(name, help=text, description=text).set_defaults(command=function)

    def sub_of(function: Callable[..., None]) -> argparse.ArgumentParser:
        return commands.choices[function.__name__.replace("_", "-")]

    for function in trains:
        sub = sub_of(function)
        sub.add_argument("--plan", type=Path, required=True, dest="run_plan", help="the run's file in plan/")
        sub.add_argument("--dataset", type=Path, required=True, help=PATHS["dataset"])
        sub.add_argument("--store", type=Path, required=True, help=PATHS["store"])
        sub.add_argument("--output", type=Path, required=True, help="folder for this run's files")
        sub.add_argument("--stage", type=Path, help="the stage's file in plan/ that lists the other seeds or trials")
        sub.add_argument("--seeds-per-job", type=int, default=1, help="how many seeds or trials may share this process")
    sub = commands.choices["train-variant"]
    sub.add_argument("--seed", type=int, required=True)
    sub.add_argument("--selected", type=Path, nargs="?", help="selected.yaml of the search that the variant names")

    for function, names in paths.items():
        sub = sub_of(function)
        for name in names:
            kind = _study if name == "results" else Path
            sub.add_argument(f"--{name}", type=kind, required=True, help=PATHS[name])
    sub = commands.choices["test-claims"]
    sub.add_argument("--claims", type=Path, nargs="?", help="the file of the claims; a study without one has none")
    commands.choices["keep-digests"].add_argument("files", type=Path, nargs="+", help="files of a study")
    commands.choices["check-digests"].add_argument("files", type=Path, nargs="+", help="files of a study")
    commands.choices["explain"].add_argument("what", help="a result's key, a table or figure by its name, or a file")
    sub = commands.choices["verify"]
    sub.add_argument("--reference", type=Path, help=PATHS["reference"] + "; without it, every digest is recomputed")
    sub.add_argument("--store", type=Path, help=PATHS["store"] + "; .store beside the study by default")
    commands.choices["forget"].add_argument("variant")
    sub = commands.choices["forecast"]
    sub.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="all of this machine by default")
    sub.add_argument("--store", type=Path, help=PATHS["store"] + "; .store beside the study by default")
    sub.add_argument(
        "--reference", type=Path, default=Path("reference"), help="folder of further studies that have run"
    )
    commands.choices["import-runs"].add_argument("source", type=Path, help="what export-runs wrote")
    commands.choices["import-runs"].add_argument(
        "--results", type=_study, help="folder of the study that they are for: its data and settings must be theirs"
    )
    sub = commands.choices["compare"]
    for name in ("a", "b"):
        sub.add_argument(name, help="folder of a study, or <git revision>:<folder>")
    sub.add_argument("--output", type=Path, help="page to write besides, .html")
    return parser, dict(commands.choices)


if __name__ == "__main__":
    sys.exit(main())
