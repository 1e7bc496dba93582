"""The command line: one subcommand for each rule of the workflow."""

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cifar_report.base.errors import InputError
from cifar_report.base.files import read_json
from cifar_report.base.processes import die_with_parent

if TYPE_CHECKING:
    from cifar_report.study.config import Settings

PATHS = {
    "stage": "the stage's file in plan/",
    "runs": "folder of <variant>/seed-<n>/",
    "search": "folder of the trials",
    "dataset": "folder that `prepare` made",
    "results": "folder of the study",
    "store": "folder of all runs, finished and not",
    "reference": "folder of the reference study",
    "resources": "folder of downloads",
    "summary": "summary.csv to write",
    "costs": "costs.csv to write",
    "claims": "claims.yaml",
    "schema": "schema of claims.yaml",
    "templates": "folder of the captions' templates",
    "checks": "what the equations' tests reported",
    "output": "file or folder to write",
}


def main(arguments: list[str] | None = None) -> int:
    """Runs one subcommand; returns the exit code, 1 with a message where the input is wrong."""
    parser = _parser()
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


def prepare(stage: Path, output: Path, resources: Path) -> None:
    """Makes the dataset's arrays."""
    from cifar_report.data import datasets

    settings = read_json(stage)["settings"]
    datasets.prepare(**settings, folder=output, resources=resources)


def train(
    run_plan: Path,
    dataset: Path,
    seed: int,  # of a variant; a trial's stands in its plan
    store: Path,
    output: Path,
    selected: Path | None,
    trial: bool,
    stage: Path | None,
    seeds_per_job: int,
) -> None:
    """Trains one seed of a variant, or one trial of a search, unless the store holds that run already.

    While start-up outweighs training, other seeds or trials of the stage that no job has begun are trained on the way.
    """
    die_with_parent()
    document = read_json(run_plan)
    _begin(document["settings"]["kind"], document["code"])
    import yaml

    from cifar_report.data import datasets
    from cifar_report.runs.store import Request, Store, publish
    from cifar_report.study import plan

    chosen = yaml.safe_load(selected.read_text())["settings"] if selected else None
    settings = plan.settings_of(document, chosen)
    name = document["variant"]
    others = []
    if stage and seeds_per_job > 1:
        listed = read_json(stage)["settings"]
        if trial:
            plans = [read_json(run_plan.with_name(f"{other}.json")) for other in listed["trials"]]
            others = [(p["variant"], plan.settings_of(p), p["seed"]) for p in plans if p["code"] == document["code"]]
        else:
            seeds = next(variant["seeds"] for variant in listed["variants"] if variant["name"] == name)
            others = [(name, settings, other) for other in seeds]
    data = datasets.load(dataset)

    def request(label: str, settings: "Settings", seed: int) -> Request:
        return Request(settings, seed, data, document["code"], f"{label} seed {seed}", test=not trial)

    wanted = request(name, settings, document["seed"] if trial else seed)
    finished = Store(store).share(wanted, [request(*other) for other in others], seeds_per_job)
    publish(finished, output, wanted, name)


def _begin(kind: str, code: str) -> None:
    """At the start of a job that trains, before it imports what computes: is the code that of the plan?"""
    from cifar_report.study.identity import check_code

    check_code(kind, code)


def search_halving(stage: Path, dataset: Path, store: Path, output: Path) -> None:
    """Searches by successive halving: draws, trains and promotes all its trials."""
    die_with_parent()
    document = read_json(stage)
    _begin(document["settings"]["kind"], document["code"])
    from cifar_report.runs import halving

    halving.write(document, dataset, store, output)


def select(stage: Path, search: Path, output: Path) -> None:
    """Chooses the trial of a search with the best validation accuracy."""
    from cifar_report.analysis import summary

    summary.select(read_json(stage)["settings"], search, output)


def tabulate_search(stage: Path, search: Path, output: Path) -> None:
    """Writes a row for each trial of all searches."""
    from cifar_report.analysis import summary

    summary.write_search(read_json(stage)["settings"], search, output)


def summarise(stage: Path, runs: Path, summary: Path, costs: Path) -> None:
    """Writes a row for each variant: accuracies with intervals, and what it cost."""
    from cifar_report.analysis.summary import write_summary

    write_summary(read_json(stage)["settings"], runs, summary, costs)


def shifts(stage: Path, runs: Path, dataset: Path, output: Path) -> None:
    """Measures test accuracy on shifted images."""
    die_with_parent()
    from cifar_report.analysis import shifts

    shifts.write(read_json(stage)["settings"], runs, dataset, output)


