"""The processes that share a study, started by `accelerate launch`; otherwise this one only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from hf_bias_patch.scoring.extra import need

__all__ = ["Processes"]


class Processes:
    """This process among the others. All processes must call each method."""

    def __init__(self, device: str) -> None:
        # One may train for hours while another waits for it.
        self._state = need("accelerate").PartialState(cpu=device == "cpu", timeout=timedelta(days=7))

    @property
    def is_main(self) -> bool:
        """Whether this is the main process, which writes and reports."""
        return bool(self._state.is_main_process)

    @property
    def size(self) -> int:
        """How many processes there are."""
        return int(self._state.num_processes)

    def device(self, wanted: str) -> str:
        """The device for this process: one of its own where several processes share GPUs."""
        return str(self._state.device) if self.size > 1 else wanted

    def wait(self) -> None:
        """Wait for all other processes."""
        self._state.wait_for_everyone()

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """This process's share: every n-th."""
        return items[self._state.process_index :: self.size]

    def gather(self, items: Sequence[Any]) -> list[Any]:
        """The results of all processes' shares, in the original order."""
        if self.size == 1:
            return list(items)
        from accelerate.utils import gather_object

        shares = gather_object([list(items)])
        return [share[at] for at in range(max(map(len, shares))) for share in shares if at < len(share)]

    def of_main(self, value: Any) -> Any:
        """The value that the main process has."""
        if self.size == 1:
            return value
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]
