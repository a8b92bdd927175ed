"""The loop on tiny models: what moves, what does not, how it ends. Stopped runs are in test_resume.py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_bias_patch.errors import TargetError, TaskError, TuneError
from tests.tuning.jobs import Losses, RandomJob, classifier, made_loop, settings_for, trained, values


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_only_what_was_named_moves(tmp_path: Path, name: str) -> None:
    model = classifier(name)
    before = values(model)
    loop = made_loop(model, settings_for(tmp_path / "run", weight_decay=0.5), head=False)
    loop.run()
    live = {tensor.live for tensor in loop.selection.trained}
    after = values(model)
    assert live and all(not torch.equal(before.get(name, after[name] + 1), after[name]) for name in live)
    assert all(torch.equal(before[name], after[name]) for name in before.keys() - live if name in after)


def test_samples_a_second_are_those_of_the_time_they_took(tmp_path: Path) -> None:
    trained(classifier(), settings_for(tmp_path / "run"))
    speeds = [line["samples_per_second"] for line in lines(tmp_path / "run") if "loss" in line]
    assert len(speeds) == 12 and max(speeds) < 1e6  # the first step's took no time at all


def test_it_learns(tmp_path: Path) -> None:
    heard = Losses()
    settings = settings_for(tmp_path / "run", train="all", num_train_epochs=15)
    outcome = trained(classifier(), settings, watcher=heard)
    assert outcome.ended == "done" and outcome.progress.samples == 15 * 21
    assert sum(heard.losses[-6:]) < 0.5 * sum(heard.losses[:6])
    assert outcome.metrics["accuracy"] > 0.9


@pytest.mark.parametrize(("batch", "accumulation"), [(4, 2), (2, 4), (1, 8)])
def test_accumulation_is_a_larger_batch(tmp_path: Path, batch: int, accumulation: int) -> None:
    """The last step of an epoch has 5 samples, which no number of micro-batches divides."""

    def end(folder: str, size: int, parts: int) -> dict[str, torch.Tensor]:
        model = classifier().double()
        settings = settings_for(tmp_path / folder, per_device_train_batch_size=size, gradient_accumulation_steps=parts)
        trained(model, settings)
        return values(model)

    one, several = end("one", 8, 1), end("several", batch, accumulation)
    for name in one:
        torch.testing.assert_close(one[name], several[name], rtol=0, atol=1e-9)


def test_no_gradient_below_the_lowest_trained_parameter(tmp_path: Path) -> None:
    model = classifier()
    loop = made_loop(model, settings_for(tmp_path / "run"), head=True)
    for name, parameter in model.named_parameters():
        if "layer.0." in name or "layer.1." in name:
            parameter.requires_grad_(False)
    differentiable = []
    for layer in model.bert.encoder.layer:
        layer.register_forward_hook(lambda _, __, output: differentiable.append(output.requires_grad))
    loop.job.loss(model, loop.job.batch([0, 1, 2], ())).backward()
    assert differentiable == [False, False, True]
    trains = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    assert trains == [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def test_optimiser_state_covers_only_what_trains(tmp_path: Path) -> None:
    loop = made_loop(classifier("gpt2"), settings_for(tmp_path / "run"), head=False)
    loop.run()
    state = loop.optimiser.state_dict()["state"]
    assert sum(entry["exp_avg"].numel() for entry in state.values()) == loop.selection.elements == 3 * 32


def test_another_run_is_not_touched(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "run", num_train_epochs=1)
    trained(classifier(), settings)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(TargetError, match="--resume"):
        trained(classifier(), settings)
    with pytest.raises(TargetError, match=r"learning_rate was 0\.01, now 0\.02"):
        trained(classifier(), settings_for(tmp_path / "run", num_train_epochs=1, learning_rate=0.02, resume=True))
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    trained(classifier(), settings_for(tmp_path / "run", num_train_epochs=1, learning_rate=0.02, overwrite=True))


def test_a_folder_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    with pytest.raises(TargetError, match="is not a run folder"):
        trained(classifier(), settings_for(tmp_path / "run", overwrite=True))
    assert (tmp_path / "run" / "thesis.tex").read_text() == "years of work"


class _Breaking(RandomJob):
    """Its loss is NaN from some step on."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def loss(self, model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        self.left -= 1
        return super().loss(model, batch) * (float("nan") if self.left < 0 else 1.0)


