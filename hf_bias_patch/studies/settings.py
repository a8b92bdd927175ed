"""The settings of a study."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from hf_bias_patch.errors import ArgumentError
from hf_bias_patch.scoring.extra import need

__all__ = ["DTYPES", "StudySettings"]

DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "float64": "F64"}

_WHICH = ("heads", "loss_bound", "budget", "tasks", "files", "fine_tune", "seeds", "task_options")
"""Settings that decide which measurements are made, and change none of them.

Files and options do change scores, of their own tasks only: each score is kept with what it depends on, and so is each
training run, which is not continued with others. So a task can be added later with its files.
"""


def _best_device() -> str:
    return "cuda" if need("torch").cuda.is_available() else "cpu"


@dataclass(frozen=True)
class StudySettings:
    """What a study measures, on which model and how.

    Attributes:
        model: a folder, `embedded:NAME` or a Hub id; with `from_scratch` only its config and tokenizer are taken.
        texts: that the model runs on; embedded ones if empty.
        count: number of embedded texts.
        heads: whether query and value biases are also tried head by head.
        dtype: of the model: a key of `DTYPES`.
        device: such as `cpu` or `cuda:1`; by default a GPU if there is one.
        seed: of random biases and of masking.
        batch_tokens: tokens in a batch.
        train_steps: of the experiments that train in memory (`lessons`, `drift`); 0 leaves them out.
        loss_bound: nats a token: how much loss a removal may cost.
        budget: seconds after which no measurement is started; None for no limit.
        tasks: names or YAML files of the tasks that a removal is scored on.
        files: local data: task → split → path.
        fine_tune: whether the model is also trained on each task after a removal.
        from_scratch: whether models are trained from random weights, each bias left out from the start.
        seeds: training runs of each kind.
        task_options: fields of every training run, such as `max_train_samples` and `num_train_epochs`.
    """

    model: str
    texts: tuple[str, ...] = ()
    count: int = 64
    heads: bool = False
    dtype: str = "float32"
    device: str = field(default_factory=_best_device)
    seed: int = 0
    batch_tokens: int = 1024
    train_steps: int = 40
    loss_bound: float = 0.01
    budget: float | None = None
    tasks: tuple[str, ...] = ()
    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    fine_tune: bool = False
    from_scratch: bool = False
    seeds: int = 3
    task_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ArgumentError(f"{self.dtype!r} is not a dtype for a study", remedy=f"Take one of {', '.join(DTYPES)}")

    def identity(self) -> dict[str, Any]:
        """The settings that every figure depends on, the texts as a hash."""
        digest = hashlib.sha256("\n".join(self.texts).encode()).hexdigest() if self.texts else "embedded"
        kept = {name: value for name, value in asdict(self).items() if name not in _WHICH}
        return {**kept, "texts": digest}