def flips(stage: Path, runs: Path, dataset: Path, output: Path) -> None:
    """Measures test accuracy with test-time flips."""
    die_with_parent()
    from cifar_report.analysis import flips

    flips.write(read_json(stage)["settings"], runs, dataset, output)


def events(stage: Path, runs: Path, output: Path) -> None:
    """Writes TensorBoard event files of all runs."""
    from cifar_report.rendering import events

    events.write(read_json(stage)["settings"], runs, output)


def claims(stage: Path, results: Path, claims: Path, schema: Path) -> None:
    """Tests the claims and writes their verdicts, as JSON and LaTeX."""
    from cifar_report.rendering import claims as tests

    tests.write(read_json(stage)["settings"], results, claims, schema)


def figures(stage: Path, results: Path) -> None:
    """Draws the figures."""
    from cifar_report.rendering import figures

    settings = read_json(stage)["settings"]
    search = results / "search.csv" if settings["searches"] else None
    figures.write(settings, results / "runs", results / "dataset", search, results / "figures")


def equations(checks: Path, output: Path) -> None:
    """Writes the table of checked equations."""
    from cifar_report.rendering import equations

    equations.write(checks, output)


def tables(stage: Path, results: Path) -> None:
    """Writes the tables and the numbers of the LaTeX report."""
    from cifar_report.rendering import tables

    tables.write(read_json(stage)["settings"], results)


def pages(stage: Path, results: Path, templates: Path, output: Path) -> None:
    """Writes the tables of the HTML report as pages, and its captions."""
    from cifar_report.rendering import pages

    pages.write(read_json(stage)["settings"], results, templates, output)


def explain(results: Path, what: str) -> None:
    """Tells where a number, table, figure or file comes from: rules, runs, settings, code, commit, data."""
    from cifar_report.inspection.explain import explain

    print(explain(what, results))


def why(results: Path, what: str) -> None:
    """Tells in a sentence why a file would be made again, or would not."""
    from cifar_report.inspection.why import why

    print(why(what, results))


def verify_results(results: Path, store: Path) -> None:
    """Recomputes every digest of a study's results, offline; exit code 1 where one differs."""
    from cifar_report.inspection.audit import audit

    checks = audit(results, store)
    wrong = [f"{check.what}: {check.problem}" for check in checks if check.problem]
    print("\n".join([*wrong, f"{len(checks) - len(wrong)} of {len(checks)} checks hold"]))
    if wrong:
        raise InputError(f"{results}: differs in {len(wrong)} places from what was made, listed above")


def forget(results: Path, store: Path, variant: str) -> None:
    """Removes a variant's runs from a study and the store, and the study's summary, so that they are trained anew."""
    found = sorted((results / "runs" / variant).glob("seed-*/run.json"))
    if not found:
        raise InputError(
            f"{results / 'runs' / variant}: expected runs to forget, found none; name a variant that has run"
        )
    for path in found:
        shutil.rmtree(store / read_json(path)["identity"], ignore_errors=True)
        shutil.rmtree(path.parent)
    # Snakemake makes a missing file again if something that it is asked for is missing as well.
    for name in ("summary.csv", "costs.csv"):
        (results / name).unlink(missing_ok=True)
    print(f"{variant}: forgot {len(found)} run(s)")


def export_runs(results: Path, store: Path, output: Path) -> None:
    """Writes all finished runs of a study to a file, for another machine."""
    from cifar_report.runs import exchange

    written, missing = exchange.export(results, store, output)
    print(f"{output}: {written} run(s)" + (f"; {missing} of the study are not finished" if missing else ""))


def import_runs(source: Path, store: Path, results: Path | None) -> None:
    """Takes finished runs that another machine exported into the store; exit code 1 where one was refused."""
    from cifar_report.runs import exchange

    counts, refused = exchange.import_runs(source, store, results)
    print("\n".join(f"{count} run(s) {what}" for what, count in sorted(counts.items())))
    if refused:
        raise InputError("\n".join(["these runs were refused:", *refused]))


def forecast(results: Path, store: Path | None, reference: Path, cores: int, seeds_per_job: int) -> None:
    """Tells how long a study will take, from earlier runs: core minutes by variant, and the time on so many cores."""
    from cifar_report.inspection import forecast

    for option, value in (("--cores", cores), ("--seeds-per-job", seeds_per_job)):
        if value < 1:
            raise InputError(f"{option}: expected 1 or more, found {value}")
    store = store or results.parent / ".store"
    known = forecast.benchmarks(forecast.earlier_runs(store, reference))
    print(forecast.report(forecast.tasks(results, store, known, seeds_per_job, cores), cores))


