"""The main jobs on the embedded checkpoints: inspect, patch, verify, load; then tune a bias, and score."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

import hf_bias_patch
from hf_bias_patch.assets import NAMES
from hf_bias_patch.cli import app
from hf_bias_patch.cli.console import stdout, table
from hf_bias_patch.scoring.data import load_split
from hf_bias_patch.scoring.loading import load_scorable
from hf_bias_patch.scoring.score import evaluate_model
from hf_bias_patch.scoring.tasks import load_task

OUT = Path("demo_out")


def run(command: str) -> None:
    """Run one command of hf-bias-patch as a user would type it, in this process, so that torch loads once."""
    stdout().print(f"\n[bold]$ hf-bias-patch {command}[/]")
    code = app(shlex.split(command), standalone_mode=False)
    if code:
        sys.exit(f"this command failed with exit code {code}")


def load_stock(folder: Path) -> dict[str, Any]:
    """Load a variant with stock transformers; the load report must be empty."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    model, report = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
    problems = {what: found for what, found in report.items() if found}
    if problems:
        sys.exit(f"{folder} does not load cleanly: {problems}")
    return {"class": type(model).__name__, "parameters": sum(p.numel() for p in model.parameters())}


def norms(folder: str | Path) -> dict[str, float]:
    """Summed norms of all q, k and v biases of a checkpoint."""
    found = hf_bias_patch.inspect(folder)
    totals = dict.fromkeys(("query", "key", "value"), 0.0)
    for (_, projection), values in found.values.items():
        if projection in totals:
            totals[projection] += values.norm
    return totals


def summary(names: Sequence[str] = NAMES, out: Path = OUT) -> Table:
    """What changed, a row a checkpoint."""
    columns = ("checkpoint", "loads as", "parameters", "|q|, |k|, |v| before", "after", "error", "floor")
    rows = table(*columns, title="What changed")
    for name in names:
        stock = load_stock(out / name)
        certificate = json.loads((out / name / "bias_patch" / "certificate.json").read_text())
        before, after = norms(f"embedded:{name}"), norms(out / name)
        rows.add_row(
            name,
            stock["class"],
            f"{stock['parameters']:,}",
            ", ".join(f"{value:.3g}" for value in before.values()),
            ", ".join(f"{value:.3g}" for value in after.values()),
            f"{certificate['deployed']['error']:.1e}",
            f"{certificate['deployed']['floor']:.1e}",
        )
    return rows


TASK = "embedded:letters"


def perplexity(folder: Path) -> float:
    """Of a checkpoint on letters, which are unlike all that it was trained on."""
    task = load_task(TASK)
    model, tokenizer = load_scorable(str(folder), task.kind)
    return evaluate_model(model, tokenizer, task, load_split(task, "validation")).main


def tuned() -> Table:
    """Train the value bias of GPT-2 alone, without its key and query biases; prove that, and say what it does."""
    options = "--train value --learning_rate 0.03 --num_train_epochs 1 --overwrite"
    run(f"tune lm --model embedded:gpt2 --fold key,query --task {TASK} {options} --output {OUT / 'tuned'}")
    run(f"verify {OUT / 'tuned' / 'model'}")
    results = json.loads((OUT / "tuned" / "results.json").read_text())
    rows = table("gpt2", "trained numbers", f"perplexity on {TASK}", title="What tuning the value bias does")
    rows.add_row("patched", "", f"{perplexity(OUT / 'gpt2'):,.0f}")
    share = f"{results['trained']:,} of {results['total']:,}"
    rows.add_row("and tuned", share, f"{perplexity(OUT / 'tuned' / 'model'):,.0f}")
    return rows


def main() -> None:
    """Run the demo into ./demo_out."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for name in NAMES:
        run(f"inspect embedded:{name}")
        run(f"patch embedded:{name} {OUT / name} --fold key,value,query --overwrite")
    stdout().print(summary())
    stdout().print(
        "No query, key or value bias is left, and each variant computes what its source computes:\n"
        "its error against the source in float64 is within 4 times the source's own rounding (floor)."
    )
    stdout().print(tuned())


if __name__ == "__main__":
    main()
