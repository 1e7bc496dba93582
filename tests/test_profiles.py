"""Beyond one machine: the Slurm profile as Snakemake reads it, a real Slurm, and a job that has only a bucket."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_workflow import PARTS, ROOT

PROFILE = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
STUDY = {
    "study": "far",
    "seeds": [0, 1],
    "run": ["mlp-numpy", "mlp-tuned", "vgg"],
    "variants": {"mlp-numpy": {"steps": 4, "evaluate_every": 2}, "vgg": {"seeds": [0, 1]}},
    "search": {"mlp-grid": {"grid": [{"setting": "batch_size", "values": [20, 50]}]}},
}
RULES = {
    name
    for path in ROOT.glob("workflow/rules/*.smk")
    for name in re.findall(r"^\s*rule (\w+):", path.read_text(), re.MULTILINE)
}


def snakemake(folder, *arguments, **environment):
    command = [sys.executable, "-m", "snakemake", "--configfile", "config/demo.yaml", "far.yaml", *arguments]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path} | environment
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    logs = "".join(f"\n{p}:\n{p.read_text()[-1000:]}" for p in folder.glob("**/logs/**/*.log"))
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:] + logs
    return done.stdout + done.stderr


def checkout(folder):
    folder.mkdir(exist_ok=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            shutil.copy2(source, folder / part)
    (folder / "far.yaml").write_text(yaml.safe_dump(STUDY))
    return folder


def test_the_profile_names_only_rules_that_exist():
    named = {*PROFILE["set-resources"], *PROFILE["groups"]}
    assert named <= RULES, named - RULES


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    return checkout(tmp_path_factory.mktemp("machine"))


def test_every_job_has_memory_and_time_and_short_ones_share(machine):
    """Also that no job of a group waits for one outside that waits for the group: Snakemake would refuse that."""
    told = snakemake(machine, "--workflow-profile", "slurm", "--dry-run", "--", "report")
    resources = [line for line in told.splitlines() if line.strip().startswith("resources:") and "<TBD>" in line]
    assert len(resources) > 10
    assert all(re.search(r"mem_mb=[1-9]\d+", line) and re.search(r"runtime=[1-9]\d", line) for line in resources)
    groups = re.findall(r"Group job (\w+)", told)
    assert sorted(groups) == ["report", "runs", "trials", "tuned"]
    alone = re.findall(r"^(?:local)?rule (\w+):(?:\n .*)*?\n    wildcards: (.*)", told, re.MULTILINE)
    assert sorted(wildcards for rule, wildcards in alone if rule == "train_variant") == [
        f"variant=vgg, seed={seed}" for seed in (0, 1)
    ]


def slurm_answers():
    return bool(shutil.which("sbatch")) and subprocess.run(["sinfo"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not slurm_answers(), reason="no Slurm here that answers")
def test_two_runs_share_a_job_of_slurm(machine):
    runs = [f"results/far/runs/mlp-numpy/seed-{seed}/run.json" for seed in (0, 1)]
    told = snakemake(
        machine, "--workflow-profile", "slurm", "--slurm-init-seconds-before-status-checks", "2", "--", *runs
    )
    assert len(re.findall(r"submitted with SLURM jobid \d+", told)) == 2  # the data, and both runs
    assert all((machine / run).is_file() for run in runs)


def test_a_machine_that_has_only_the_bucket_trains_a_run(tmp_path):
    """The call that an executor without a shared file system makes: from a checkout, inputs and outputs in a bucket."""
    boto3 = pytest.importorskip("boto3")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    server.start()
    try:
        port = server.get_host_and_port()[1]
        keys = {"aws_access_key_id": "id", "aws_secret_access_key": "key", "region_name": "us-east-1"}
        url = f"http://localhost:{port}"
        bucket = boto3.resource("s3", endpoint_url=url, **keys).create_bucket(Bucket="study")
        environment = {
            "SNAKEMAKE_STORAGE_S3_ENDPOINT_URL": url,
            "SNAKEMAKE_STORAGE_S3_ACCESS_KEY": "id",
            "SNAKEMAKE_STORAGE_S3_SECRET_KEY": "key",
        }
        for rule, wildcards in {"prepare_dataset": "", "train_variant": "variant=mlp-numpy,seed=0"}.items():
            job = ("--target-jobs", f"{rule}:{wildcards}", "--allowed-rules", rule, "--mode", "remote", "--force")
            pod = checkout(tmp_path / rule)
            snakemake(
                pod,
                *("--cores", "1", "--nolock", "--shared-fs-usage", "none", *job),
                *("--default-storage-provider", "s3", "--default-storage-prefix", "s3://study"),
                **environment,
            )
        made = {item.key for item in bucket.objects.all()}
    finally:
        server.stop()
    folder = "results/far/runs/mlp-numpy/seed-0"
    assert {f"{folder}/{name}" for name in ("run.json", "curve.csv", "model.safetensors", "test-logits.npy")} <= made
    assert not [key for key in made if "/plan/" in key or ".store" in key]