def test_nan_stops_and_keeps_the_last_state(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "run", save_steps=3, num_train_epochs=3)
    model = classifier()
    with pytest.raises(TuneError, match=r"loss is nan at step 8 of 18.*state"):
        trained(model, settings, job=_Breaking(7))
    assert all(value.isfinite().all() for value in values(model).values())
    progress = json.loads((tmp_path / "run" / "state" / "progress.json").read_text())
    assert progress["step"] == 6
    resumed = trained(classifier(), settings.model_copy(update={"resume": True}))
    assert resumed.progress.step == 18


def test_nan_in_an_evaluation_names_the_step_and_keeps_the_last_state(tmp_path: Path) -> None:
    class Breaking(RandomJob):
        def evaluate(self, model: Any) -> Mapping[str, float]:
            if self.scores:
                raise TaskError("The model gives out NaN on toy")
            return super().evaluate(model)

    with pytest.raises(
        TuneError, match=r"evaluation at step 12 of 18 failed.*NaN on toy.*The state saved before it is in"
    ):
        trained(classifier(), settings_for(tmp_path / "run", num_train_epochs=3), job=Breaking())
    assert json.loads((tmp_path / "run" / "state" / "progress.json").read_text())["step"] == 6


class _Scripted(RandomJob):
    """Evaluates to given numbers."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.script = iter(scores)

    def evaluate(self, model: Any) -> dict[str, float]:
        return {"accuracy": next(self.script)}


def test_early_stopping_and_the_best_state(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "run", eval_steps=2, early_stopping_patience=2, num_train_epochs=9)
    model = classifier()
    loop = made_loop(model, settings, job=_Scripted([0.5, 0.7, 0.6, 0.65, 0.9]))
    seen = {}
    evaluate = loop.job.evaluate
    loop.job.evaluate = lambda model: seen.setdefault(loop.progress.step, values(model)) and evaluate(model)  # type: ignore[method-assign]
    outcome = loop.run()
    assert (outcome.ended, outcome.progress.step, outcome.progress.best_step) == ("early", 8, 4)
    assert outcome.metrics == {"accuracy": 0.7}
    at_best, at_end = seen[4], seen[8]
    now = values(model)
    assert all(torch.equal(now[name], at_best[name]) for name in now)
    assert any(not torch.equal(at_best[name], at_end[name]) for name in now), "vacuous"


def test_compiled_the_best_state_is_kept_all_the_same(tmp_path: Path) -> None:
    """A compiled model's tensors have longer names."""
    from safetensors.torch import load_file

    model = classifier()
    settings = settings_for(tmp_path / "run", eval_steps=2, max_train_steps=4)
    loop = made_loop(model, settings, job=_Scripted([0.7, 0.6]), compiler="eager")
    loop.run()
    best = load_file(tmp_path / "run" / "best-00000002.safetensors")
    assert set(best) == {tensor.live for tensor in loop.selection.trained}
    now = values(model)
    assert all(torch.equal(now[name], best[name]) for name in best)


def test_states_hold_only_what_trains(tmp_path: Path) -> None:
    from safetensors import safe_open

    settings = settings_for(tmp_path / "run")
    loop = made_loop(classifier(), settings)
    loop.run()
    best = f"best-{loop.progress.best_step:08}.safetensors"
    for file in ("state/model.safetensors", best):
        with safe_open(tmp_path / "run" / file, "pt") as held:
            assert set(held.keys()) == {tensor.live for tensor in loop.selection.trained}
