"""A logger for Snakemake (`--logger training`): in a terminal a line a running job, elsewhere Snakemake's own output.

Snakemake imports every logger that is installed at each start, so this module imports late.
"""

import os
import sys
from logging import LogRecord
from typing import TYPE_CHECKING

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

if TYPE_CHECKING:
    from snakemake_logger_plugin_training.display import Display
    from snakemake_logger_plugin_training.outlook import Outlook

PLAIN = "CIFAR_REPORT_PLAIN"  # set to anything, it switches the display off
INNER = "CIFAR_REPORT_PARENT"  # set where a job runs Snakemake, see workflow/scripts/bash


class LogHandler(LogHandlerBase):
    """Shows Snakemake's messages; those of a dry run are followed by a forecast."""

    display: "Display | None" = None
    outlook: "Outlook | None" = None

    def __post_init__(self) -> None:
        from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter

        settings = self.common_settings
        self.plain = ColorizingTextHandler(
            nocolor=settings.nocolor,
            stream=sys.stdout if settings.stdout else sys.stderr,
            formatter=DefaultFormatter(settings.quiet, settings.show_failed_logs),
            filter=DefaultFilter(
                settings.quiet, settings.debug_dag, settings.verbose, settings.dryrun, settings.printshellcmds
            ),
        )
        calm = settings.dryrun or settings.quiet or settings.verbose or settings.debug_dag
        wanted = not (calm or any(name in os.environ for name in (PLAIN, INNER)))
        if wanted and self.plain.is_tty and os.environ.get("TERM") != "dumb":
            from snakemake_logger_plugin_training.display import Display

            self.display = Display(self.plain)
        elif settings.dryrun and not settings.quiet and INNER not in os.environ:
            from snakemake_logger_plugin_training.outlook import Outlook

            self.outlook = Outlook()

    def emit(self, record: LogRecord) -> None:
        """Shows a message; an error in doing so never stops the jobs."""
        try:
            if record.msg == "None":
                record.msg = None  # as it was before it went through Snakemake's queue
            if self.display:
                self.display.show(record)
                return
            self.plain.handle(record)
            if self.outlook:
                self._foresee(record, self.outlook)
        except Exception:
            self.handleError(record)

    def _foresee(self, record: LogRecord, outlook: "Outlook") -> None:
        """Takes note of the jobs of a dry run, and tells at its end how long they will take."""
        if getattr(record, "event", None) == LogEvent.JOB_INFO:
            outlook.add(record)
        elif str(record.msg).startswith("This was a dry-run") and (text := outlook.sentence()):
            self.plain.stream.write(text + "\n")

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self.display:
            self.display.stop()
        super().close()

    @property
    def writes_to_stream(self) -> bool:
        """In place of Snakemake's own handler."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """Snakemake keeps its log in .snakemake/log/ as ever."""
        return False

    @property
    def has_filter(self) -> bool:
        """Snakemake's, where it fits."""
        return True

    @property
    def has_formatter(self) -> bool:
        """Snakemake's, where it fits."""
        return True

    @property
    def needs_rulegraph(self) -> bool:
        """No picture is drawn."""
        return False
