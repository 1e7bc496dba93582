"""The one call that measures a GPU, small and on a CPU: it works on the code as it is."""

import json
import os
import subprocess
import sys
from pathlib import Path

from cifar_report.runs import exchange

ROOT = Path(__file__).parents[1]


def test_the_script_measures_and_packs_its_runs(tmp_path):
    call = ["benchmarks/gpu.sh", str(tmp_path / "out"), "--quick", "--variants", "mlp-torch"]
    environment = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = {row["name"]: row for row in json.loads((tmp_path / "out/gpu.json").read_text())}
    assert results["vgg: milliseconds a step"]["value"] > 0 and results["vgg: milliseconds a step"]["peer"] > 0
    assert results["deterministic: twice the same bits (1 yes)"]["met"] is True
    assert "mlp-torch: seconds of the slowest run, evaluations included" in results
    assert "| vgg: milliseconds a step |" in (tmp_path / "out/table.md").read_text()
    assert (tmp_path / "out/profile-after.txt").read_text().strip()
    counted, refused = exchange.import_runs(tmp_path / "out/runs.tar", tmp_path / "store")
    assert sum(counted.values()) == 1 and not refused
