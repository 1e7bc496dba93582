"""What a stranger may put into a configuration's texts, a class's name or an image is printed or refused, never run.

A configuration or profile as a whole is a program: Snakemake renders templates before it reads the Snakefile.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import forked
import numpy as np
import pandas as pd
import pytest
import yaml
from pypdf import PdfReader

from cifar_report.base.errors import InputError
from cifar_report.data import datasets
from cifar_report.rendering import figures
from cifar_report.rendering.latex import escape
from cifar_report.runs.finished import Run
from cifar_report.study import config
from cifar_report.study.identity import code_digest

ROOT = Path(__file__).parent.parent
SCHEMA = ROOT / "workflow/schemas/config.schema.yaml"
PARTS = ("Snakefile", "config.yaml", "config", "workflow", "profiles", "report", "tests/equations", "environment.yml")
NASTY = (
    r"\input{/etc/passwd}",
    r"$x_1%",
    r"\write18{touch pwned}",
    "'; touch pwned; '",
    '"; touch pwned; "',
    "$(touch pwned)",
    "`touch pwned`",
    "#1 & 2 ~ 3 ^^41 {",
    r"\end{document}",
    "../../etc",
)
FOREIGN = ("Ångström, Łódź", "«naïve» – 5 €", "Ωμέγα, Млекопитающее, Ґвинт", "深層学習", "👍 ‮txet", "²")
NAMES = (*NASTY, "", " ", "two words", "demo\n", "demo\0", "Demo", "démo", "a--b", "-a", "a/b", "..", "²", "x" * 61)


@pytest.mark.parametrize("name", NAMES)
def test_names_that_become_paths_are_plain(name):
    """Of the study, of a data set, of a variant and of a search: these alone reach a path or a shell."""
    document = yaml.safe_load((ROOT / "config.yaml").read_text())
    vgg = document["variants"]["vgg"]
    for change in (
        {"study": name},
        {"datasets": document["datasets"] | {name: {"source": "digits"}}, "dataset": name},
        {"variants": document["variants"] | {name: vgg}, "run": [name]},
        {"search": document["search"] | {name: document["search"]["mlp-grid"]}},
    ):
        with pytest.raises(InputError, match=r"^config"):
            config.load(document | change)


# --- shells -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workflow(tmp_path_factory):
    """A copy of the workflow whose configuration has a shell command in every free text."""
    folder = tmp_path_factory.mktemp("workflow")
    for part in PARTS:
        (shutil.copytree if (ROOT / part).is_dir() else shutil.copy2)(ROOT / part, folder / part)
    text = 'x\'; touch pwned; "$(touch pwned)" `touch pwned` {input} {{output}} \\'
    overlay = {
        "study": "hostile",
        "report": {"title": text, "author": text, "affiliation": text},
        "variants": {"mlp-numpy": {"label": text}},
        "datasets": {"folder": {"source": "image-folder", "path": text}},
        "dataset": "folder",
    }
    (folder / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    return folder


def snakemake(folder, *arguments):
    return forked.snakemake(
        folder, ["--configfile", "config/demo.yaml", "overlay.yaml", "--cores", "1", "--dry-run", *arguments]
    )


def test_no_free_text_reaches_a_shell(workflow):
    code, output = snakemake(workflow, "--printshellcmds", "report")
    assert code == 0, output
    assert output.count("exec ") > 20 and "touch pwned" not in output
    assert not (workflow / "pwned").exists()


def test_a_study_on_the_command_line_is_a_name_too(workflow):
    code, output = snakemake(workflow, "--config", "study=x; touch pwned; $(touch pwned)")
    assert code != 0 and "study: 'x; touch pwned; $(touch pwned)' is not allowed" in output
    assert not (workflow / "pwned").exists() and [p.name for p in (workflow / "results").glob("[!.]*")] == ["hostile"]


def test_the_command_line_is_read_as_yaml(workflow):
    """A list, a mapping and a boolean, as README writes them."""
    values = ("seeds=[7]", "variants={mlp-torch-adam-small: {steps: 30}}", "tensorboard=true")
    code, output = snakemake(workflow, "--config", *values, "study=007")
    assert code == 0, output
    written = yaml.safe_load((workflow / "results/007/plan/config.yaml").read_text())
    assert (written["seeds"], written["tensorboard"]) == ([7], True)
    assert written["variants"]["mlp-torch-adam-small"]["steps"] == 30


def test_a_study_in_another_folder_is_refused(workflow, tmp_path):
    shutil.copy(workflow / "config.yaml", tmp_path)
    code, output = snakemake(workflow, "--directory", str(tmp_path))
    assert code != 0 and f"{tmp_path}: is not the folder of" in output


def test_wrong_claims_stop_the_study_before_any_job(workflow):
    claims = (workflow / "report/claims.yaml").read_text()
    (workflow / "own.yaml").write_text(claims.replace("kind: contrast", "kind: contrats", 1))
    code, output = snakemake(workflow, "--config", "claims=own.yaml")
    assert code != 0 and re.search(r"own\.yaml:\d+: claim '.*contrats", output), output


def test_a_template_is_refused_as_soon_as_it_is_seen(workflow):
    """Too late to keep its code from running: a configuration is a program, as README says."""
    (workflow / "template.yaml").write_text("__use_yte__: true\nstudy: x\n")
    code, output = snakemake(workflow, "--configfile", "config/demo.yaml", "template.yaml")
    assert code != 0 and "template.yaml: __use_yte__: is a template" in output
    assert not (workflow / "results/x").exists()


HOSTILE = {  # of these, a list of what to keep out would have to know
    "BASH_ENV": "pwned.sh",
    "BASH_FUNC_grep%%": "() { touch pwned; }",
    "CDPATH": ".:/tmp",
    "GIT_DIR": "/nowhere",
    "GIT_OBJECT_DIRECTORY": "/nowhere",
    "GREP_OPTIONS": "--invert-match",
    "LD_PRELOAD": "",
    "MKL_CBWR": "COMPATIBLE",
    "MPLBACKEND": "nonsense",
    "MPLCONFIGDIR": "/nowhere",
    "NVIDIA_TF32_OVERRIDE": "1",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_CORETYPE": "Nehalem",
    "PYTEST_ADDOPTS": "-k nothing",
    "PYTEST_PLUGINS": "nonsense",
    "PYTHONHOME": "/nowhere",
    "PYTHONOPTIMIZE": "2",
    "PYTHONSTARTUP": "pwned.py",
    "PYTHONPATH": "/nowhere",
    "SHELLOPTS": "noexec",
    "TEXINPUTS": "/nowhere",
    "TEXINPUTS_pdflatex": "/nowhere",
    "TEXMFCNF": "/nowhere",
    "UNHEARD_OF": "1",
}


def test_what_users_set_for_themselves_reaches_no_job(tmp_path):
    (tmp_path / "pwned.sh").write_text("touch pwned")
    own = tmp_path / "own"
    for folder in (own, tmp_path / "another"):
        (folder / "cifar_report").mkdir(parents=True)
    command = [ROOT / "workflow/scripts/bash", "-c", "grep -c . /dev/null; exec env"]
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    for path, kept in (("/nowhere", False), (f"/nowhere:{tmp_path}/another:{own}/:/there", True), ("", False)):
        environment = inherited | HOSTILE | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "1"}
        environment["CIFAR_REPORT_SOURCES"] = str(own)
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
        seen = dict(line.split("=", 1) for line in done.stdout.splitlines()[1:])
        assert done.stdout.startswith("0\n") and not (tmp_path / "pwned").exists()
        assert seen["CUDA_VISIBLE_DEVICES"] == "1" and seen["PATH"] == os.environ["PATH"]
        sources = [seen.pop(name, None) for name in ("PYTHONPATH", "CIFAR_REPORT_SOURCES")]
        assert sources == [str(own) if kept else None] * 2
        of_the_shell = {"PWD", "OLDPWD", "SHLVL", "_"}
        assert set(seen) - of_the_shell == {*inherited, "CUDA_VISIBLE_DEVICES", "PYTHONUTF8", "CIFAR_REPORT_PARENT"}


# --- LaTeX ------------------------------------------------------------------------------------------------------------


def render(folder, body):
    """The text of a PDF that the workflow's own script makes of a document with the report's preamble."""
    sources, results = folder / "report", folder / "results"
    shutil.copytree(ROOT / "report", sources)
    (results / "tables").mkdir(parents=True)
    (results / "figures").mkdir()
    titles = r"\setresult{report.title}{" + escape(NASTY[0]) + "}\n" + r"\setresult{report.author}{A}"
    (results / "numbers.tex").write_text(f"% SOURCE_DATE_EPOCH 0\n{titles}\n")
    (sources / "report.tex").write_text(
        "\\documentclass{article}\n\\input{preamble}\n\\input{numbers}\n\\begin{document}\n"
        f"BEGIN {body} END\n\\end{{document}}\n"
    )
    command = [
        ROOT / "workflow/scripts/render-report",
        sources,
        results,
        folder / "report.pdf",
        folder / "source.tar.gz",
    ]
    # Packages of the user's own, in each of the places where TeX looks for them.
    own = {"TEXMFHOME": "texmf", "TEXMFVAR": ".texlive/texmf-var", "TEXMFCONFIG": ".texlive/texmf-config"}
    for place in own.values():
        (folder / place / "tex/latex").mkdir(parents=True, exist_ok=True)
        (folder / place / "tex/latex/siunitx.sty").write_text(r"\errmessage{not the user's}")
    environment = os.environ | {"CDPATH": f".:{folder}", "HOME": str(folder), "TEXMFCNF": "/nowhere"}
    environment |= {name: str(folder / place) for name, place in own.items()}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        return None, done.stdout + done.stderr
    return PdfReader(folder / "report.pdf").pages[0].extract_text(), done.stdout


def test_text_is_printed_literally(tmp_path):
    """Names of classes, labels and titles, as `escape` hands them on; what the fonts lack, by its code point."""
    every = [*NASTY, *FOREIGN]
    text, log = render(tmp_path, "\n\n".join(map(escape, every)))
    assert text is not None, log[-3000:]
    printed = re.sub(r"\s|-", "", text)
    for string in NASTY:
        expected = string.replace("'", "’").replace('"', '"')
        assert re.sub(r"\s|-", "", expected) in printed, string
    assert (
        "Ångström" in text
        and "Łódź" in text
        and "Ωμέγα, Млекопитающее" in text
        and "U+202E" in text
        and "U+1F44D" in text
    )
    assert "root:" not in text


def test_latex_starts_no_program(tmp_path):
    pwned = tmp_path / "pwned"
    text, log = render(tmp_path, rf"\immediate\write18{{touch {pwned}}}\input{{|touch {pwned}}}")
    assert not pwned.exists()
    assert text is None, log


def test_latex_reads_and_writes_nothing_elsewhere(tmp_path):
    (tmp_path / "secret.tex").write_text("root:")
    text, _ = render(tmp_path, rf"\input{{{tmp_path / 'secret.tex'}}}")
    assert text is None
    shutil.rmtree(tmp_path / "report"), shutil.rmtree(tmp_path / "results")
    stray = tmp_path / "stray.txt"
    render(tmp_path, rf"\newwrite\stray\immediate\openout\stray={stray}\immediate\write\stray{{x}}")
    assert not stray.exists()


def test_figures_print_labels_literally(tmp_path):
    """Dollar signs and backslashes in a label are no mathematics, and what the fonts lack stops no drawing."""
    curve = pd.DataFrame({"step": [0, 1], "samples_seen": [0, 4], "split": "test", "loss": 1.0, "accuracy": 0.5})
    final = {split: {"loss": 1.0, "accuracy": 0.5} for split in ("train", "test")}
    record = {"status": "completed", "final": final, "settings": {"steps": 1, "kind": "numpy-mlp"}}
    labels = [*NASTY, *FOREIGN[:3]]
    variants = [{"name": f"v{i}", "label": text, "original_test_accuracy": None} for i, text in enumerate(labels)]
    runs = {v["name"]: [Run(v["name"], 0, record, curve, tmp_path)] for v in variants}
    with figures.style():
        drawing = figures.comparison(variants, runs)
        drawing.figure.savefig(tmp_path / "comparison.pdf")
    shown = PdfReader(tmp_path / "comparison.pdf").pages[0].extract_text()
    for text in NASTY:
        assert re.sub(r"\s", "", text) in re.sub(r"\s", "", shown)


# --- code -------------------------------------------------------------------------------------------------------------

SOURCES = sorted((ROOT / "src").rglob("*.py"))
UNWANTED_MODULES = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "telnetlib", "ftplib"} | {
    "socketserver",
    "http.server",
    "xmlrpc",
    "asyncio",
    "flask",
    "multiprocessing.managers",
}
UNWANTED_CALLS = {
    "eval",
    "exec",
    "torch.load",
    "pd.read_pickle",
    "os.system",
    "os.popen",
    "yaml.load",
    "yaml.unsafe_load",
}


def name_of(node):
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_source_unpickles_listens_or_starts_a_shell(path):
    """The official archive is the one pickle: torchvision reads it, once its bytes are verified (test_datasets.py)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            modules = []
        for module in modules:
            assert not module.startswith("socket.")
            assert not any(module == m or module.startswith(f"{m}.") for m in UNWANTED_MODULES), module
            assert not module.startswith("torchvision") or path.stem == "sources"
        if isinstance(node, ast.Attribute) and name_of(node.value) == "socket":
            assert node.attr == "gethostname"  # the machine's name opens no socket
        if isinstance(node, ast.Call):
            assert name_of(node.func) not in UNWANTED_CALLS, ast.unparse(node)
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert options.get("allow_pickle", "False") == "False" and options.get("shell", "False") == "False"


