"""The pages of the HTML report and what their captions say, from tables written by hand."""

import re
from pathlib import Path

from cifar_report.base.files import to_json
from cifar_report.rendering import pages

TEMPLATES = Path(__file__).parents[1] / "workflow/report"
SUMMARY = """variant,backend,parameters,steps,batch_size,seeds,test_accuracy_mean,test_accuracy_std,\
test_accuracy_ci95_low,test_accuracy_ci95_high,train_accuracy_mean,validation_accuracy_mean,original_test_accuracy,\
diverged
a,numpy,1234567,1000,50,3,0.5014,0.01,0.3007,0.9021,0.711,0.523,0.466,1
b,torch,77,2000,8,1,0.8766,,,,0.912,0.634,,0
"""
COSTS = """variant,train_seconds_median,images_per_second,peak_memory_mb,threads,device
a,1500.04,999.6,2048.4,1,X
b,36.0,12345.0,512.6,2,Y
"""
SEARCH = """trial,learning_rate,validation_accuracy,validation_loss,status,selected,rung,step,curve,search,seed
aaaaaaaaa,0.10,0.5001,1.23449,completed,False,1,10,c,grid,0
bbbbbbbbb,0.20,0.7499,0.5,completed,True,1,10,c,grid,1
ccccccccc,0.20,0.6,0.75,completed,False,2,2000,c,grid,1
"""
CLAIMS = [
    {"title": t, "verdict": v, "sentence": "S", "runs": r}
    for t, v, r in (("One", "refuted", 4), ("Two", "supported", 5), ("Three", "supported", 6))
]


def test_the_pages_and_captions_say_what_the_tables_hold(tmp_path):
    """Accuracies in per cent, means of the runs, and minutes of all of them: 4 times 1500.04 seconds and once 36."""
    (tmp_path / "figures").mkdir()
    (tmp_path / "dataset").mkdir()
    for name, text in (("summary", SUMMARY), ("costs", COSTS), ("search", SEARCH)):
        (tmp_path / f"{name}.csv").write_text(text)
    check = {key: "x" for key in ("test", "what", "how", "display", "outcome")}
    documents = {
        "claims": CLAIMS,
        "equations": [check | {"label": label} for label in ("eq:a", "eq:a", "eq:b")],
        "figures/figures": [{"name": "f", "caption": "C", "sources": ["s", "t"]}],
        "dataset/dataset": {"counts": {"train": 4500, "validation": 500, "test": 1000}},
    }
    for name, document in documents.items():
        (tmp_path / f"{name}.json").write_text(to_json(document))
    variants = [{"name": "a", "label": "Model A"}, {"name": "b", "label": "Model B"}]
    stage = {"study": "st", "dataset": "digits", "variants": variants, "searches": {"grid": ["learning_rate"]}}
    pages.write(stage, tmp_path, TEMPLATES, tmp_path / "html")
    said = {
        path.stem: " ".join(path.read_text().replace("\\", "").split()) for path in (tmp_path / "html").glob("*.rst")
    }
    assert "2 variants of neural networks on the dataset digits: 4,500 images to train on, 500" in said["workflow"]
    assert (
        "500 to choose by, 1,000 to test on. 5 runs took 100.6 minutes of training, and 3 trials of 1 search"
        in (said["workflow"])
    )
    assert "1 of the runs diverged" in said["workflow"] and "**87.7 %** (Model B)" in said["workflow"]
    assert "Of 3 claims 2 supported, 1 refuted." in said["workflow"]
    assert "5 runs in all" in said["summary"] and "is 87.7 % (Model B, 1 seed)" in said["summary"]
    assert "100.6 minutes for all runs" in said["costs"]
    assert "The slowest is Model A with 1,500.0 seconds a run" in said["costs"]
    assert "All 3 trials of grid" in said["search"] and "grid selected learning rate 0.2." in said["search"]
    assert "The 3 checks of the 2 equations" in said["equations"] and "3 claims: 2 supported" in said["claims"]

    def cells(name):
        rows = (tmp_path / f"html/{name}.html").read_text().split("<tr")[1:]
        return [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in rows]

    head = ["Variant", "Test %", "95 % interval", "Original %", "Validation %", "Training %", "Seeds", "Diverged"]
    assert cells("summary") == [
        [*head, "Steps", "Batch", "Parameters"],
        ["Model A", "50.1", "30.1 to 90.2", "46.6", "52.3", "71.1", "3", "1", "1,000", "50", "1,234,567"],
        ["Model B", "87.7", "", "", "63.4", "91.2", "1", "0", "2,000", "8", "77"],
    ]
    assert cells("costs") == [
        ["Variant", "Seconds a run, median", "Images a second", "Memory, MB", "Threads", "Device"],
        ["Model A", "1,500.0", "1,000", "2,048", "1", "X"],
        ["Model B", "36.0", "12,345", "513", "2", "Y"],
    ]
    assert cells("search") == [
        ["Search", "Trial", "Settings", "Seed", "Steps", "Validation %", "Loss", "Status", "Selected"],
        ["grid", "cccccccc", "learning rate 0.2", "1", "2,000", "60.0", "0.750", "completed", ""],
        ["grid", "bbbbbbbb", "learning rate 0.2", "1", "10", "75.0", "0.500", "completed", "✓"],
        ["grid", "aaaaaaaa", "learning rate 0.1", "0", "10", "50.0", "1.234", "completed", ""],
    ]
    assert cells("claims")[1:] == [
        ["One", "refuted", "S", "4"],
        ["Two", "supported", "S", "5"],
        ["Three", "supported", "S", "6"],
    ]
