"""What a move does to shadows: an index is no entry that moves, whatever is known of where it comes from."""

from __future__ import annotations

import torch

from hf_bias_patch.probing.shadows import replay
from hf_bias_patch.probing.tags import Tag


def test_an_index_keeps_its_values() -> None:
    table, index = torch.randn(3, 2), torch.tensor([2, 0])
    codes = torch.arange(6.0).reshape(3, 2)
    tags = {
        id(table): Tag(table, "parameter", codes, None, (), ()),
        id(index): Tag(index, "parameter", torch.tensor([20480, 20480]), None, (), ()),
    }
    moved = replay(torch.ops.aten.index_select.default, "index_select", (table, 0, index), {}, tags, "parameter")
    assert torch.equal(moved, codes[[2, 0]])
