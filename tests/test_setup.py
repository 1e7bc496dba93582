"""`make setup`: what it installs as root, and who is asked."""

import contextlib
import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def bare(tmp_path):
    """A machine without TeX, whose apt-get notes what it is asked for."""
    for name in ("bash", "env"):
        if found := shutil.which(name):
            (tmp_path / name).symlink_to(found)
    (tmp_path / "apt-get").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (tmp_path / "apt-get").chmod(0o755)
    (tmp_path / "id").write_text("#!/bin/sh\necho 0\n")
    (tmp_path / "id").chmod(0o755)
    return tmp_path


def ensure_tex(bare, answer=None, errors=None, **environment):
    """Exit status and output, in a terminal where there is an answer; its errors may go elsewhere."""
    command = [str(ROOT / "workflow/scripts/ensure-tex")]
    settings = {"PATH": str(bare), **environment}
    if answer is None:
        done = subprocess.run(
            command, env=settings, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr
    ours, theirs = pty.openpty()
    os.write(ours, answer.encode())
    done = subprocess.Popen(command, env=settings, stdin=theirs, stdout=theirs, stderr=errors or theirs)
    status = done.wait()
    os.close(theirs)
    text = b""
    with contextlib.suppress(OSError):  # how Linux tells that nobody writes to a terminal any more
        while more := os.read(ours, 10_000):
            text += more
    os.close(ours)
    return status, text.decode()


def test_tex_is_refused_by_an_environment_variable(bare):
    status, text = ensure_tex(bare, TEX="no")
    assert status == 0 and "ends before its PDF" in text and not (bare / "asked").exists()


@pytest.mark.parametrize("errors", [None, subprocess.DEVNULL], ids=["all", "output-alone"])
@pytest.mark.parametrize(("answer", "installs"), [("\n", False), ("n\n", False), ("y\n", True), ("\x04", False)])
def test_root_is_asked_for_in_a_terminal(bare, answer, installs, errors):
    status, text = ensure_tex(bare, answer, errors)
    assert "as root, about 500 MB" in text and (bare / "asked").exists() == installs
    assert status == int(installs)  # this apt-get installs nothing, and that is told


def test_without_a_terminal_it_installs_and_says_what(bare):
    _, text = ensure_tex(bare)
    assert "installing latexmk" in text and "install -y" in (bare / "asked").read_text()


def test_a_users_install_has_no_development_tools():
    def names(lock):
        return {line.split("==")[0] for line in (ROOT / lock).read_text().splitlines() if "==" in line}

    users, all_ = names("requirements.lock"), names("requirements-dev.lock")
    tools = {"ruff", "mypy", "hypothesis", "mkdocs", "moto", "playwright", "snakefmt", "ipykernel", "pip-audit"}
    assert users < all_ and tools <= all_ and not tools & users
