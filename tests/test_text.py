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
from cifar_report.rendering import claims, words
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
    parts.append(part | {"id": "neither", "estimate": 0.005, "supports": False, "refutes": False})
    claim = {"title": "One & two", "verdict": verdict, "part": "up", "parts": parts}
    (line,) = [row for row in claims.lines([claim]).splitlines() if "One" in row]
    assert line.startswith(r"  One \& two & ") and verdict in line
    assert (r"\num{-2.00}" in line) == (verdict == "mixed") and r"\num{2.00}" in line
    assert r"\num{0.50}" not in line
    (other,) = [row for row in claims.lines([claim | {"part": "down"}]).splitlines() if "One" in row]
    assert r"\num{-2.00}" in other and (r"\num{2.00}" in other) == (verdict == "mixed")


def test_first_loss():
    """The deviation by hand, against the logits of networks drawn by PyTorch, and the largest of normal numbers."""
    images = np.random.default_rng(0).integers(0, 256, (600, 1, 2, 3), dtype=np.uint8)
    differences = images.reshape(600, 6).astype(float) - images.reshape(600, 6).mean(axis=0)
    found = first_loss.root_mean_squares(images)
    np.testing.assert_allclose(found, np.sqrt((differences**2).mean(axis=1)), rtol=1e-12)
    inputs, slope = torch.from_numpy(np.stack([differences[0], np.zeros(6)])).float(), 0.3
    with torch.random.fork_rng():
        torch.manual_seed(0)
        logits = []
        for _ in range(200):  # a hundred logits each
            layers = torch.nn.Linear(6, 50), torch.nn.LeakyReLU(slope), torch.nn.Linear(50, 100)
            logits.append(torch.nn.Sequential(*layers)(inputs).detach())
    expected = torch.cat(logits, dim=1).std(dim=1).tolist()
    assert first_loss.deviations(np.array([found[0], 0]), 6, 50, slope) == pytest.approx(expected, rel=0.05)
    assert first_loss.largest_of(2) == pytest.approx(1 / math.sqrt(math.pi))  # known in closed form
    assert first_loss.largest_of(10) == pytest.approx(1.53875, abs=1e-5)  # Harter 1961


PLAIN = {"kind": "torch-mlp", "optimiser": "sgd", "learning_rate": 0.002, "steps": 7813, "batch_size": 128}
PLAIN |= {"preprocessing": "mean-image", "evaluate_every": 10, "evaluation_images": 5, "threads": 1, "hidden": [100]}


def test_a_recipe_in_words():
    """Each setting by itself; those that are switched off, or stand beside another one, say nothing."""
    said = {name: text for name, text in words.phrases(PLAIN).items() if text}
    assert said == {
        "kind": "in PyTorch",
        "hidden": "hidden units 100",
        "train_on": "trained on training images",
        "slope": r"slope \num{0}",
        "initial_std": "PyTorch's initial weights",
        "steps": r"\num{7813} steps",
        "batch_size": r"batches of \num{128}",
        "optimiser": "SGD",
        "learning_rate": r"learning rate \num{0.002}",
    }
    changed = {
        "train_on": ("train+validation", "trained on training and validation images"),
        "initial_std": (0.0001, r"initial weights of $\varsigma = \num{0.0001}$"),
        "optimiser": ("adamw", "AdamW"),
        "schedule": ("one-cycle", "one-cycle schedule"),
        "warmup": (0.2, r"warm-up \num{0.2}"),
        "batch_norm": ("manual", "batch norm (manual)"),
        "weight_decay": (0.5, r"weight decay \num{0.5}"),
        "label_smoothing": (0.1, r"label smoothing \num{0.1}"),
        "dropout": (0.3, r"dropout \num{0.3}"),
        "flip": (True, "flips"),
        "shift": (4, r"shifts of \num{4} pixels"),
        "average_decay": (0.99, r"weights averaged (\num{0.99})"),
        "preprocessing": ("standardise", "standardised channels"),
        "precision": ("bf16", "bf16"),
        "bias_rate": (64.0, r"batch norm's biases at \num{64} times the rate"),
        "dirac": (True, "convolutions that begin as the identity"),
        "slope": (0.02, r"slope \num{0.02}"),
        "momentum": (0.9, r"momentum \num{0.9}"),
    }
    assert words.phrases(PLAIN | {"shift": 1})["shift"] == r"shifts of \num{1} pixel"
    for name, (value, expected) in changed.items():
        assert words.phrases(PLAIN | {name: value})[name] == expected, name
    assert words.phrases(PLAIN | {"momentum": 0.9, "nesterov": True})["momentum"] == r"Nesterov momentum \num{0.9}"
    assert words.phrases(PLAIN | {"kind": "torch-vgg"})["hidden"] == ""
    alternating = PLAIN | {"flip": True, "alternate_flips": True}
    assert words.changes(alternating, PLAIN | {"flip": True}) == ["alternating flips"]
    read = {"True": "alternate flips", "False": "no alternate flips", "2": "alternate flips 2"}
    assert {text: words.setting_change("alternate_flips", text) for text in read} == read
    assert words.changes(PLAIN | {"flip": True, "shift": 2}, PLAIN | {"dropout": 0.5}) == [
        r"no dropout \num{0.5}",
        "flips",
        r"shifts of \num{2} pixels",
    ]


