"""One fine-tuning run as transformers' run_glue.py does it, for bench_run_glue.py: a process, a result.

    python scripts/run_glue_trainer.py SETTINGS.json

The steps are those of examples/pytorch/text-classification/run_glue.py on json files: `load_dataset`, the tokenizer by
batches with truncation, no padding before a batch is made, `Trainer` with its defaults, the score of the last state.
LoRA is peft's documented way around the same model; its `SEQ_CLS` trains the classifier too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from hf_bias_patch.tuning.adapters import RANK


def data(asked: dict[str, Any], tokenizer: Any) -> Any:
    """Both splits as token ids and labels."""
    from datasets import load_dataset

    raw = load_dataset("json", data_files={split: asked[split] for split in ("train", "validation")})
    columns = [name for name in ("sentence", "sentence1", "sentence2") if name in raw["train"].column_names]

    def tokenised(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return tokenizer(*(rows[name] for name in columns), max_length=asked["max_length"], truncation=True)

    return raw.map(tokenised, batched=True, remove_columns=columns)


def with_lora(model: Any) -> Any:
    """A LoRA of the rank and on the maps that `tune --train lora` has."""
    import peft

    config = peft.LoraConfig(
        task_type=peft.TaskType.SEQ_CLS,
        r=RANK,
        lora_alpha=2 * RANK,
        lora_dropout=0.0,
        target_modules=["query", "value"],
    )
    return peft.get_peft_model(model, config)


def scores(regression: bool) -> Any:
    """What run_glue.py's `compute_metrics` computes: accuracy, or the mean of Pearson's and Spearman's correlation."""
    import numpy as np
    from scipy.stats import pearsonr, spearmanr

    def of(predicted: Any) -> dict[str, float]:
        logits, labels = predicted.predictions, predicted.label_ids
        if not regression:
            return {"score": float((np.argmax(logits, axis=1) == labels).mean())}
        told = np.squeeze(logits)
        return {"score": float(np.mean([pearsonr(told, labels)[0], spearmanr(told, labels)[0]]))}

    return of


def train(asked: dict[str, Any]) -> dict[str, float]:
    """Train, score the last state, save: as run_glue.py does, in this order."""
    import torch
    import transformers

    transformers.set_seed(asked["seed"])
    regression = asked["labels"] == 1
    tokenizer = transformers.AutoTokenizer.from_pretrained(asked["model"])
    model: Any = transformers.AutoModelForSequenceClassification.from_pretrained(
        asked["model"], num_labels=asked["labels"]
    )
    splits = data(asked, tokenizer)
    if asked["train_what"] == "lora":
        model = with_lora(model)
    trainer = transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(
            output_dir=asked["output_dir"],
            seed=asked["seed"],
            learning_rate=asked["learning_rate"],
            num_train_epochs=asked["epochs"],
            per_device_train_batch_size=asked["batch"],
            use_cpu=not torch.cuda.is_available(),
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        compute_metrics=scores(regression),
        processing_class=tokenizer,
    )
    seconds = trainer.train().metrics["train_runtime"]
    trainer.save_model()
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    score = trainer.evaluate()["eval_score"]
    return {"score": 100 * score, "seconds": seconds, "trained": trained}


def main() -> None:
    """Run what the settings file asks for; the result is written beside its model."""
    asked = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    result = train(asked)
    Path(asked["output_dir"], "result.json").write_text(json.dumps(result, indent=2), "utf-8")


if __name__ == "__main__":
    main()
