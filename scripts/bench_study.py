"""Time of a perturbation study of a 12-layer model, against the plain way: reload, edit and run it all, for each arm.

    python scripts/bench_study.py [--texts 64] [--threads 2] [--json FILE]

The model has BERT-base's shape, random weights and random biases; texts are random ids, as many as 20 to 100 words
make. Arms: each projection of each layer set to zero (36), and of all layers at once (3). The plain way takes texts in
batches of 32 as they come, padded to the longest, and compares with the outputs of the unchanged model, computed once.
Both take turns, with half of the arms each, for the speed of a machine drifts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import BertConfig, BertForMaskedLM

from hf_bias_patch.cli.console import stdout, table
from hf_bias_patch.studies.biases.arms import Arm, layer_arms, whole_arms
from hf_bias_patch.studies.measuring.bench import Bench
from hf_bias_patch.studies.measuring.effects import Effect, ModelOutputs, run
from hf_bias_patch.studies.measuring.inputs import TextBatch, TokenisedTexts

BAR = 1 / 3
BATCH = 32
MASK = 103


def save_model(folder: Path) -> None:
    """A BERT-base whose biases matter."""
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig())
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
        elif "attention.self" in name:
            torch.nn.init.normal_(parameter, std=0.06)
    model.save_pretrained(folder)


def make_texts(count: int) -> TokenisedTexts:
    """Random ids of 26 to 130 tokens."""
    random = torch.Generator().manual_seed(1)
    lengths = torch.randint(26, 131, (count,), generator=random).tolist()
    rows = tuple(tuple(torch.randint(1000, 30_000, (length,), generator=random).tolist()) for length in lengths)
    return TokenisedTexts(rows, 0, 512, "masked", 0, MASK, None, 0)


def plain_batches(inputs: TokenisedTexts) -> list[TextBatch]:
    """In the order in which they come."""
    count = len(inputs.rows)
    return [inputs.batch(range(at, min(at + BATCH, count)), "cpu") for at in range(0, count, BATCH)]


def plainly(
    folder: Path, arm: Arm, batches: list[TextBatch], base: list[ModelOutputs], names: dict[Any, str]
) -> Effect:
    """Reload, edit, run."""
    model = BertForMaskedLM.from_pretrained(folder).eval()
    parameters = dict(model.named_parameters())
    for target in arm.targets:
        parameters[names[target]].data.zero_()
    effect = Effect()
    for batch, before in zip(batches, base, strict=True):
        effect.add(before, run(model, batch))
    return effect


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as place:
        save_model(Path(place))
        found = measure(Path(place), make_texts(asked.texts))
    report(found)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2))


def measure(folder: Path, inputs: TokenisedTexts) -> dict[str, Any]:
    """Both ways over all arms; seconds of each, and how far their figures are apart."""
    bench = Bench(BertForMaskedLM.from_pretrained(folder).eval(), inputs)
    sites = list(bench.biases.sites.values())
    names = {target: sites_bias(bench, target) for arm in layer_arms(sites) for target in arm.targets}
    arms = [*layer_arms(sites), *whole_arms(sites, ["zeros"])]
    batches = plain_batches(inputs)
    start = time.perf_counter()
    base = [run(bench.model, batch) for batch in batches]
    plain, ours, apart = time.perf_counter() - start, 0.0, 0.0
    for group in (arms[::2], arms[1::2]):  # each has arms of all layers
        start = time.perf_counter()
        theirs = [plainly(folder, arm, batches, base, names).figures() for arm in group]
        plain += time.perf_counter() - start
        start = time.perf_counter()
        mine = bench.measure(group)
        ours += time.perf_counter() - start
        for one, two in zip(mine, theirs, strict=True):
            apart = max(apart, abs(one["relative"] - two["relative"]), abs(one["loss_change"] - two["loss_change"]))
        stdout().print(f"{len(group)} arms: {plain:.0f} s plain, {ours:.0f} s study, so far")
    return {"arms": len(arms), "plain": plain, "study": ours, "largest_difference": apart, "texts": len(inputs.rows)}


def sites_bias(bench: Bench, target: Any) -> str:
    """Name of a target's parameter."""
    return str(bench.biases.sites[target.site].slots[target.projection].bias)


def report(found: dict[str, Any]) -> None:
    """Seconds, the ratio, and whether the bar is met."""
    made: Any = table("way", "seconds", "ratio", numbers=("seconds", "ratio"))
    made.title = f"{found['arms']} arms, {found['texts']} texts"
    made.add_row("reload, edit, run all", f"{found['plain']:.1f}", "1.00")
    made.add_row("study", f"{found['study']:.1f}", f"{found['study'] / found['plain']:.2f}")
    stdout().print(made)
    met = "met" if found["study"] <= BAR * found["plain"] else "missed"
    stdout().print(f"Bar of a third: {met}. Largest difference of a figure: {found['largest_difference']:.1e}.")


if __name__ == "__main__":
    main()