def test_networks_in_the_order_of_the_chapters():
    vgg_, numpy_ = {"kind": "torch-vgg"}, {"kind": "numpy-mlp"}
    torch_ = {"kind": "torch-mlp", "batch_norm": "none"}
    assert words.networks([torch_]) == "a multilayer perceptron in PyTorch"
    assert words.networks([vgg_, torch_ | {"batch_norm": "torch"}, numpy_]) == (
        "a multilayer perceptron whose back-propagation is written by hand in NumPy, the same network in PyTorch, "
        "batch normalisation and a convolutional network after VGG"
    )
    assert words.networks([vgg_ | {"batch_norm": "torch"}]) == "a convolutional network after VGG"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("500-500", "500, 500"),
        ("0.0020", "0.002"),
        ("0.01230", "0.0123"),
        ("20", "20"),
        ("one-cycle", "one-cycle"),
        ("a_b", r"a\_b"),
    ],
)
def test_a_value_of_a_search_in_a_table(text, shown):
    assert words.setting_text(text) == shown


def test_seeds_and_versions():
    assert words.ranges([3, 1, 2]) == "1--3"
    assert words.ranges([0, 1]) == "0, 1" and words.ranges([4, 0, 2]) == "0, 2, 4"
    assert words.versions({"versions": {"python": "3.11", "torch": "2"}}) == "Python 3.11, PyTorch 2"
    assert words.hidden_units({"kind": "numpy-mlp", "hidden": [5, 4]}) == "5, 4"
    assert words.hidden_units({"kind": "numpy-mlp", "hidden": []}) == "none"
    assert words.hidden_units({"kind": "torch-vgg"}) == "a VGG"


def test_files_in_few_words():
    assert words.shortened(["b/x.csv"]) == "b/x.csv" and words.shortened([]) == ""
    assert words.shortened(["runs/a/1.json", "runs/b/1.json"]) == "runs/{a,b}/1.json"
    assert words.shortened([f"runs/mlp-{n}/seed-0" for n in ("one", "two", "three")]) == "runs/mlp-*/seed-0"
    assert words.shortened([f"{n}-run" for n in ("one", "two", "three")]) == "*-run"
    assert words.shortened(["a-b/x", "a-b-b/x", "a-c-b/x"]) == "a-*/x"  # what they end in is not what they begin with
    assert words.shortened(["a", "b/c"]) == "a, b/c"


PART = {
    "id": "own",
    "label": "a_b",
    "role": "decides",
    "verdict": "supported",
    "unit": "points",
    "direction": "above",
    "smallest_effect": 0.01,
    "estimate": 0.06,
    "ci95_low": 0.035,
    "ci95_high": 0.085,
    "pairs": 3,
    "runs": 6,
    "known": None,
    "next_run": None,
    "image_level": None,
    "left_out": [],
    "outside": False,
    "supports": True,
    "refutes": False,
}


def a_claim(*parts, **more):
    claim = {"id": "c", "title": "A & B", "statement": "A beats B.", "verdict": "supported", "part": "own"}
    claim |= {"parts": list(parts), "sentence": "It does.", "decides": "all", "image_level": None, "changed": None}
    claim |= {"template": "It does.", "beside": None, "why": "because", "sampled": True}
    return claim | {"sentences": {"supported": "S {interval}."}} | more


def rows_of(text):
    return [re.sub(" +", " ", line.strip()) for line in text.splitlines() if " & " in line or "multicolumn" in line]


