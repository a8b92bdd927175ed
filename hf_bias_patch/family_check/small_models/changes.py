"""Single changes of a type's small config, its towers' too."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_bias_patch.family_check.variations import Change, variations

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["changes_of"]

_IMPORT = re.compile(r"^from \.\.(\w+)\.(modeling_\w+) import", re.MULTILINE)


def changes_of(config: PreTrainedConfig) -> tuple[Change, ...]:
    """The changes of a config worth a check: its own first, then those of its towers.

    Args:
        config: of a model that transformers has; left as it is.
    """
    return tuple(_changes(config, ""))


def _changes(config: PreTrainedConfig, path: str) -> Iterator[Change]:
    values = config.to_dict()
    towers = {key: tower for key, tower in vars(config).items() if _is_config(tower)}
    own = {key: value for key, value in values.items() if key not in towers}
    for change in variations(own, _source(Path(inspect.getfile(type(config))).parent)):
        yield Change(path + change.key, change.value)
    for key, tower in towers.items():
        yield from _changes(tower, f"{path}{key}.")


def _is_config(value: Any) -> bool:
    from transformers import PreTrainedConfig

    return isinstance(value, PreTrainedConfig)


@lru_cache(maxsize=4)
def _source(folder: Path) -> str:
    """What configures and makes the models of a folder of transformers, with the models beside it that they use."""
    texts = [
        path.read_text("utf-8") for path in sorted((*folder.glob("configuration_*.py"), *folder.glob("modeling_*.py")))
    ]
    used = {folder.parent / name / f"{module}.py" for text in texts for name, module in _IMPORT.findall(text)}
    texts += [path.read_text("utf-8") for path in sorted(used) if path.parent.name != "auto" and path.exists()]
    # Each file's `from __future__` must come first in what is parsed as one text.
    return "\n".join(re.sub(r"^from __future__ .*$", "", text, flags=re.MULTILINE) for text in texts)
