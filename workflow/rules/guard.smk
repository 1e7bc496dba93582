# What keeps a study whole: one Snakemake at a time, its plan, its records, and word of runs that no longer count.
#
# One Snakemake at a time works on a study. It holds an flock for its life, which ends with the process however that
# ends: such a lock is never stale. Snakemake's own lock files are: they outlive `kill -9`.
import glob
import json
import os
import re
import shutil
import socket

from snakemake.persistence import MetadataRecord

from cifar_report.base import files, records

# Two, so that neither the study's folder nor the other can be removed and let a second one in.
LOCKS = (Path(RESULTS, ".lock"), Path("results/.locks", STUDY.name))
# The one that was tried last, and so the one that another process holds, if one does.
LOCK = LOCKS[0]
# What workflow/scripts/bash reads of this Snakemake.
PARENT = "CIFAR_REPORT_PARENT"
SOURCES = "CIFAR_REPORT_SOURCES"
# A Snakemake that a job of another runs, for the HTML report or on a cluster: the lock is with that other one.
INNER = not workflow.is_main_process or os.environ.get(PARENT, str(os.getpid())) != str(
    os.getpid()
)
os.environ |= {
    PARENT: str(os.getpid()),
    SOURCES: str(Path(studies.__file__).resolve().parents[2]),
}


def hold_lock():
    """The open files that hold the study's locks; none where another process holds one.

    Raises:
        InputError: there can be no such file.
    """
    global LOCK
    held = []
    try:
        for LOCK in LOCKS:
            file = files.take_lock(LOCK, wait=False)
            if not file:
                return None
            held.append(file)
        for file in held:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
            file.flush()
        return held
    except OSError as error:
        raise InputError(
            f"{LOCK}: expected to write here, found: {error.strerror}; make room or the folder writable, then call again"
        ) from error


def told_of_lock():
    """Who works on the study, and what to do."""
    return (
        f"{RESULTS}: {files.lock_holder(LOCK)} is working on this study already; wait until it ends, or stop it by Ctrl-C in its "
        "terminal or by kill -9 (no more is lost than the steps since the last evaluation), then call again"
    )


def remove_stale_locks():
    """Removes Snakemake's own locks on files of this study; whoever holds the flock knows that their owner is gone.

    Raises:
        InputError: one is no file.
    """
    for path in Path(".snakemake/locks").glob("*.lock"):
        if not path.is_file():
            raise InputError(
                f"{path}: expected a lock file of Snakemake, found something else; remove it"
            )
        if f"{RESULTS}/".encode() in path.read_bytes():
            path.unlink()


def write_plan():
    """Takes the lock and writes the plan. Where another process holds the lock, its plan is left as it is.

    A job on a machine that shares no files with the one that started it, as in a cloud, makes the same plan for itself.
    """
    global HELD
    written = Path(RESULTS) / "plan/config.yaml"
    if INNER:
        if not written.parent.exists():
            plan.write(STUDY, config, written.parent)
        return
    HELD = hold_lock()
    if HELD:
        check_folders()
        remove_stale_locks()
        drop_damaged_records()
        plan.write(STUDY, config, written.parent)
        remake_altered()
    elif not written.is_file() or files.read_yaml(written) != config:
        raise InputError(f"{told_of_lock()}; its configuration is another one")
    else:
        logger.warning(
            f"{RESULTS}: {files.lock_holder(LOCK)} is working on this study."
        )


def remake_altered():
    """Says which files were altered since they were made; Snakemake makes them again, like those of a killed job.

    Of arrays and weights, which are large, the digests are compared where they are read.
    """
    for path in files.digested(Path(RESULTS)):
        if path.suffix not in (".npy", ".safetensors") and files.is_altered(path):
            logger.warning(
                f"{path}: was altered since it was made; where the study asks for it, it is made again."
            )
            make_again(str(path))


def make_again(name):
    """Has Snakemake make a file again, where the study asks for it, like one of a killed job."""
    # A trial that a search drew is made with their list.
    listed = Path(name).parents[1] / "trials.json"
    mark = INCOMPLETE / records.place(str(listed) if listed.is_file() else name)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text('{"external_jobid": null}')


def require_lock():
    """Refuses to run jobs while another process holds the lock; a dry run never comes here.

    Raises:
        WorkflowError: the message names that process.
    """
    global HELD
    if not INNER:
        HELD = HELD or hold_lock()
        if not HELD:
            raise WorkflowError(told_of_lock())


