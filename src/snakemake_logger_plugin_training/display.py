"""What a terminal shows while jobs run: above what has happened, below a line a running job and one for all."""

import os
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from logging import ERROR, WARNING
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from snakemake_interface_logger_plugins.common import LogEvent

from cifar_report.base.errors import InputError
from cifar_report.inspection import forecast
from snakemake_logger_plugin_training.outlook import Outlook, to_come

# What cifar_report.runs.store prints at each evaluation.
PROGRESS = re.compile(
    r"^\S+ (?P<run>.+?)  step (?P<step>\d+)/(?P<steps>\d+)  (?P<scores>.*?)  ?(?P<speed>\d+) images/s  "
    r"(?P<left>\S+) s left$",
    re.MULTILINE,
)
TAIL = 4096  # bytes of a log that are read for its last lines
ERROR_LINES = 12  # of the log of a job that failed
WIDE, MIDDLE = 120, 105  # columns of a terminal that shows all of a line, and one that leaves bar and loss out
# Seconds between forecasts; where a job has just ended, what it took is known, and the next one comes sooner. However
# large the study, forecasts take no more than one second in so many.
FORECAST_EVERY, FORECAST_ANEW, FORECAST_SHARE = 30.0, 5.0, 50.0
# Snakemake's talk about itself, which is in its log file too.
NOISE = re.compile(
    r"Assuming unrestricted|Building DAG|Using shell|host:|Select jobs|Conda environments: ignored|Provided |Elapsed |"
    r"Singularity|Group jobs: inactive|Config file |Exiting because a job|(WorkflowError:\n)?At least one job did not|"
    r"RuleException:\nCalledProcessError"  # a shell command failed: its log says why, which is shown
)
SILENT = (
    LogEvent.WORKFLOW_STARTED,
    LogEvent.RESOURCES_INFO,
    LogEvent.JOB_STARTED,
    LogEvent.GROUP_INFO,
    LogEvent.RULEGRAPH,
    LogEvent.PROGRESS,
)


class Line(NamedTuple):
    """What the last evaluation in a log tells."""

    run: str  # as the log names it
    step: int
    steps: int
    scores: str  # of the last split that was told: test or validation where there is one
    speed: str  # images a second
    left: float | None  # seconds


@dataclass
class Job:
    """A running job."""

    rule: str
    wildcards: dict[str, str]
    name: str  # as the forecast has it
    log: Path | None
    begun: float = field(default_factory=time.time)

    @property
    def what(self) -> str:
        """Its wildcards in words."""
        return " ".join(
            f"{key} {value}" if value.isdigit() else value[:6] if key == "trial" else value
            for key, value in self.wildcards.items()
        )

    def is_own(self, run: str) -> bool:
        """Whether a run that its log tells of is its own, and not one that it trains on the way."""
        return run == self.what or self.wildcards.get("trial", "none")[:6] in run

    def tail(self) -> str:
        """The end of its log; empty while the log is that of an earlier attempt."""
        try:
            if self.log is None or self.written() < self.begun - 1:  # file systems round times
                return ""
            with self.log.open("rb") as file:
                file.seek(-min(TAIL, self.log.stat().st_size), os.SEEK_END)
                return file.read().decode(errors="replace")
        except OSError:
            return ""

    def written(self) -> float:
        """When its log was written to, in seconds since 1970."""
        return self.log.stat().st_mtime if self.log else self.begun

    def last(self, own: bool = False) -> Line | None:
        """The last evaluation that its log tells of, on request of its own run."""
        line = None
        for match in PROGRESS.finditer(self.tail()):
            if own and not self.is_own(match["run"]):
                continue
            scores = _scores(match["scores"]) or (line.scores if line and line.run == match["run"] else "")
            left = None if match["left"] == "nan" else float(match["left"])
            line = Line(match["run"], int(match["step"]), int(match["steps"]), scores, match["speed"], left)
        return line

    def left(self, now: float) -> tuple[str, float] | None:
        """The run that it trains, and the seconds that are left of it; None where its log does not tell."""
        line = self.last()
        if line is None or line.left is None:
            return None
        return line.run, max(line.left - (now - self.written()), 0.0)


