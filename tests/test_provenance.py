"""What reruns after an edit: exactly the kinds of model whose code the edit changes."""

import shutil

import pytest

from cifar_report import provenance
from cifar_report.provenance import KINDS, PACKAGE, code_digest, training_modules


@pytest.fixture
def package(tmp_path):
    copy = tmp_path / "cifar_report"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def kinds_changed(package, edit):
    before = {kind: code_digest(*training_modules(kind), package=package) for kind in KINDS}
    edit()
    return {kind for kind in KINDS if code_digest(*training_modules(kind), package=package) != before[kind]}


TORCH = {"torch-mlp", "torch-vgg"}
DEPENDS = {
    "numpy_nn/modules.py": {"numpy-mlp"},
    "numpy_nn/sgd.py": {"numpy-mlp"},
    "numpy_nn/mlp.py": {"numpy-mlp"},
    "training/numpy_trainer.py": {"numpy-mlp"},
    "torch_nn/vgg.py": {"torch-vgg"},
    "torch_nn/mlp.py": {"torch-mlp"},
    "torch_nn/batchnorm.py": {"torch-mlp"},
    "torch_nn/initial.py": TORCH,
    "training/torch_trainer.py": TORCH,
    "training/loop.py": set(KINDS),
    "training/batches.py": set(KINDS),
    "randomness.py": set(KINDS),
    "training/store.py": set(),
    "cli.py": set(),
    "config.py": set(),
    "figures.py": set(),
    "provenance.py": set(),
}


@pytest.mark.parametrize("file", DEPENDS)
def test_an_edit_reruns_what_imports_it_and_nothing_else(package, file):
    path = package / file
    assert kinds_changed(package, lambda: path.write_text(path.read_text() + "\nADDED = 1\n")) == DEPENDS[file]


def test_a_digest_that_another_process_kept_is_that_of_the_source(package, monkeypatch):
    modules = training_modules("numpy-mlp")
    first = code_digest(*modules, package=package)
    provenance._digests.cache_clear()  # as a new process begins
    with monkeypatch.context() as patch:
        patch.delattr(provenance, "_parsed")
        assert code_digest(*modules, package=package) == first == code_digest(*modules)
    assert kinds_changed(package, lambda: (package / "randomness.py").write_text("ADDED = 1\n")) == set(KINDS)


def test_comments_docstrings_and_layout_rerun_nothing(package):
    path = package / "numpy_nn/modules.py"

    def edit():
        text = path.read_text().replace('"""The modules of the network', '"""Edited. The modules of the network')
        path.write_text("# a comment\n" + text.replace("    def forward", "\n    # another\n\n    def forward"))

    assert kinds_changed(package, edit) == set()


def test_what_the_package_offers_by_name_reruns_nothing(package):
    path = package / "__init__.py"
    edited = path.read_text().replace("load_study", "load_results")
    assert "load_results" in edited
    assert kinds_changed(package, lambda: path.write_text(edited)) == set()


def test_a_changed_sign_is_noticed(package):
    path = package / "numpy_nn/modules.py"
    text = path.read_text()
    edited = text.replace("-= 1", "+= 1")
    assert edited != text
    assert kinds_changed(package, lambda: path.write_text(edited)) == {"numpy-mlp"}


def test_gpu_is_found_without_torch(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not provenance.gpu_visible()
