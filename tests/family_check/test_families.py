"""For each family, one of its model types, small and random: the table holds against the numbers, slot by slot, and
every fold that it offers, executed as a patch would, leaves the outputs as they were.

All model types: `make sweep`.
"""

from __future__ import annotations

import itertools

import pytest
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from hf_bias_patch.architecture.condition import meant
from hf_bias_patch.architecture.family import families
from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.unread_biases import unread_biases
from hf_bias_patch.family_check.added_biases import give_biases
from hf_bias_patch.family_check.one_type import check_type, config_of_type
from hf_bias_patch.family_check.small_models.config import model_types
from hf_bias_patch.family_check.small_models.model import small_model
from hf_bias_patch.models.inputs.random_inputs import sets_of
from hf_bias_patch.models.run import run_all
from hf_bias_patch.patching.in_memory import ModelTensors
from tests.family_check.unbuilt import SLOW, UNBUILT

BUILT = set(model_types()) - UNBUILT


def types_of_families() -> list[str]:
    """The first type of each family that can be built small."""
    own = (family for family in families() if family.attention)
    firsts = (next((name for name in family.model_types if name in BUILT), "") for family in own)
    return sorted({name for name in firsts if name} - SLOW)


@pytest.mark.parametrize("model_type", types_of_families())
def test_the_table_holds(model_type: str) -> None:
    checked = check_type(model_type)
    assert not checked.wrong, checked.wrong
    assert checked.agreed or checked.differences or checked.explained or never_biased(model_type), "vacuous"


def never_biased(model_type: str) -> bool:
    """Whether there is nothing to hold: query, key and value have no bias, and none that is given would be read."""
    model = small_model(config_of_type(model_type))
    sets, config = sets_of(model), model.config.to_dict()
    sites = find_sites(config, ModelTensors(model).tensors)
    slots = [slot for site in sites for slot in site.slots.values() if slot.projection != "output"]
    given = set(give_biases(model, lambda: run_all(model, sets)))
    unread = unread_biases(config, ModelTensors(model).tensors).keys()
    return bool(given) and given <= unread and all(slot.bias is None for slot in slots)


def test_a_type_whose_maps_never_have_a_bias_is_told_from_others() -> None:
    assert never_biased("granite_speech5_encoder") and not never_biased("bert") and not never_biased("llama")


def test_a_key_left_out_means_its_default() -> None:
    """Which entry of a family a config chooses: a file without the key must choose as one with the default would."""
    checked = 0
    for family in families():
        chosen = [entry.when for entry in family.attention]
        chosen += [norm.when for stack in family.stacks.values() for norm in stack.final_norm]
        for condition, name in itertools.product(filter(None, chosen), family.model_types):
            full = CONFIG_MAPPING[name]().to_dict()
            cut = {key: value for key, value in full.items() if key not in condition or key == "model_type"}
            assert meant(condition, full) == meant(condition, cut), (name, condition)
            checked += 1
    assert checked > 30, "vacuous"


def test_most_families_are_tested() -> None:
    assert len(types_of_families()) > 150
