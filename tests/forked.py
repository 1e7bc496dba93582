"""Snakemake called in forks of one process that has imported it and its plugins, which is half of a dry run's time.

That process has nothing of this package, nor of the tests: a fork imports and reads what a call in a shell would.
"""

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["snakemake.cli", "snakemake_executor_plugin_slurm", "snakemake_storage_plugin_s3"])


def snakemake(folder: Path, arguments: list[str]) -> tuple[int, str]:
    """The exit code, and all that was printed."""
    sys.audit("subprocess.Popen", "snakemake", arguments, None, None)  # for tests/mutation, which leaves out such tests
    with tempfile.NamedTemporaryFile() as printed:
        process = FORKS.Process(target=_call, args=(str(folder), arguments, dict(os.environ), printed.name))
        process.start()
        process.join()
        return process.exitcode or 0, printed.read().decode()


def _call(folder: str, arguments: list[str], environment: dict[str, str], printed: str) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    file = os.open(printed, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = ["snakemake", *arguments]
    from snakemake.cli import main

    main()
