"""What an unknown model type looks like is told, and never taken for knowledge."""

from __future__ import annotations

import pytest

from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.suggest import alike, hint
from hf_bias_patch.errors import FamilyError
from tests.models import fresh


@pytest.mark.parametrize("name", ["bert", "gpt2", "bart"])
def test_a_structure_is_recognised_under_another_name(name: str) -> None:
    from hf_bias_patch.patching.in_memory import ModelTensors

    tensors = ModelTensors(fresh(name)).tensors
    assert name in alike(tensors)
    with pytest.raises(FamilyError, match=r"(?s)'novel'.*looks like the famil(y|ies).*proves nothing.*--probe"):
        find_sites({"model_type": "novel"}, tensors)


def test_what_is_like_nothing_known_is_not_likened() -> None:
    names = [f"blocks.{number}.mix.{kind}" for number in range(3) for kind in ("weight", "bias")]
    assert alike(names) == () and hint(names) == ""