def tell_superseded():
    """Says before anything trains that runs of this study were trained by other code, and what that costs."""
    runs, seconds = plan.superseded(STUDY, Path(STORE)) if not INNER else (0, 0.0)
    if runs:
        logger.warning(
            f"{STORE}: {runs} finished run{'s' * (runs != 1)} of this study no longer count{'s' * (runs == 1)}: the code "
            f"that trains them has changed. Training them took {seconds / 60:.0f} core minutes, and will again; to keep "
            "them, stop and check their commit out (run.json names it)."
        )


def tell_of_tex():
    """Says at the beginning, and not after hours, that no report can be made of what is computed."""
    has_latex = shutil.which("latexmk") and shutil.which("pdflatex")
    if not INNER and not has_latex and not shutil.which("tectonic"):
        logger.warning(
            "No TeX engine is found here: tables and figures can be made, the PDF and the HTML report cannot. "
            "`make setup` installs one; finished runs are not trained again."
        )


def name_reports():
    """Names at the end the reports that were made since the study's lock was taken, and no older one."""
    for name in ("report.pdf", "report.html"):
        path = Path(RESULTS, name)
        if (
            not INNER
            and path.is_file()
            and path.stat().st_mtime >= LOCK.stat().st_mtime
        ):
            logger.info(f"The report: {path}")


def tell_of_store():
    """Says that a run that is forced comes from the store all the same, and how to have it trained anew.

    Whatever is forced, since any file or rule may pull training along.
    """
    settings = workflow.dag_settings
    if not INNER and (settings.forceall or settings.forcetargets or settings.forcerun):
        logger.warning(
            f"{STORE}: runs that are finished are not trained anew, also where they are forced, but taken from here; "
            f"`cifar-report forget VARIANT --results {RESULTS} --store {STORE}` has those of a variant trained anew. A "
            "search's trial is, once you remove the folder here that bears the identity in its run.json."
        )


# Snakemake's records of what it made from what lie beside the results, so that both are copied or lost together.
RECORDS = Path("results/.records")
METADATA = Path(".snakemake/metadata")  # where Snakemake looks for them
INCOMPLETE = Path(".snakemake/incomplete")  # its marks of files whose job has not ended


def keep_records():
    """Makes `.snakemake/metadata` a link to them, where it is not a folder of an earlier version."""
    try:
        RECORDS.mkdir(parents=True, exist_ok=True)
        INCOMPLETE.mkdir(parents=True, exist_ok=True)
        METADATA.symlink_to(Path("..") / RECORDS)
    except OSError:
        pass  # it is there, or nothing can be written, which Snakemake itself tells


def check_folders():
    """Refuses what lies in the place of a folder that Snakemake keeps its state in.

    Raises:
        InputError: the message names it.
    """
    for path in (RECORDS, METADATA, INCOMPLETE, Path(".snakemake/locks")):
        if os.path.lexists(path) and not path.is_dir():
            raise InputError(
                f"{path}: expected a folder, which Snakemake keeps its records in, found something else; remove it"
            )


def check_places():
    """Refuses what lies in the place of a folder that some rule writes to, once all rules are read.

    Raises:
        WorkflowError: the message names it.
    """
    written = [
        str(file)
        for rule in workflow.rules
        for file in (*rule.output, *rule.log, rule.benchmark)
    ]
    folders = {str(folder) for file in written for folder in Path(file).parents}
    # Beside a trial's folder lie files of its search.
    for folder in sorted(each for each in folders if "{trial" not in each):
        for path in glob.glob(re.sub(r"\{[^}]*\}", "*", folder)):
            if not INNER and not os.path.isdir(path):
                raise WorkflowError(
                    f"{path}: expected a folder of the study, found something else; remove it"
                )


def drop_damaged_records():
    """Removes each of Snakemake's records of this study that would stop it, says so, and has the file made again.

    While the study's lock is held, none of them is only half written.
    """
    for folder in (METADATA, INCOMPLETE):
        for path in sorted(folder.rglob("*")):
            name = records.file_of(path.relative_to(folder))
            if (
                not name.startswith(f"{RESULTS}/")
                or not os.path.lexists(path)  # it went with its folder
                or (path.is_dir() and path.name.startswith("@"))
                or is_record(path)
            ):
                continue
            logger.warning(
                f"{path}: is a damaged record of Snakemake's and removed; where the study asks for {name}, it is made "
                "again."
            )
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            make_again(name)


def is_record(path):
    """Whether Snakemake can read a record, or a mark of a job that has not ended."""
    try:
        return path.is_file() and bool(
            MetadataRecord.model_validate(json.loads(path.read_text()))
        )
    except (OSError, ValueError, RecursionError):
        return False


keep_records()
