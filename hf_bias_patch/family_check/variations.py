"""Which single changes of a config could change what its attention does: read off the source that reads the config."""

from __future__ import annotations

import inspect
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_bias_patch.family_check.config_reads import Reads, read

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["Change", "changes_of", "pairs", "variations"]

_SKIPPED = re.compile(
    r"(?!auxiliary_loss$)(_.*|(use_mems|tie|output|return|initializer|init|problem|torch|tf|gradient|keys_to|auto|apply_spec|summary"
    r"|mamba|ssm|moe|label|freeze|classifier|ctc|loss|mask_(time|feature)|experts_impl|auxiliary|codebook)_.*"
    r"|.*_?(dropout|dropout_prob|p?drop|layerdrop|token_ids?|token_index|idx|id|loss|loss_coef|init|eps|epsilon|act|router"
    r"|activation|initializer|(mim|mlm|itm|text|image|mask|dice|class|contrastive)_weight|vocab.*|multiplier|kernels)"
    r"|use_cache|architectures|id2label|label2id|pruned_heads|dtype|model_type|transformers_version|name_or_path|is_encoder_decoder"
    r"|chunk_size_feed_forward|num_labels|attn_implementation|distribution_output|num_denoising|eval_size|norm_topk_prob"
    r"|rope_(parameters|scaling)|is_training|onnx_export|model_parallel_size|speaking_speed|num_return_sequences|num_beams)"
)
"""Keys that no attention reads, or that leave what evaluation computes as it is. An auxiliary loss does not: DETR puts
a norm between its layers for it."""
_SIZE = re.compile(
    r"(.*_)?(hidden_size|head_dim|dim_head|intermediate_size|mlp_dim|input_size|embed_dim|attention_heads|layers|d_model"
    r"|n_inner|ffn_.*|d_head|rank|output_size|projection_dim|codebook_dim|max_.*|n_group|topk_group|experts.*|patch_size)"
)
"""Numbers that say how large a thing is: without it, or with none of it, there is nothing to check."""
_KV_HEADS = re.compile(r"(num|n)_(key_value|kv)_(heads|attention_heads|groups)|n_head_kv|(.*_)?num_key_value_heads")
_COUNT, _FACTOR = 3, 2.0
"""What a count (a window, a kernel) and a factor (a cap) that are None are set to."""


@dataclass(frozen=True)
class Change:
    """One config value instead of another.

    Attributes:
        key: in the config, with dots into nested ones.
        value: a JSON value.
    """

    key: str
    value: Any

    def __str__(self) -> str:
        return f"{self.key} = {json.dumps(self.value, ensure_ascii=False)}"


def variations(config: Mapping[str, Any], source: str) -> tuple[Change, ...]:
    """The single changes of a config that its source code tells apart, in the order of the keys.

    A flag is flipped; a string becomes each other one that the source compares that key with, and a list of strings
    one with each other in front, or throughout; what is None becomes a number, a flag or a list, by its annotation; a
    number that is no size becomes None where it may be, 0 where the source asks for that, and what it is compared
    with; key-value heads become one.

    A key that the source asks a config for with `getattr`, and a value that it means if it is not there, is taken to
    have that value: checkpoints have such keys though the config's class has not.

    Args:
        config: as in config.json. Of nested tables only those without a `model_type` are read: the others have
            source code of their own.
        source: Python text of the config's class and of the model that reads it.

    Raises:
        SyntaxError: the source is no Python.
    """
    reads = read(source)
    return (*_changes(config, reads, ""), *_additions(config, reads))


def pairs(changes: Sequence[Change]) -> Iterator[tuple[Change, Change]]:
    """Every two changes of different keys of one config: a value may only matter where a flag is on."""
    for one, other in itertools.combinations(changes, 2):
        if one.key != other.key and one.key.rpartition(".")[0] == other.key.rpartition(".")[0]:
            yield one, other


