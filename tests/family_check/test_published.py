"""Configs that published checkpoints have and the defaults of their types have not: the table holds for them too."""

from __future__ import annotations

import pytest

from hf_bias_patch.family_check.one_type import check_type
from hf_bias_patch.family_check.published import Published, published
from hf_bias_patch.family_check.small_models.config import model_types, small_config
from tests.family_check.unbuilt import SLOW

FAST = [one for one in published() if one.model_type not in SLOW | {"upernet"}]


@pytest.mark.parametrize("one", FAST, ids=lambda one: one.name)
def test_the_table_holds(one: Published) -> None:
    checked = check_type(one.model_type, changes={change.key: change.value for change in one.changes}, written=True)
    assert not checked.wrong, checked.wrong
    assert checked.agreed or checked.differences, "vacuous"


def test_many_are_published() -> None:
    assert len(published()) > 100 and len(FAST) > 80
    assert {one.model_type for one in published()} <= set(model_types())


@pytest.mark.parametrize("one", published(), ids=lambda one: one.name)
def test_it_is_no_default(one: Published) -> None:
    """A config that is a type's default is checked anyway."""
    values = {change.key: change.value for change in one.changes}
    assert small_config(one.model_type, **values).to_dict() != small_config(one.model_type).to_dict()


def test_a_config_is_found_by_its_type() -> None:
    names = [one.name for one in published("deberta-v2")]
    assert names == ["microsoft/deberta-v2-xlarge", "microsoft/deberta-v3-base"]
    assert published("no-such-type") == ()
