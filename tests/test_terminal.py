"""The logger: a line a running job in a terminal, Snakemake's own words elsewhere."""

import io
import logging
import logging.handlers
import os
import queue
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console
from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter
from snakemake.settings.types import OutputSettings
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.tests import TestLogHandlerBase
from test_workflow import ROOT, snakemake

from cifar_report.runs import store
from cifar_report.training.loop import History
from snakemake_logger_plugin_training import LogHandler, display

sys.path.insert(0, str(ROOT / "docs/examples"))
from record_terminal import copy_checkout, record, screens

PLAIN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SETTINGS = SimpleNamespace(steps=1500, batch_size=200)


class TestInterface(TestLogHandlerBase):
    """What Snakemake asks of every logger."""

    __test__ = True

    def get_log_handler_cls(self):
        return LogHandler

    def get_log_handler_settings(self):
        return None


class Terminal(io.StringIO):
    def isatty(self):
        return True


def event(kind=None, message=None, level=logging.INFO, **fields):
    """A message as a logger gets it: through Snakemake's queue."""
    found = logging.LogRecord("snakemake", level, "", 0, message, (), None)
    vars(found).update(fields, **({"event": kind} if kind else {}))
    return logging.handlers.QueueHandler(queue.Queue()).prepare(found)


def job_info(number, rule, log, **wildcards):
    return event(LogEvent.JOB_INFO, jobid=number, rule_name=rule, log=[str(log)], wildcards=wildcards)


@pytest.fixture
def handler(monkeypatch):
    """In a terminal of 124 columns, which the environment of the tests may not hide."""
    for name in ("CIFAR_REPORT_PLAIN", "CIFAR_REPORT_PARENT", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "124")
    monkeypatch.setattr(sys, "stderr", Terminal())
    made = LogHandler(OutputSettings(), None)
    yield made
    made.close()


def bottom(handler):
    """The lines of the running jobs and of the total."""
    console = Console(width=handler.display.console.width, file=io.StringIO())
    console.print(handler.display.lines())
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def above(handler):
    """What was printed for good, without colours."""
    return PLAIN.sub("", handler.plain.stream.getvalue())


def evaluated(capsys, name, step, *scores):
    """The line that a training job prints."""
    rows = [{"step": step, "split": split, "loss": loss, "accuracy": share} for split, loss, share in scores]
    history = History(rows, training_seconds=step / 100, evaluation_seconds=0.0)
    store._progress(SimpleNamespace(name=name, settings=SETTINGS), step, history)
    return capsys.readouterr().out


def test_a_training_job_has_a_line_of_what_its_log_tells_last(handler, tmp_path, capsys):
    log = tmp_path / "job.log"
    handler.emit(event(LogEvent.RUN_INFO, stats={"train_variant": 2, "total": 2}))
    handler.emit(job_info(1, "train_variant", log, variant="mlp-numpy", seed="0"))
    assert bottom(handler)[0].split()[:5] == ["train_variant", "mlp-numpy", "seed", "0", "0:00"]
    lines = evaluated(capsys, "mlp-numpy seed 0", 0, ("train", 2.3, 0.1), ("test", 2.3, 0.1))
    lines += evaluated(capsys, "mlp-numpy seed 0", 500, ("train", 1.5, 0.5), ("test", 1.612, 0.4321))
    log.write_text(lines)
    words = bottom(handler)[0]
    assert "500/1500" in words and "test 43.2 %, loss 1.612" in words and "20000 images/s" in words
    assert words.endswith("10 s left")
    log.write_text(lines + evaluated(capsys, "mlp-numpy seed 3", 100, ("test", 2.0, 0.3)))
    assert "mlp-numpy seed 0 (now seed 3)" in bottom(handler)[0]
    log.write_text(lines + evaluated(capsys, "mlp-numpy seed 0", 1500))
    assert bottom(handler)[0].endswith("last evaluation") and "test 43.2 %, loss 1.612" in bottom(handler)[0]
    handler.emit(event(LogEvent.JOB_FINISHED, job_id=1))
    assert "✓ train_variant mlp-numpy seed 0  test 43.2 %, loss 1.612  0:00" in above(handler)
    assert "1 of 2 jobs" in bottom(handler)[0]