def _changes(config: Mapping[str, Any], reads: Reads, path: str) -> Iterator[Change]:
    for key, value in config.items():
        if not isinstance(key, str) or _SKIPPED.fullmatch(key):
            continue
        if isinstance(value, Mapping):
            if "model_type" not in value:
                yield from _changes(value, reads, f"{path}{key}.")
        elif key in reads.names:
            yield from (Change(path + key, other) for other in _others(key, value, reads))


def _additions(config: Mapping[str, Any], reads: Reads) -> Iterator[Change]:
    """Keys that the config has not, with other values than those that its source takes instead."""
    for key, defaults in reads.optional.items():
        if not key or key in config or _SKIPPED.fullmatch(key):
            continue
        found = [other for default in defaults for other in _others(key, default, reads)]
        found += defaults if len(defaults) > 1 else []
        yield from (Change(key, json.loads(text)) for text in dict.fromkeys(map(json.dumps, found)))


def _others(key: str, value: Any, reads: Reads) -> list[Any]:
    """Other values of one key, each once."""
    if isinstance(value, bool):
        found: list[Any] = [not value]
    elif isinstance(value, str):
        found = sorted(reads.strings[key])
    elif value is None:
        found = _for_none(key, reads)
    elif isinstance(value, (list, tuple)):
        found = _lists(key, value, reads)
    else:
        found = _numbers(key, reads)
    distinct = {json.dumps(other): other for other in found}
    return [other for text, other in distinct.items() if text != json.dumps(value)]


def _numbers(key: str, reads: Reads) -> list[Any]:
    if _KV_HEADS.fullmatch(key):
        return [1]
    if _SIZE.fullmatch(key):
        return []
    found: list[Any] = [None] if "None" in reads.kinds[key] else []
    found += [0] if key in reads.tested else []
    return found + sorted(reads.numbers[key])


def _for_none(key: str, reads: Reads) -> list[Any]:
    """Values of a key that is None, by what its class says it may be; a factor, if that says nothing."""
    kinds = reads.kinds[key] or ({"int"} if key in reads.optional else {"float"})
    if _SIZE.fullmatch(key):
        return []
    found: list[Any] = [True] if "bool" in kinds else []
    if "float" in kinds:
        found.append(_FACTOR)
    elif "int" in kinds:
        found += sorted(reads.numbers[key]) or [_COUNT]
    if kinds & {"str", "Literal"}:
        found += sorted(reads.strings[key])
    return found + _memberships(key, reads)


def _memberships(key: str, reads: Reads) -> list[Any]:
    """Lists of what the source looks for in a key: each alone, and all."""
    members = sorted(reads.members[key])
    return [[member] for member in members] + ([members] if len(members) > 1 else [])


def _lists(key: str, value: Any, reads: Reads) -> list[Any]:
    """Lists of strings, such as the kinds of layers: as long as they are, with another kind in front or throughout."""
    if not all(isinstance(item, str) for item in value):
        return []
    found = _memberships(key, reads)
    if value:
        found += [[other, *value[1:]] for other in sorted(reads.strings[key] - set(value))]
        found += [[other] * len(value) for other in sorted(reads.strings[key])]
    return found


_IMPORT = re.compile(r"^from \.\.(\w+)\.(modeling_\w+) import", re.MULTILINE)


def changes_of(config: PreTrainedConfig) -> tuple[Change, ...]:
    """The changes of a config worth a check: its own first, then those of its towers.

    Args:
        config: of a model that transformers has; left as it is.
    """
    return tuple(_with_towers(config, ""))


def _with_towers(config: PreTrainedConfig, path: str) -> Iterator[Change]:
    values = config.to_dict()
    towers = {key: tower for key, tower in vars(config).items() if _is_config(tower)}
    own = {key: value for key, value in values.items() if key not in towers}
    for change in variations(own, _source(Path(inspect.getfile(type(config))).parent)):
        yield Change(path + change.key, change.value)
    for key, tower in towers.items():
        yield from _with_towers(tower, f"{path}{key}.")


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
