"""A recipe is read in every form it may come in, and whatever is wrong with it is said, field by field."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import hf_bias_patch
from hf_bias_patch.errors import BiasPatchError, RecipeError
from hf_bias_patch.patching.fills import Fill, fields_of
from hf_bias_patch.patching.recipe import Recipe, make_recipe, read_recipe
from tests.models import fresh


@pytest.mark.parametrize(
    "form",
    [
        "key,value:output,query:norm",
        ["key", "value:output", "query:norm"],
        ["key,value:output", "query:norm"],
        ("key", " value:output ,query:norm"),
        {"key": "default", "value": "output", "query": "norm"},
        {"key": None, "value": "output", "query": "norm"},
    ],
    ids=str,
)
def test_forms_of_fold(form: Any) -> None:
    assert make_recipe(fold=form).fold == {"key": "default", "value": "output", "query": "norm"}


@pytest.mark.parametrize(
    "form",
    [
        "key=uniform:-5:5,value=0.5",
        ["key=uniform:-5:5", "value=0.5"],
        {"key": "uniform:-5:5", "value": 0.5},
        {"key": {"kind": "uniform", "first": -5, "second": 5}, "value": Fill(kind="constant", first=0.5)},
    ],
    ids=str,
)
def test_forms_of_fill(form: Any) -> None:
    fill = make_recipe(fill=form).fill
    assert fill["key"] == Fill(kind="uniform", first=-5, second=5)
    assert fill["value"] == Fill(kind="constant", first=0.5)
    assert Fill(**fields_of("normal:1:2")) == Fill(kind="normal", first=1, second=2)


@pytest.mark.parametrize(
    ("form", "layers"),
    [
        (None, None),
        (3, (3,)),
        ("3", (3,)),
        ("0-5,7", (0, 1, 2, 3, 4, 5, 7)),
        ("7,0-2,1", (0, 1, 2, 7)),
        ([2, 0, 2], (0, 2)),
        (range(3), (0, 1, 2)),
    ],
    ids=str,
)
def test_forms_of_layers(form: Any, layers: Any) -> None:
    assert make_recipe(drop="key", layers=form).layers == layers


@pytest.mark.parametrize("form", ["key,value", ["key", "value"], ("key,value",)], ids=str)
def test_forms_of_names(form: Any) -> None:
    recipe = make_recipe(drop=form, freeze=form)
    assert recipe.drop == recipe.freeze == ("key", "value")
    assert make_recipe(train=form).train == ("key", "value")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "no action"),
    ({"fold": ""}, "no action"),
    ({"fold": None, "drop": ()}, "no action"),
    ({"layers": 1, "stack": "encoder"}, "no action"),
    ({"folds": "key"}, "`folds` is not a field"),
    ({"fold": "key", "bananas": 1, "apples": 2}, "`bananas` is not a field; `apples` is not a field"),
    ({"fold": "keys"}, "fold: 'keys' is not a projection; write query, key or value"),
    ({"drop": "keys"}, "drop: 'keys' is not a projection; write query, key, value or output"),
    ({"fill": "keys=1"}, "fill: 'keys' is not a projection; write query, key, value or output"),
    ({"fold": "key:nowhere"}, "fold: key:nowhere is unsupported; write key:nothing or key:weight"),
    ({"fold": {"key": 3}}, "fold: key:3 is unsupported; write key:nothing or key:weight"),
    ({"fold": "key:norm"}, "key:norm is unsupported; write key:nothing or key:weight"),
    ({"fold": "key:output"}, "key:output is unsupported; write key:nothing or key:weight"),
    ({"fold": "value:nothing"}, "value:nothing is unsupported"),
    ({"fold": "value:norm"}, "value:norm is unsupported"),
    ({"fold": "query:output"}, "query:output is unsupported"),
    ({"fold": "key,key:weight"}, "key is given twice, as default and as weight"),
    ({"fill": ["key=1", "key=2"]}, "key is given twice, as 1 and as 2"),
    ({"fold": "output"}, "output bias cannot be folded"),
    ({"fold": "key", "drop": "key"}, "key is in both fold and drop"),
    ({"fold": "key,value", "fill": "value=0"}, "value is in both fold and fill"),
    ({"drop": "key", "fill": "key=0"}, "key is in both drop and fill"),
    ({"freeze": "key", "train": "key"}, "key is in both freeze and train"),
    ({"fill": "key"}, "has no value; write key=0"),
    ({"fill": "key=red"}, "'red' is not NUMBER, uniform:LOW:HIGH or normal:MEAN:STD"),
    ({"fill": "key=uniform:1"}, "not NUMBER, uniform"),
    ({"fill": "key=uniform:5:-5"}, "LOW must be below HIGH"),
    ({"fill": "key=uniform:-1e308:1e308"}, "HIGH is too far above LOW"),
    ({"fill": "key=normal:0:0"}, "STD must be positive"),
    ({"fill": "key=poisson:0:1"}, "'poisson:0:1' is not NUMBER, uniform"),
    ({"fill": "key=nan"}, "fill.key.first: nan is not a finite number"),
    ({"fill": "key=inf"}, "finite"),
    ({"fill": "key=uniform:0:inf"}, "finite"),
    ({"fill": {"key": None}}, "not NUMBER, uniform"),
    ({"fill": {"key": {"kind": "uniform"}}}, "fill.key: `first` is missing"),
    ({"fill": {"key": {"kind": "sine", "first": 1}}}, "fill.key.kind: 'sine' is not 'constant', 'uniform' or 'normal'"),
    ({"fill": {"key": {"kind": "uniform", "first": "a"}}}, "fill.key.first: 'a' is not a number"),
    ({"fill": {"key": {"kind": "uniform", "first": 5, "second": -5}}}, "LOW must be below HIGH"),
    ({"fold": "key", "layers": "a"}, "'a' is not a layer or range"),
    ({"fold": "key", "layers": "5-2"}, "the first layer is after the last"),
    ({"fold": "key", "layers": "-1"}, "not a layer or range"),
    ({"fold": "key", "layers": "1.5"}, "not a layer or range"),
    ({"fold": "key", "layers": 1.5}, "layers"),
    ({"fold": "key", "layers": True}, "layers"),
    ({"fold": "key", "layers": [0, "a"]}, "layers"),
    ({"fold": "key", "layers": [[0]]}, "layers"),
    ({"fold": "key", "stack": "tower"}, "stack: 'tower' is not 'encoder' or 'decoder'"),
    ({"fold": "key", "attention": "both"}, "attention"),
    ({"fold": "key", "storage": "gone"}, "storage"),
    ({"fold": "key", "max_loss": 0}, "max_loss: 0 is not above 0"),
    ({"fold": "key", "max_loss": 2}, "max_loss: 2 is above 1"),
    ({"fold": "key", "max_loss": float("nan")}, "max_loss"),
    ({"fold": "key", "max_loss": True}, "max_loss: True is not a number"),
    ({"fold": "key", "seed": "many"}, "seed: 'many' is not a whole number"),
    ({"fold": "key", "seed": -1}, "seed: -1 is below 0"),
    ({"fold": "key", "seed": True}, "seed"),
    ({"fold": "key", "seed": 1.0}, "seed"),
    ({"fold": "key", "layers": [0, True]}, "layers"),
    ({"fold": 3}, "fold"),
    ({"fold": True}, "fold"),
    ({"drop": 3}, "drop"),
    ({"fill": 3}, "fill"),
    ({"fill": "key=1", "storage": "absent"}, "storage absent needs a fold or drop"),
    ({"freeze": "key", "storage": "absent"}, "storage absent needs a fold or drop"),
]


@pytest.mark.parametrize(("fields", "says"), WRONG, ids=str)
def test_what_is_wrong_is_said(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says) as caught:
        make_recipe(**fields)
    assert "Fields: fold, drop" in str(caught.value)
    assert not re.search(r"Input should|Field required|\('|\[key\]|validation", str(caught.value)), caught.value


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("key") | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.just("key"), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*Recipe.model_fields, "other"]), anything, max_size=4))
def test_nonsense_never_escapes_as_another_error(fields: dict[str, Any]) -> None:
    try:
        recipe = make_recipe(**fields)
    except RecipeError:
        return
    assert make_recipe(**recipe.plain()) == recipe


@pytest.mark.parametrize(
    "fields",
    [
        {"fold": "key,value:weight", "layers": "0-2", "storage": "absent"},
        {"fill": "key=uniform:-5:5", "seed": 3, "stack": "decoder"},
        {"drop": "query", "freeze": "value", "train": "output", "attention": "cross", "max_loss": 0.5},
    ],
    ids=str,
)
def test_plain_values_are_json_and_give_the_recipe_back(fields: dict[str, Any]) -> None:
    recipe = make_recipe(**fields)
    plain = json.loads(json.dumps(recipe.plain()))
    assert make_recipe(**plain) == recipe
    assert not {"seed", "max_loss", "storage"} & set(make_recipe(fold="key").plain()), "defaults are left out"


def test_a_yaml_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("fold: [key, 'value:weight']\nlayers: 0-1\nattention: self\nfill: {output: 'normal:0:1'}\n")
    wanted = make_recipe(fold="key,value:weight", layers="0,1", attention="self", fill="output=normal:0:1")
    assert read_recipe(path) == wanted
    path.write_text(json.dumps(wanted.plain()))
    assert read_recipe(str(path)) == wanted
    path.write_text(yaml.safe_dump(wanted.plain()))
    assert read_recipe(path) == wanted


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a mapping"),
        ("- fold", "not a mapping"),
        ("fold: [", "cannot be read"),
        ("fold: key\n3: 4", "`3` is not a field"),
        ("folds: key", "`folds` is not a field"),
        ("fold: !!python/object/apply:os.system ['true']", "cannot be read"),
        ("fold: key\nlayers: 1.5", "layers"),
        ("fill: key=uniform:-5:5\nseed: yes", "seed"),
        ("fill: key=uniform:-5:5\nseed: -1", "seed"),
        ("fold: 3", "fold"),
        ("fold: {key: [1]}", r"fold: key:\[1\] is unsupported"),
        ("fold: key\nfold: value", "fold occurs twice"),
        ("fold: {key: nothing, key: weight}", "key occurs twice"),
        ('{"fold": "key", "layers": 0, "layers": 1}', "layers occurs twice"),
        ("fold: key\nlayers: 2001-99-99", "cannot be read"),
        ("[" * 5000, "cannot be read"),
    ],
)
def test_a_yaml_file_that_is_none(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=says):
        read_recipe(path)


def test_a_merge_key_may_be_overridden(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("fold: {<<: {key: nothing, value: output}, key: weight}")
    assert read_recipe(path) == make_recipe(fold="key:weight,value:output")


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.yaml cannot be read"):
        read_recipe(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"fold: \xff\xfe")
    with pytest.raises(RecipeError, match="cannot be read"):
        read_recipe(tmp_path / "latin.yaml")
    with pytest.raises(BiasPatchError):
        read_recipe(tmp_path)


def test_recipes_do_not_change() -> None:
    recipe = make_recipe(fold="key")
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize("call", ["plan", "patch", "patch_in_place", "apply"])
def test_a_recipe_and_keywords_beside_it_are_refused(call: str, tmp_path: Path) -> None:
    """Silently ignoring one of the two would patch what nobody asked for."""
    model = fresh("bert") if call == "apply" else "embedded:bert"
    places = (tmp_path / "out",) if call == "patch" else ()
    with pytest.raises(RecipeError, match="A recipe was given, and drop too"):
        getattr(hf_bias_patch, call)(model, *places, make_recipe(fold="key"), drop="value")
    assert not any(tmp_path.iterdir())


def test_a_plan_and_keywords_beside_it_are_refused() -> None:
    model = fresh("bert")
    plan = hf_bias_patch.apply(model, fold="key").plan
    with pytest.raises(RecipeError, match="A plan was given, and drop too"):
        hf_bias_patch.apply(model, plan, drop="value")
