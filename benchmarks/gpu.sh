#!/usr/bin/env bash
# Every check that needs a GPU, in one call of less than ten minutes, from the repository alone:
#   benchmarks/gpu.sh OUTPUT [--images FILE] [--quick] [--variants NAME …]
# OUTPUT: folder for gpu.json, table.md, the profiles and runs.tar (the finished runs, for `cifar-report import-runs`).
# --images: a copy of the JPEG images; without it the digits. --quick: a few steps of everything, also on a CPU.
# --variants: of the study's networks these alone.
# The Python that has PyTorch runs it: .venv's where `make setup` was called, else PYTHON, else python3.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" > /dev/null || python=python3
# A machine that has PyTorch, but none of the packages around it, gets these; what it has stays as it is.
"$python" - <<'PYTHON' || "$python" -m pip install --quiet jaxtyping safetensors threadpoolctl pydantic pyyaml pillow pandas scipy scikit-learn requests tenacity tqdm
import importlib
for name in "jaxtyping safetensors threadpoolctl pydantic yaml PIL pandas scipy sklearn requests tenacity tqdm".split():
    importlib.import_module(name)
PYTHON
PYTHONPATH=src exec "$python" benchmarks/gpu.py "$@"
