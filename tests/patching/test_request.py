"""What a caller may hand in: recipes, plans of this very checkpoint, and nothing else in their place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import hf_bias_patch as hbp
from hf_bias_patch.errors import ArgumentError, PlanError, RecipeError
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.recipe import make_recipe
from tests.models import fresh

Saved = Callable[..., Path]
Tree = Callable[[Path], dict[str, str]]
FOLDS = {"fold": "key,value,query", "layers": "1-2"}


def bits(model: torch.nn.Module) -> dict[str, bytes]:
    """Bytes of every parameter."""
    values = model.named_parameters(remove_duplicate=False)
    return {name: value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes() for name, value in values}


class TestPlans:
    """A plan is executed where it was made for, and refused elsewhere."""

    def test_a_plan_gives_what_its_recipe_gives(self, saved: Saved, tmp_path: Path, tree: Tree) -> None:
        made = Plan.loads(hbp.plan(saved("bert"), **FOLDS).dumps())
        assert hbp.plan(saved("bert"), made) == made
        assert hbp.patch(saved("bert"), tmp_path / "one", made).plan == made
        hbp.patch(saved("bert"), tmp_path / "two", **FOLDS)
        assert tree(tmp_path / "one") == tree(tmp_path / "two")
        hbp.revert(tmp_path / "one")
        hbp.patch_in_place(tmp_path / "one", made)
        assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "two/model.safetensors").read_bytes()

    def test_a_plan_of_a_file_is_one_of_the_model_in_it(self, saved: Saved) -> None:
        made = hbp.plan(saved("bert"), **FOLDS)
        model, other = fresh("bert", dtype=torch.float32), fresh("bert", dtype=torch.float32)
        assert hbp.apply(model, made).plan.touched == made.touched
        hbp.apply(other, **FOLDS)
        assert bits(model) == bits(other)

    @pytest.mark.parametrize(
        ("name", "dtype", "fields", "says"),
        [
            ("gpt2", "F32", {"fold": "key"}, "There is no tensor bert.encoder"),
            ("distilbert", "F32", FOLDS, "There is no tensor bert.encoder"),
            ("bert", "F64", {"fold": "key"}, "has 256 bytes here, and the plan is for one of 128"),
            ("bert-cross", "F32", {"fold": "key"}, "It says fold key:nothing at encoder.0.self"),
            ("bart", "F32", {"fold": "key", "layers": 2, "stack": "encoder"}, "There is no layer 2"),
        ],
        ids=str,
    )
    def test_elsewhere_it_is_refused(
        self, saved: Saved, tmp_path: Path, tree: Tree, name: str, dtype: str, fields: dict[str, Any], says: str
    ) -> None:
        made = hbp.plan(saved("bert"), **fields)
        model = fresh(name, dtype={"F32": torch.float32, "F64": torch.float64}[dtype])
        source, before = saved(name, dtype), bits(model)
        for attempt in (
            lambda: hbp.apply(model, made),
            lambda: hbp.plan(source, made),
            lambda: hbp.patch(source, tmp_path / "out", made),
            lambda: hbp.patch_in_place(source, made),
        ):
            with pytest.raises(PlanError, match="The plan was made for another checkpoint") as caught:
                attempt()
            assert says in str(caught.value)
        assert bits(model) == before and not any(tmp_path.iterdir())

    def test_a_bias_that_was_zero_and_is_not_makes_it_another(self, saved: Saved) -> None:
        """The plan would leave that one as it is."""
        model = fresh("bert")
        with torch.no_grad():
            model.bert.encoder.layer[1].attention.self.key.bias.zero_()
        made = hbp.apply(model, fold="key").plan
        with pytest.raises(PlanError, match=r"It says fold key:nothing at encoder\.1\.self"):
            hbp.apply(fresh("bert"), made)

    def test_an_edited_plan_is_refused(self, saved: Saved) -> None:
        made = hbp.plan(saved("bert"), fold="key,value")
        for changes in ({"edits": made.edits[1:]}, {"edits": made.edits[:-1]}, {"touched": {}}, {"lossy": True}):
            with pytest.raises(PlanError, match="made for another checkpoint"):
                hbp.plan(saved("bert"), made.model_copy(update=changes))

    @pytest.mark.parametrize("call", ["plan", "patch", "patch_in_place"])
    def test_keywords_beside_it_are_refused(self, saved: Saved, tmp_path: Path, call: str) -> None:
        made = hbp.plan(saved("bert"), fold="key")
        places = (tmp_path / "out",) if call == "patch" else ()
        with pytest.raises(RecipeError, match="A plan was given, and drop too"):
            getattr(hbp, call)(saved("bert"), *places, made, drop="value")


class TestOtherThings:
    """Things of another kind than a function takes."""

    @pytest.mark.parametrize("recipe", ["fold", {"fold": "key"}, 3, ["key"]], ids=str)
    @pytest.mark.parametrize("call", ["plan", "patch", "patch_in_place", "apply"])
    def test_no_recipe(self, saved: Saved, tmp_path: Path, call: str, recipe: Any) -> None:
        model = fresh("bert") if call == "apply" else saved("bert")
        places = (tmp_path / "out",) if call == "patch" else ()
        with pytest.raises(ArgumentError, match=r"A recipe was expected, and a \w+ was given.*keywords") as caught:
            getattr(hbp, call)(model, *places, recipe)
        assert isinstance(caught.value, TypeError)

    @pytest.mark.parametrize("model", ["bert", "embedded:bert", Path("."), None, torch.nn.Linear(2, 2)], ids=str)
    def test_apply_to_no_model(self, model: Any) -> None:
        with pytest.raises(ArgumentError, match=r"`apply` takes a transformers model, and was given a .*`patch`"):
            hbp.apply(model, fold="key")

    def test_a_model_where_a_path_is_expected(self, tmp_path: Path) -> None:
        model: Any = fresh("bert")
        for attempt in (
            lambda: hbp.inspect(model),
            lambda: hbp.plan(model),
            lambda: hbp.plan(model, fold="key"),
            lambda: hbp.patch(model, tmp_path / "out", fold="key"),
            lambda: hbp.patch("embedded:bert", model, fold="key"),
            lambda: hbp.patch_in_place(model, fold="key"),
            lambda: hbp.verify(model, "embedded:bert"),
            lambda: hbp.load(model),
            lambda: hbp.revert(model),
        ):
            with pytest.raises(ArgumentError, match=r"a BertForMaskedLM was given.*use `apply`"):
                attempt()

    def test_a_recipe_in_the_place_of_out(self) -> None:
        with pytest.raises(ArgumentError, match="A path or Hub id was expected, and a Recipe was given"):
            hbp.patch("embedded:bert", make_recipe(fold="key"))  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match="a bytes was given"):
            hbp.inspect(b"embedded:bert")  # type: ignore[arg-type]

    def test_storage_absent_in_memory(self) -> None:
        """The parameters could not be put back as they were, and ignoring the wish would be worse."""
        model = fresh("bert")
        before = bits(model)
        for fields in ({"fold": "key", "storage": "absent"}, {"drop": "key", "storage": "absent"}):
            for given in ((make_recipe(**fields),), ()):
                with pytest.raises(PlanError, match=r"`absent` is unsupported for a model in memory.*`patch`.*`load`"):
                    hbp.apply(model, *given, **({} if given else fields))
        assert bits(model) == before
