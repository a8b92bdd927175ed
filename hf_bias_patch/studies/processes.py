"""Processes that share a study, started by `accelerate launch`; one, where there is no other."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from hf_bias_patch.scoring.extra import need

__all__ = ["Processes"]


class Processes:
    """This process among the others. Every method but the properties is called by all of them."""

    def __init__(self, device: str) -> None:
        # One may train for hours while another waits for it.
        self._state = need("accelerate").PartialState(cpu=device == "cpu", timeout=timedelta(days=7))

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return bool(self._state.is_main_process)

    @property
    def size(self) -> int:
        """How many processes there are."""
        return int(self._state.num_processes)

    def device(self, asked: str) -> str:
        """A device of this process's own, where several share GPUs."""
        return str(self._state.device) if self.size > 1 else asked

    def wait(self) -> None:
        """For all the others."""
        self._state.wait_for_everyone()

    def mine(self, items: Sequence[Any]) -> Sequence[Any]:
        """This process's share: every n-th."""
        return items[self._state.process_index :: self.size]

    def all(self, items: Sequence[Any]) -> list[Any]:
        """What all processes made of their shares, in the order of the whole."""
        if self.size == 1:
            return list(items)
        from accelerate.utils import gather_object

        shares = gather_object([list(items)])
        return [share[at] for at in range(max(map(len, shares))) for share in shares if at < len(share)]

    def agreed(self, value: Any) -> Any:
        """What the leading process says."""
        if self.size == 1:
            return value
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]