class Display:
    """Takes Snakemake's messages (`logging.LogRecord`s with an `event` and what belongs to it) and keeps the lines.

    Args:
        plain: Snakemake's own handler, whose stream and words are used.
    """

    def __init__(self, plain: Any):
        self.plain = plain
        self.console = Console(file=plain.stream, highlight=False, no_color=plain.nocolor or None)
        self.jobs: dict[int, Job] = {}
        self.left: Counter[str] = Counter()  # jobs of each rule that are still to end
        self.finished = self.failed = self.total = 0
        self.begun = time.time()
        self.cores = 1
        self.outlook = Outlook()
        self.ended: set[str] = set()
        self.expected: forecast.Seconds | None = None
        self.foreseen = self.earliest = self.next = 0.0  # when, and when again, in seconds since 1970
        piped = not sys.stdout.isatty()  # then what is written there must stay there
        self.live = Live(
            get_renderable=self.lines, console=self.console, refresh_per_second=2, redirect_stdout=not piped
        )

    def show(self, record: Any) -> None:
        """Takes a message."""
        event = getattr(record, "event", None)
        if event == LogEvent.RUN_INFO:
            self._begin(record.stats)
        elif event == LogEvent.JOB_INFO:
            self._add(record)
        elif event == LogEvent.JOB_FINISHED:
            self._finish(record.job_id)
        elif event == LogEvent.JOB_ERROR:
            self._fail(record)
        else:
            if event == LogEvent.RESOURCES_INFO:
                self.cores = getattr(record, "cores", getattr(record, "nodes", self.cores))
            if event not in SILENT and self.plain.filter(record):
                self._print(record)

    def stop(self) -> None:
        """Ends the display; the line of the total stays."""
        self.jobs.clear()
        if self.live.is_started:
            self.live.stop()

    def _begin(self, stats: dict[str, int]) -> None:
        self.left = Counter({rule: count for rule, count in stats.items() if rule != "total"})
        self.total = stats["total"]
        self.live.start()
        self.console.show_cursor(True)  # rich hides it, and after `kill -9` nobody would show it again

    def _add(self, record: Any) -> None:
        log = Path(record.log[0]) if record.log else None
        job = Job(record.rule_name, dict(record.wildcards), self.outlook.add(record), log)
        if job.name in self.ended:  # it failed, and is tried again
            self.ended.remove(job.name)
            self.left[job.rule] += 1
        self.jobs[record.jobid] = job

    def _finish(self, number: int) -> None:
        if job := self._end(number):
            self.finished += 1
            line, tail = job.last(own=True), job.tail()
            outcome = f"  {line.scores}" if line else "  from the store" if "taken from the store" in tail else ""
            if job.log:  # targets have none, and do nothing
                self._say("✓", "green", job, f"{outcome}  {_watch(time.time() - job.begun)}")

    def _fail(self, record: Any) -> None:
        if job := self._end(record.jobid):  # else it was told already
            self.failed += 1
            self._say("✗", "bold red", job, f"  failed after {_watch(time.time() - job.begun)}; {job.log}:")
            lines = [line for line in job.tail().splitlines() if not PROGRESS.match(line)]
            for line in lines[-ERROR_LINES:]:
                self.console.print(Text(f"    {line}", style="red"), soft_wrap=True)

    def _end(self, number: int) -> Job | None:
        """A job that ran until now."""
        if job := self.jobs.pop(number, None):
            self.left[job.rule] -= 1
            self.ended.add(job.name)
            self.outlook.names.discard(job.name)
            self.next = min(self.next, max(time.time() + FORECAST_ANEW, self.earliest))
        return job

    def _say(self, sign: str, style: str, job: Job, rest: str) -> None:
        stamp = (time.strftime("%H:%M:%S "), "dim")
        self.console.print(Text.assemble(stamp, (f"{sign} ", style), _label(job.rule, job.what), rest), soft_wrap=True)

    def _print(self, record: Any) -> None:
        text = self.plain.format(record)
        if not text or NOISE.match(text):
            return
        style = "red" if record.levelno >= ERROR else "yellow" if record.levelno >= WARNING else ""
        self.console.print(Text(text.strip("\n"), style=style), soft_wrap=True)

    def lines(self) -> RenderableType:
        """The lines at the bottom of the terminal: as many running jobs as fit, those first whose logs tell most."""
        now = time.time()
        shown = sorted(self.jobs.values(), key=lambda job: (not job.tail(), job.begun))
        fit = max(self.console.height - 4, 1)
        table = Table.grid(padding=(0, 2, 0, 0))
        for justify in ("left", "left", "right", "left", "right", "right"):
            table.add_column(no_wrap=True, overflow="ellipsis", justify=justify)
        rows = [self._row(job, now) for job in shown[:fit]]
        others = (max(map(self._columns, cells)) + 2 for cells in zip(*(row[1:] for row in rows), strict=True))
        room = self.console.width - sum(others)
        for label, *cells in rows:
            label.truncate(max(room - 2, 10), overflow="ellipsis")  # what is too long is cut in the name alone
            table.add_row(label, *cells)
        more = [Text(f"and {len(shown) - fit} more", style="dim")] if len(shown) > fit else []
        return Group(table, *more, self._all(now))

    def _columns(self, cell: RenderableType) -> int:
        return Measurement.get(self.console, self.console.options, cell).maximum

    def _row(self, job: Job, now: float) -> tuple[Text, *tuple[RenderableType, ...]]:
        line = job.last()
        what = job.what if line is None or job.is_own(line.run) else f"{job.what} ({_now(job, line.run)})"
        label = _label(job.rule if line is None or self.console.width >= MIDDLE else "", what)
        if line is None:
            return label, "", "", "", "", Text(_watch(now - job.begun), style="dim")
        wide = self.console.width >= WIDE
        left = job.left(now)
        rest = "last evaluation" if line.step == line.steps else f"{forecast.clock(left[1])} left" if left else ""
        return (
            label,
            _bar(line.step, line.steps, 10) if wide else "",
            Text(f"{line.step}/{line.steps}"),
            Text(line.scores if wide else line.scores.partition(",")[0]),
            Text(f"{line.speed} images/s" if wide else f"{line.speed}/s"),
            Text(rest),
        )

    def _all(self, now: float) -> RenderableType:
        expected = self._remaining(now)
        row = Table.grid(padding=(0, 2, 0, 0))
        row.add_row(
            _bar(self.finished, self.total, 24),
            Text(f"{self.finished} of {self.total} jobs", style="bold"),
            *([Text(f"{self.failed} failed", style="bold red")] if self.failed else []),
            Text(_watch(now - self.begun), style="dim"),
            Text(f"about {forecast.in_words(expected)} left" if expected and self.jobs else ""),
        )
        return row

    def _remaining(self, now: float) -> forecast.Seconds | None:
        """What is left of all, foreseen anew now and then: every run that ends makes the next one's forecast better."""
        if self.jobs and now > self.next:
            self.expected, self.foreseen = self._foresee(now), now
            ended = time.time()
            self.earliest = ended + FORECAST_SHARE * (ended - now)
            self.next = max(ended + FORECAST_EVERY, self.earliest)
        if self.expected is None:
            return None
        return forecast.Seconds(*(max(part - (now - self.foreseen), 0.0) for part in self.expected))

    def _foresee(self, now: float) -> forecast.Seconds | None:
        try:
            tasks = [task for task in self.outlook.tasks(fresh=True) if task.name not in self.ended]
        except (InputError, OSError):
            return None
        expected = {task.name: task.seconds for task in tasks}
        seconds = {}
        for job in self.jobs.values():
            if training := job.left(now):
                run, left = training
                seconds[run] = forecast.Seconds(left, left, left)
            elif job.name in expected:
                spent = now - job.begun
                seconds[job.name] = forecast.Seconds(*(max(part - spent, 0.0) for part in expected[job.name]))
        tasks = to_come(tasks, self.left, self.outlook.names, seconds)
        return forecast.wall(tasks, self.cores) if any(task.seconds.likely for task in tasks) else None


def _bar(done: int, total: int, width: int) -> ProgressBar:
    return ProgressBar(total, done, width, complete_style="green", finished_style="green")


def _label(rule: str, what: str) -> Text:
    return Text(" ").join(filter(None, (Text(rule), Text(what, style="cyan"))))


def _now(job: Job, run: str) -> str:
    """The run that a job trains on the way, without what is known of it."""
    return "now " + run.removeprefix(next(iter(job.wildcards.values()), "")).strip(" -")


def _scores(text: str) -> str:
    """Loss and accuracy of the last split that is told of, as `test 45.1 %, loss 1.523`."""
    words = text.split()
    return f"{words[-3]} {100 * float(words[-1]):.1f} %, loss {words[-2]}" if len(words) >= 3 else ""


def _watch(seconds: float) -> str:
    """As a stopwatch: 0:42, 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
