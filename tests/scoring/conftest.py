"""The embedded checkpoints with every head, and small data sets."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from hf_bias_patch.assets import folder
from hf_bias_patch.scoring.heads import AUTO_CLASSES, HeadKind
from hf_bias_patch.scoring.tasks import Task, make_task

NAMES: dict[HeadKind, str] = {"classifier": "bert", "masked": "bert", "causal": "gpt2", "seq2seq": "bart"}


@cache
def _loaded(head: HeadKind, name: str, outputs: int) -> tuple[Any, Any]:
    import torch
    import transformers

    from hf_bias_patch.models.load import quiet

    torch.manual_seed(0)
    more = {"num_labels": outputs} if head == "classifier" else {}
    with quiet():
        model = getattr(transformers, AUTO_CLASSES[head]).from_pretrained(folder(name), **more)
        return model, transformers.AutoTokenizer.from_pretrained(folder(name))


@pytest.fixture(scope="session")
def loaded() -> Callable[..., tuple[Any, Any]]:
    """An embedded checkpoint and its tokenizer: `loaded("causal")`, `loaded("classifier", outputs=3)`."""

    def load(head: HeadKind, name: str = "", outputs: int = 2) -> tuple[Any, Any]:
        return _loaded(head, name or NAMES[head], outputs)

    return load


@pytest.fixture(scope="session")
def made() -> Callable[..., Task]:
    """A small task of a kind, with some fields of choice: `made("classification", labels=("a", "b"))`."""
    defaults: dict[str, dict[str, Any]] = {
        "classification": {"label": "label", "labels": ("no", "yes"), "metrics": ("accuracy",), "text": ("text",)},
        "regression": {"label": "label", "metrics": ("pearson",), "text": ("text",)},
        "language_modelling": {"metrics": ("perplexity",), "text": ("text",)},
        "generation": {"label": "target", "metrics": ("bleu",), "text": ("source",)},
    }

    def make(kind: str, **fields: Any) -> Task:
        values = {"name": "toy", "kind": kind, **defaults[kind], **fields}
        values.setdefault("main_metric", values["metrics"][0])
        return make_task(**values)

    return make