HOOK = """
import sys
events = []
watched = ("socket.bind", "pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn")
sys.addaudithook(lambda event, args: events.append((event, str(args))) if event in watched else None)
from cifar_report.cli import main
code = main(sys.argv[1:])
import json, psutil
listening = [c.laddr for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN]
print(json.dumps({"code": code, "events": events, "listening": listening}), file=sys.stderr)
"""


@pytest.mark.parametrize("kind", ["numpy-mlp", "torch-mlp"])
def test_a_training_job_listens_on_nothing_and_unpickles_nothing(kind, tmp_path):
    datasets.prepare("digits", {"source": "digits"}, 200, tmp_path / "dataset", tmp_path)
    settings = {"kind": kind, "optimiser": "sgd", "learning_rate": 0.01, "steps": 2, "batch_size": 10}
    settings |= {"preprocessing": "standardise", "evaluate_every": 1, "evaluation_images": 10, "threads": 1}
    (tmp_path / "plan.json").write_text(json.dumps({"variant": "a", "settings": settings, "code": code_digest(kind)}))
    places = {"plan": "plan.json", "dataset": "dataset", "store": "store", "output": "run"}
    arguments = [part for name, path in places.items() for part in (f"--{name}", str(tmp_path / path))]
    done = subprocess.run(
        [sys.executable, "-c", HOOK, "train-variant", "--seed", "0", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    seen = json.loads(done.stderr.splitlines()[-1])
    assert seen["code"] == 0 and seen["listening"] == []
    # Programs are started by their names alone (git for the commit, ldconfig by PyTorch): never through a shell.
    started = [told for event, told in seen["events"] if event == "subprocess.Popen"]
    assert len(started) >= 1 and not [told for told in started if re.match(r"\('(\S*/)?(ba|da|z)?sh'", told)]
    assert not [event for event in seen["events"] if event[0] != "subprocess.Popen"]
    assert np.load(tmp_path / "run/test-logits.npy", allow_pickle=False).shape == (360, 10)


# --- dependencies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_every_locked_file_has_its_hash(lock):
    """Names and versions alone, each with SHA-256s; no address of an index, no file from elsewhere."""
    entries = re.split(r"\n(?=\S)", (ROOT / lock).read_text().strip())
    assert len(entries) > 50
    for entry in entries:
        first, *hashes = [line.strip(" \\") for line in entry.splitlines()]
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+( ; .*)?", first), first
        assert hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", line) for line in hashes), first


def test_the_environment_is_made_of_the_lock_alone():
    makefile = (ROOT / "Makefile").read_text()
    installs = [line for line in makefile.splitlines() if re.search(r"pip (install|sync)", line)]
    assert len(installs) == 3
    for line in installs:
        assert "--require-hashes" in line or ("--no-deps" in line and "--no-build-isolation" in line)


def test_the_lock_can_be_audited():
    """`make vulnerabilities` asks for the known vulnerabilities of what is locked, and installs nothing for it."""
    rule = re.search(r"^vulnerabilities:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert rule and "pip-audit --strict --require-hashes --disable-pip --requirement requirements-dev.lock" in rule[1]


# --- what is promised -------------------------------------------------------------------------------------------------


def test_each_guarantee_names_a_test_that_there_is():
    written = {
        name for path in ROOT.glob("tests/**/test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    lines = (ROOT / "docs/guarantees.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.endswith("| test |")]
    assert len(rows) > 60 and sum(line.startswith("|---") for line in lines) == sum(
        x.endswith("| test |") for x in lines
    )
    for row in rows:
        told = row.split(" | ")[-1]
        named = set(re.findall(r"`(test_\w+)`", told))
        assert named <= written and (named or told.startswith("none")), row
