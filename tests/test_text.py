"""The report's text: it follows the verdicts, and what it lists of the network is what the network has."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from cifar_report.analysis import first_loss
from cifar_report.analysis.claims.file import VERDICTS
from cifar_report.models.torch_nn import vgg
from cifar_report.rendering import claims
from cifar_report.rendering.latex import counted
from cifar_report.rendering.layers import layers
from cifar_report.study import config

ROOT = Path(__file__).parents[1]
SECTIONS = {path.name: path.read_text() for path in (ROOT / "report/sections").glob("*.tex")}
CLAIMS = {claim["id"]: claim for claim in yaml.safe_load((ROOT / "report/claims.yaml").read_text())}


def braced(text: str, start: int) -> str:
    """What stands between the brace at `start` and the one that closes it."""
    depth = 0
    for end in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[start + 1 : end]
    raise ValueError(f"a brace that nothing closes: {text[start : start + 40]}")


def test_sentences_of_verdicts_are_whole():
    r"""Each \ByVerdict names a claim of claims.yaml and has a sentence for every verdict that the claim can have."""
    found = [
        (name, match[1], braced(text, match.end() - 1))
        for name, text in SECTIONS.items()
        for match in re.finditer(r"\\ByVerdict\{([\w-]+)\}\s*\{", text)
    ]
    assert {claim for _, claim, _ in found} == set(CLAIMS), "the discussion speaks of every claim"
    for name, claim, sentences in found:
        missing = [verdict for verdict in VERDICTS if not re.search(rf"(?:^|,)\s*{verdict}=\{{", sentences)]
        if CLAIMS[claim]["decides"] == "all" and "mixed" in missing:
            missing.remove("mixed")  # of cases alone
        assert not missing, (name, claim, missing)


def test_sentences_of_verdicts_stand_by_themselves():
    """None goes on from another one, which another verdict may have chosen."""
    sentences = [
        sentence
        for text in SECTIONS.values()
        for match in re.finditer(r"\\ByVerdict\{[\w-]+\}\s*\{", text)
        for sentence in re.findall(rf"(?:{'|'.join(VERDICTS)})=\{{(.*)", braced(text, match.end() - 1))
    ]
    assert len(sentences) > 40
    for sentence in sentences:
        assert not re.match(r"(And|Nor|But|Also|It also|So|Of th|How much of that)\b", sentence), sentence


def test_counts_fit_one_as_well_as_many():
    """No verb in the plural follows a number of claims, accuracies, runs or variants."""
    for name, text in SECTIONS.items():
        assert not re.search(
            r"\\result\{(?:claims|compatibility|study)[.\w-]*\}\s+(?:are|were|claims|runs|variants)\b", text
        ), name
    assert (counted(1, "run"), counted(2, "accuracy", "accuracies")) == (r"\num{1} run", r"\num{2} accuracies")


def test_numbers_of_claims_are_of_parts_that_exist():
    r"""Each \result{claims.<claim>.<part>} of the text names a part of claims.yaml."""
    for name, text in SECTIONS.items():
        for claim, part in re.findall(r"\{claims\.([\w-]+)\.([\w-]+)\}", text):
            parts = {entry["id"] for entry in CLAIMS[claim]["parts"]} | {"verdict"}
            assert part in parts, (name, claim, part)


def test_layers_of_the_vgg():
    """The first rows by hand; in all, the parameters of the original's table, and twice the products of its layers."""
    settings = config.load(yaml.safe_load((ROOT / "config.yaml").read_text())).variants["vgg"].resolved()
    rows = layers(settings, (3, 32, 32), 10)
    assert rows[:2] == [
        ("convolution 3×3, batch norm, ReLU", (64, 32, 32), 3 * 64 * 9 + 64 + 2 * 64, 2 * 27 * 64 * 1024),
        ("max pool 3×3", (64, 16, 16), 0, 0),
    ]
    assert rows[-1] == ("linear", (10,), 5130, 2 * 5120)
    assert [row.shape for row in rows if "pool" in row.words][-1] == (512, 1, 1)
    assert sum(row.parameters for row in rows) == 9_231_114
    model = vgg.build(settings, (3, 32, 32), 10, seed=0)
    assert sum(row.parameters for row in rows) == sum(parameter.numel() for parameter in model.parameters())
    kernels = [layer.weight for layer in model if isinstance(layer, vgg.Convolution)]
    products = [
        weight.numel() * (32 // 2**pools) ** 2 for weight, pools in zip(kernels, (0, 1, 2, 2, 3, 3, 4, 4), strict=True)
    ]
    assert sum(row.flops for row in rows) == 2 * (sum(products) + 512 * 10)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_lines_of_verdicts(verdict: str):
    """A line a claim: the part that its verdict is told by, of a mixed one those that point either way."""
    part = {"role": "decides", "unit": "points", "ci95_low": 0.01, "ci95_high": 0.03, "image_level": None}
    parts = [
        part | {"id": "up", "estimate": 0.02, "supports": True, "refutes": False},
        part
        | {"id": "down", "estimate": -0.02, "ci95_low": -0.03, "ci95_high": -0.01, "supports": False, "refutes": True},
    ]
    claim = {"title": "One & two", "verdict": verdict, "part": "up", "parts": parts}
    (line,) = [row for row in claims.lines([claim]).splitlines() if "One" in row]
    assert line.startswith(r"  One \& two & ") and verdict in line
    assert (r"\num{-2.00}" in line) == (verdict == "mixed") and r"\num{2.00}" in line


def test_first_loss():
    """The deviation by hand, against the logits of networks drawn by PyTorch, and the largest of normal numbers."""
    images = np.random.default_rng(0).integers(0, 256, (600, 1, 2, 3), dtype=np.uint8)
    differences = images.reshape(600, 6).astype(float) - images.reshape(600, 6).mean(axis=0)
    found = first_loss.root_mean_squares(images)
    np.testing.assert_allclose(found, np.sqrt((differences**2).mean(axis=1)), rtol=1e-12)
    inputs, slope = torch.from_numpy(differences[:1]).float(), 0.3
    with torch.random.fork_rng():
        torch.manual_seed(0)
        logits = []
        for _ in range(200):  # a hundred logits each
            layers = torch.nn.Linear(6, 50), torch.nn.LeakyReLU(slope), torch.nn.Linear(50, 100)
            logits.append(torch.nn.Sequential(*layers)(inputs).detach())
    expected = torch.cat(logits).std().item()
    assert first_loss.deviations(found[:1], 6, 50, slope)[0] == pytest.approx(expected, rel=0.05)
    assert first_loss.largest_of(2) == pytest.approx(1 / math.sqrt(math.pi))  # known in closed form
    assert first_loss.largest_of(10) == pytest.approx(1.53875, abs=1e-5)  # Harter 1961
