"""The official way beside ours: the same checkpoint, data and seeds through run_glue.py's Trainer and through `tune`.

    python scripts/bench_run_glue.py --model CHECKPOINT --workdir /tmp/runs \
        --data sst2 train.tsv dev.tsv --data stsb train.csv dev.csv

Full fine-tuning and LoRA, three seeds each, on the first `--samples` rows of a training file that a seed has shuffled,
and the whole validation file. Every run is a process of its own, one at a time, and both ways read the same two files.
Runs that are there already are not repeated. What differs and what came out: docs/how-to/run-glue.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_bias_patch.scoring.data import load_split
from hf_bias_patch.scoring.tasks import load_task
from hf_bias_patch.tuning.settings import AT_THE_END

RATES = {"all": 1e-4, "lora": 3e-3}
"""Of AdamW: those that held-out training data chose for this checkpoint in docs/results.md."""
WAYS = ("Trainer", "tune", "tune, random batches")
EPOCHS, BATCH, LENGTH = 3, 16, 128


@dataclass(frozen=True)
class Run:
    """One fine-tuning run.

    Attributes:
        task: `sst2` or `stsb`.
        train: `all` or `lora`.
        way: one of `WAYS`.
        seed: of head, order and dropout.
        folder: what it leaves there.
    """

    task: str
    train: str
    way: str
    seed: int
    folder: Path


def prepare(task: str, train: Path, validation: Path, samples: int, folder: Path) -> dict[str, Path]:
    """Both splits as json lines with the columns of GLUE, which run_glue.py and `tune` both read."""
    folder.mkdir(parents=True, exist_ok=True)
    known, made = load_task(task), {}
    for split, source in (("train", train), ("validation", validation)):
        rows = load_split(known, split, {split: source})
        if split == "train":
            rows = rows.shuffle(seed=0).select(range(min(samples, len(rows))))
        made[split] = folder / f"{split}.jsonl"
        columns = dict(zip(("text", "text_pair"), known.text, strict=False)) | {"label": str(known.label)}
        rows.select_columns(list(columns)).rename_columns(columns).to_json(made[split])
    return made


def by_trainer(run: Run, model: str, files: dict[str, Path]) -> dict[str, float]:
    """A run of run_glue_trainer.py."""
    run.folder.mkdir(parents=True, exist_ok=True)
    asked: dict[str, Any] = {split: str(path) for split, path in files.items()}
    asked |= {"model": model, "labels": 1 if run.task == "stsb" else 2, "train_what": run.train, "seed": run.seed}
    asked |= {"learning_rate": RATES[run.train], "epochs": EPOCHS, "batch": BATCH, "max_length": LENGTH}
    settings = run.folder / "asked.json"
    settings.write_text(json.dumps(asked | {"output_dir": str(run.folder)}), "utf-8")
    cost = called([str(Path(__file__).with_name("run_glue_trainer.py")), str(settings)], run.folder)
    return json.loads((run.folder / "result.json").read_text("utf-8")) | cost


def by_tune(run: Run, model: str, files: dict[str, Path]) -> dict[str, float]:
    """A run of `hf-bias-patch tune glue`, its last state scored, as run_glue.py does."""
    options = {
        "model_name_or_path": model,
        "task_name": run.task,
        "train_file": files["train"],
        "validation_file": files["validation"],
        "train": run.train,
        "learning_rate": RATES[run.train],
        "num_train_epochs": EPOCHS,
        "per_device_train_batch_size": BATCH,
        "warmup_ratio": 0,
        "max_length": LENGTH,
        "eval_steps": AT_THE_END,
        "seed": run.seed,
        "output_dir": run.folder / "run",
    }
    given = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    given += ["--overwrite", "--quiet"] + (["--no_group_by_length"] if "random" in run.way else [])
    cost = called(["-m", "hf_bias_patch", "tune", "glue", *given], run.folder)
    found = json.loads((run.folder / "run" / "results.json").read_text("utf-8"))
    score = found["metrics"][found["main_metric"]]
    return {"score": score, "seconds": found["seconds"], "trained": found["trained"]} | cost


def called(arguments: list[str], folder: Path) -> dict[str, float]:
    """Run Python to its end: processor seconds and the most memory of the process, start and end included."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "log.txt", "w", encoding="utf-8") as log:
        process = subprocess.Popen([sys.executable, *arguments], stdout=log, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # or Popen would wait for it again
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{(folder / 'log.txt').read_text('utf-8')[-3000:]}")
    return {"processor_seconds": used.ru_utime + used.ru_stime, "peak_bytes": 1024.0 * used.ru_maxrss}


def measured(run: Run, model: str, files: dict[str, Path]) -> dict[str, Any]:
    """What a run gave, now or before."""
    kept = run.folder / "figures.json"
    if not kept.exists():
        found = (by_trainer if run.way == "Trainer" else by_tune)(run, model, files)
        who = {"task": run.task, "train": run.train, "way": run.way, "seed": run.seed}
        kept.write_text(json.dumps(who | found | {"load": os.getloadavg()[0]}), "utf-8")
    return json.loads(kept.read_text("utf-8"))


def runs(workdir: Path, tasks: list[str], seeds: int, ways: list[str]) -> Iterator[Run]:
    """Every run; the ways take turns, because a machine's speed drifts."""
    for seed in range(1, seeds + 1):
        for task in tasks:
            for train in RATES:
                for way in ways:
                    name = f"{task}-{train}-{way.replace(', ', '-').replace(' ', '-')}-{seed}"
                    yield Run(task, train, way, seed, workdir / name)


def rows_of(found: list[dict[str, Any]]) -> Iterator[list[str]]:
    """Rows of the table: mean ± standard deviation over the seeds."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for figures in found:
        groups.setdefault((figures["task"], figures["train"], figures["way"]), []).append(figures)
    for (task, train, way), figures in sorted(groups.items()):
        columns = [_spread([one[name] * scale for one in figures], digits) for name, scale, digits in _COLUMNS]
        yield [task, train, way, str(len(figures)), *columns, f"{figures[0]['trained']:,}"]


_COLUMNS = (("score", 1.0, 1), ("seconds", 1.0, 0), ("processor_seconds", 1.0, 0), ("peak_bytes", 2.0**-20, 0))


def _spread(values: list[float], digits: int) -> str:
    mean = f"{statistics.mean(values):,.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):,.{digits}f}"


def main() -> None:
    """Measure, and write every figure to `figures.csv` and the table to `table.md`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--data", nargs=3, action="append", required=True, metavar=("TASK", "TRAIN", "VALIDATION"))
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS[:2]))
    asked = parser.parse_args()
    files = {
        task: prepare(task, Path(train), Path(validation), asked.samples, asked.workdir / "data" / task)
        for task, train, validation in asked.data
    }
    found: list[dict[str, Any]] = []
    for run in runs(asked.workdir, list(files), asked.seeds, asked.ways):
        found.append(measured(run, asked.model, files[run.task]))
        print(json.dumps(found[-1]), flush=True)
        _write(asked.workdir, found)
    print((asked.workdir / "table.md").read_text("utf-8"))


def _write(workdir: Path, found: list[dict[str, Any]]) -> None:
    with open(workdir / "figures.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    head = [
        "task",
        "train",
        "way",
        "seeds",
        "score",
        "seconds of training",
        "processor seconds",
        "peak MiB",
        "parameters trained",
    ]
    lines = [head, ["---"] * len(head), *rows_of(found)]
    (workdir / "table.md").write_text("".join(f"| {' | '.join(line)} |\n" for line in lines), "utf-8")


if __name__ == "__main__":
    main()