def test_a_log_of_an_earlier_attempt_tells_nothing(handler, tmp_path, capsys):
    log = tmp_path / "job.log"
    log.write_text(evaluated(capsys, "a seed 0", 500, ("test", 1.0, 0.5)))
    os.utime(log, (1, 1))
    job = display.Job("train_variant", {"variant": "a", "seed": "0"}, "", log)
    assert job.last() is None
    os.utime(log)
    assert job.last().step == 500
    assert job.left(time.time() + 4)[1] == pytest.approx(6, abs=1)  # it counts down between evaluations


def test_a_trial_knows_its_own_run():
    job = display.Job("train_trial", {"search": "grid", "trial": "0123456789abcdef"}, "", None)
    assert job.is_own("grid-012345 seed 100") and not job.is_own("grid-6789ab seed 100")
    assert not display.Job("train_variant", {"variant": "a", "seed": "1"}, "", None).is_own("a seed 10")


def test_a_trial_fits_a_terminal_of_100_columns(handler, tmp_path, capsys):
    """A name that is too long is cut; what is told of the trial, and of those beside it, is not."""
    handler.display.console.width = 100
    handler.emit(event(LogEvent.RUN_INFO, stats={"train_trial": 2, "total": 2}))
    for number, search in enumerate(("short", "mlp-numpy-best-without")):
        log = tmp_path / f"{number}.log"
        handler.emit(job_info(number, "train_trial", log, search=search, trial="0123456789abcdef"))
        told = ("train", 1.5, 0.5), ("validation", 1.612, 0.5)
        log.write_text(evaluated(capsys, f"{search}-6789ab seed 100", 500, *told))
    for line, name in zip(
        bottom(handler), ("short 012345 (now 6789ab seed 100)", "mlp-numpy-best-without 012345"), strict=False
    ):
        assert len(line) <= 100 and all(word in line for word in (name, " 500/1500", "validation 50.0 %", "10 s left"))


def test_a_failure_ends_with_its_log_and_warnings_stay(handler, tmp_path):
    log = tmp_path / "job.log"
    handler.emit(event(LogEvent.RUN_INFO, stats={"draw_figures": 1, "total": 1}))
    handler.emit(job_info(7, "draw_figures", log))
    log.write_text("one\ntwo [not markup]\n")
    error = event(LogEvent.ERROR, "RuleException:\nCalledProcessError in file …", logging.ERROR)
    for record_ in (error, event(LogEvent.JOB_ERROR, "", logging.ERROR, jobid=7)):
        handler.emit(record_)
    handler.emit(event(LogEvent.JOB_ERROR, "", logging.ERROR, jobid=7))  # told once
    handler.emit(event(message="a disk is nearly full", level=logging.WARNING))
    handler.emit(event(message="Select jobs to execute..."))
    text = above(handler)
    assert text.count("✗ draw_figures") == 1 and "    two [not markup]" in text
    assert "a disk is nearly full" in text and "Select jobs" not in text and "CalledProcess" not in text
    assert "1 failed" in bottom(handler)[0] and not +handler.display.left
    handler.emit(job_info(7, "draw_figures", log))  # --retries
    assert handler.display.left["draw_figures"] == 1


def test_as_many_jobs_as_fit(handler, tmp_path):
    handler.display.console.height = 10
    for number in range(20):
        handler.emit(job_info(number, "train_variant", tmp_path / f"{number}.log", variant="a", seed=str(number)))
    (tmp_path / "17.log").write_text("begun\n")  # on a cluster others wait
    lines = bottom(handler)
    assert len(lines) == 8 and lines[-2] == "and 14 more" and "seed 17" in lines[0]