def verify(results: Path, reference: Path) -> None:
    """Compares a finished study with its reference, variant by variant; exit code 1 where one differs."""
    from cifar_report.inspection.verify import verify

    lines, holds = verify(results, reference)
    print("\n".join(lines))
    if not holds:
        raise InputError(f"{results}: differs from {reference} in the variants marked FAIL")


def compare(a: str, b: str, output: Path | None) -> None:
    """Tells what changed between two studies or two commits: numbers, claims, curves, and what explains it."""
    from cifar_report.inspection import compare

    if output:
        compare.check_output(output)
    comparison = compare.compare(compare.read(a), compare.read(b))
    compare.show(comparison)
    if output:
        compare.write(comparison, output)
        print(f"\n{output}: written")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cifar-report", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    sub = _command(commands, train)
    sub.add_argument("--plan", type=Path, required=True, dest="run_plan", help="plan/<variant>.json")
    sub.add_argument("--dataset", type=Path, required=True, help=PATHS["dataset"])
    sub.add_argument("--seed", type=int, help="of a variant; a trial's stands in its plan")
    sub.add_argument("--store", type=Path, required=True, help=PATHS["store"])
    sub.add_argument("--output", type=Path, required=True, help="folder for this run's files")
    sub.add_argument("--selected", type=Path, nargs="?", help="selected.yaml of the search that the variant names")
    sub.add_argument("--trial", action="store_true", help="a trial of a search: opens no test array")
    sub.add_argument("--stage", type=Path, help="the stage's file in plan/ that lists the other seeds or trials")
    sub.add_argument("--seeds-per-job", type=int, default=1, help="how many seeds or trials may share this process")

    paths = {
        prepare: ("stage", "output", "resources"),
        search_halving: ("stage", "dataset", "store", "output"),
        select: ("stage", "search", "output"),
        tabulate_search: ("stage", "search", "output"),
        summarise: ("stage", "runs", "summary", "costs"),
        shifts: ("stage", "runs", "dataset", "output"),
        flips: ("stage", "runs", "dataset", "output"),
        events: ("stage", "runs", "output"),
        claims: ("stage", "results", "claims", "schema"),
        figures: ("stage", "results"),
        equations: ("checks", "output"),
        tables: ("stage", "results"),
        pages: ("stage", "results", "templates", "output"),
        forecast: ("results",),
        verify: ("results", "reference"),
        explain: ("results",),
        why: ("results",),
        verify_results: ("results", "store"),
        forget: ("results", "store"),
        export_runs: ("results", "store", "output"),
        import_runs: ("store",),
    }
    for function, names in paths.items():
        sub = _command(commands, function)
        for name in names:
            sub.add_argument(f"--{name}", type=Path, required=True, help=PATHS[name])
    commands.choices["explain"].add_argument("what", help="a result's key, a table or figure by its name, or a file")
    commands.choices["why"].add_argument("what", help="a file, table or figure, named as for explain")
    commands.choices["forget"].add_argument("variant")
    sub = commands.choices["forecast"]
    sub.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="all of this machine by default")
    sub.add_argument("--seeds-per-job", type=int, default=10, help="as of train; 10, as in profiles/default")
    sub.add_argument("--store", type=Path, help=PATHS["store"] + "; .store beside the study by default")
    sub.add_argument(
        "--reference", type=Path, default=Path("reference"), help="folder of further studies that have run"
    )
    commands.choices["import-runs"].add_argument("source", type=Path, help="what export-runs wrote")
    commands.choices["import-runs"].add_argument(
        "--results", type=Path, help="folder of the study that they are for: its data and settings must be theirs"
    )
    sub = _command(commands, compare)
    for name in ("a", "b"):
        sub.add_argument(name, help="folder of a study, or <git revision>:<folder>")
    sub.add_argument("--output", type=Path, help="page to write besides, .html or .pdf")
    return parser


def _command(commands: "argparse._SubParsersAction", function) -> argparse.ArgumentParser:
    text = function.__doc__
    sub = commands.add_parser(function.__name__.replace("_", "-"), help=text, description=text)
    sub.set_defaults(command=function)
    return sub


if __name__ == "__main__":
    sys.exit(main())
