"""Two processes score what one does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator, debug_launcher
from accelerate.state import AcceleratorState
from datasets import Dataset

from hf_bias_patch.scoring.score import ScoringOptions, evaluate_model
from hf_bias_patch.scoring.tasks import load_task

TASK = load_task("embedded:similarity")
OPTIONS = ScoringOptions(batch_tokens=90)


def score_in_one_of_two(model: Any, tokenizer: Any, dataset: Dataset, folder: str) -> None:
    """What each process runs."""
    AcceleratorState._reset_state(reset_partial_state=True)  # whatever another test has left
    accelerator = Accelerator(cpu=True)
    model = accelerator.prepare(model)
    found = evaluate_model(model, tokenizer, TASK, dataset, OPTIONS, accelerator=accelerator)
    said = [accelerator.num_processes, type(model).__name__, found.rows, found.metrics, found.predictions]
    Path(folder, f"{accelerator.process_index}.json").write_text(json.dumps(said))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_two_processes_score_what_one_does(loaded: Callable[..., tuple[Any, Any]], tmp_path: Path) -> None:
    model, tokenizer = loaded("classifier", outputs=1)
    texts = [f"Anna finds her boots {'very ' * (i % 9)}useful {i}." for i in range(23)]  # 23: the last round is ragged
    columns = {"text": texts, "text_pair": ["Tom."] * 23, "label": [float(i % 5) for i in range(23)]}
    dataset = Dataset.from_dict(columns)
    one = evaluate_model(model, tokenizer, TASK, dataset, OPTIONS)
    # Forked, so that nothing is imported again; importing takes most of the time otherwise.
    debug_launcher(score_in_one_of_two, (model, tokenizer, dataset, str(tmp_path)), num_processes=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in "01")
    assert first == second and first[:3] == [2, "DistributedDataParallel", 23]
    # Batches differ in nothing but who ran them.
    assert first[3] == pytest.approx(one.metrics, rel=1e-6)
    assert first[4] == pytest.approx(list(one.predictions), rel=1e-5)
    assert len(set(one.predictions)) > 5, "vacuous"