@pytest.mark.parametrize(
    "reason", ["pipe", "dry run", "inner", "switched off", "quiet", "dumb"], ids=lambda reason: reason.replace(" ", "-")
)
def test_elsewhere_it_is_what_snakemake_prints(handler, monkeypatch, reason):
    settings = {"dry run": {"dryrun": True}, "quiet": {"quiet": {"rules"}}}.get(reason, {})
    for name, value in {
        "inner": ("CIFAR_REPORT_PARENT", "1"),
        "switched off": ("CIFAR_REPORT_PLAIN", "1"),
        "dumb": ("TERM", "dumb"),
    }.items():
        if name == reason:
            monkeypatch.setenv(*value)
    monkeypatch.setattr(sys, "stderr", io.StringIO() if reason == "pipe" else Terminal())
    told = OutputSettings(**settings)
    made, stream = LogHandler(told, None), Terminal() if reason != "pipe" else io.StringIO()
    assert made.display is None
    own = ColorizingTextHandler(
        stream=stream,
        formatter=DefaultFormatter(told.quiet),
        filter=DefaultFilter(told.quiet, False, False, told.dryrun, False),
    )
    made.plain.stream = Terminal() if reason != "pipe" else io.StringIO()
    fields = {"rule_msg": None, "local": False, "is_checkpoint": False, "input": ["a"], "output": ["b"], "log": []}
    fields |= {"jobid": 1, "benchmark": None, "reason": "Missing output files: b", "wildcards": {"seed": "1"}}
    fields |= {"priority": 0, "threads": 1, "resources": {}, "rule_name": "draw"}
    error = {"conda_env": None, "shellcmd": "false", "aux": {}}
    for kind, message in ((None, "Building DAG of jobs..."), (LogEvent.JOB_INFO, ""), (LogEvent.JOB_ERROR, None)):
        plain = logging.LogRecord("snakemake", logging.INFO, "", 0, message, (), None)
        vars(plain).update(fields | error, **({"event": kind} if kind else {}))
        own.handle(plain)
        made.emit(event(kind, message, **(fields | error)))
    times = re.compile(r"\[\w{3} \w{3} .*?\]")
    assert times.sub("", made.plain.stream.getvalue()) == times.sub("", stream.getvalue()) != ""


# --- Snakemake itself -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A study of one short run, without torch."""
    folder = tmp_path_factory.mktemp("checkout")
    copy_checkout(folder)
    study = {"study": "small", "run": ["mlp-numpy"], "seeds": [0], "search": {}}
    study["variants"] = {"mlp-numpy": {"steps": 60, "evaluate_every": 20}}
    (folder / "overlay.yaml").write_text(yaml.safe_dump(study))
    return folder


RUN = "results/small/runs/mlp-numpy/seed-0/run.json"


def test_a_terminal_shows_the_run_and_is_left_usable(checkout):
    command = f"{sys.executable} -m snakemake --cores 1 --configfile config/demo.yaml overlay.yaml -- {RUN}"
    written, code = record(command.split(), checkout)
    found = [[PLAIN.sub("", line) for line in screen] for screen in screens(written)]
    assert code == 0 and (checkout / RUN).is_file(), written
    last = [line for line in found[-1] if line.strip()]
    assert re.search(r"✓ train_variant mlp-numpy seed 0  test \d+.\d %, loss \d", "\n".join(last))
    assert "2 of 2 jobs" in last[-1]
    assert any("train_variant mlp-numpy seed 0" in line and "✓" not in line for screen in found for line in screen)
    codes = re.findall(r"\x1b\[\?25[lh]", written)
    assert codes[:2] == ["\x1b[?25l", "\x1b[?25h"]  # shown again at once: `kill -9` could not
    assert codes[-1] == "\x1b[?25h" and "\x1b[?1049h" not in written


def test_a_dry_run_tells_reasons_and_a_forecast(checkout):
    (checkout / RUN).unlink(missing_ok=True)
    output = snakemake(checkout, "--dry-run", "--cores", "3", "all")[1]
    assert "reason: " in output and "This was a dry-run" in output
    assert re.search(r"^Forecast: \d+ \w+ .* on 3 cores, .*--results results/small --cores 3$", output, re.MULTILINE)


def test_the_plugin_costs_no_import_at_each_start():
    """Snakemake imports every logger that is installed, whether it is used or not."""
    code = "import snakemake_logger_plugin_training, sys; print('rich' in sys.modules, 'cifar_report' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