def test_the_table_of_claims_row_by_row():
    """A part that decides alone has no verdict of its own; parts that are shown, and known seeds, are told apart."""
    lone = rows_of(claims.table([a_claim(PART)]))[1:]
    indent = r"\hangindent=2em\hspace*{1em}"
    row = r"a\_b & \num{6.0} & [\num{3.5}, \num{8.5}] & $>$\,\num{1} & \num{6} & "
    assert lone == [
        r"\multicolumn{5}{@{}l}{\textbf{A \& B}} & $\checkmark$ supported \\*",
        rf"{indent}{row}\\",
    ]
    below = PART | {"id": "b", "label": "b", "unit": "nats", "direction": "below", "verdict": "refuted", "runs": 2}
    within = PART | {"label": "w", "unit": "percent", "direction": "within", "verdict": "inconclusive"}
    shown = PART | {"label": "s", "role": "shown", "verdict": None, "smallest_effect": None, "unit": "share"}
    premise = PART | {"label": "p", "role": "premise", "verdict": "mixed", "estimate": None, "ci95_low": None}
    bare = PART | {"label": "x", "ci95_low": None, "ci95_high": None, "verdict": "untested"}
    images = bare | {"label": "i", "image_level": {"estimate": 0.05, "ci95_low": 0.04, "ci95_high": 0.06}}
    earlier = PART | {"label": "k", "known": {"estimate": 0.02, "ci95_low": 0.01, "ci95_high": 0.03, "runs": 4}}
    found = rows_of(claims.table([a_claim(PART, below, within, shown, premise, bare, images, earlier)]))[2:]
    assert [line.removeprefix(indent) for line in found] == [
        rf"{row}$\checkmark$ supported \\",
        r"b & \num{0.060} & [\num{0.035}, \num{0.085}]\,nats & $<$\,\num{0.01} & \num{2} & $\times$ refuted \\",
        r"w & \num{6.0} & [\num{3.5}, \num{8.5}]\,\% & $\pm$\,\num{1} & \num{6} & $\sim$ inconclusive \\",
        r"\emph{s} & \num{6e-2} & [\num{3.5e-2}, \num{8.5e-2}] & -- & \num{6} & \\",
        r"premise: p & -- & & $>$\,\num{1} & \num{6} & $\pm$ mixed \\",
        r"x & \num{6.00} & & $>$\,\num{1} & \num{6} & -- untested \\",
        r"i & \num{5.00} & [\num{4.00}, \num{6.00}] \textdagger & $>$\,\num{1} & \num{6} & -- untested \\",
        r"k & \num{6.0} & [\num{3.5}, \num{8.5}] & $>$\,\num{1} & \num{6} & $\checkmark$ supported \\",
        r"\emph{the same over the seeds known before} & "
        r"\num{2.00} & [\num{1.00}, \num{3.00}] & $>$\,\num{1} & \num{4} & \\",
    ]
    wider = {"outside": True, "adjusted": 0.975, "adjusted_low": 0.03, "adjusted_high": 0.09}
    for name, shown in (
        (PART, []),
        (PART | {"verdict": "inconclusive"}, ["97.5"]),
        (PART | {"verdict": "refuted"}, []),
    ):
        rows = rows_of(claims.table([a_claim(name | wider, below)]))[3:-1]
        told = rf"{indent}\emph{{the same at \qty{{{{}}}}{{\percent}}, which leaves it open}} & & "
        assert rows == [told.replace("{}", each) + r"[\num{3.0}, \num{9.0}] & & & \\" for each in shown]


def test_a_paragraph_tells_what_was_known_only_where_something_was():
    """And that something was left out only where something was."""
    known = {"estimate": 0.02, "ci95_low": 0.01, "ci95_high": 0.03, "runs": 4}
    text = claims.paragraph(a_claim(PART | {"known": known}))
    said = (
        "Over the seeds known before the rule was, a\\_b is \\num{2.00} percentage points (\\num{1.00} to \\num{3.00}"
    )
    assert said in text and "Left out" not in text
    nothing = dict.fromkeys(known) | {"runs": 0}
    assert "known before" not in claims.paragraph(a_claim(PART | {"known": nothing}))
    assert "Left out: a seed 3 (diverged)." in claims.paragraph(a_claim(PART | {"left_out": ["a seed 3 (diverged)"]}))
