"""How texts are generated: by what the user asks for, else the task, else the model's own settings, else our defaults.

The model's own are in its generation_config.json, or in older models in its config.json, as transformers reads them.
Nothing is ever sampled, so that a score can be repeated.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from hf_bias_patch.errors import TaskError
from hf_bias_patch.scoring.heads import HeadKind, unwrapped
from hf_bias_patch.scoring.tasks import GenerationOptions, Task

__all__ = [
    "DEFAULTS",
    "GenerationFields",
    "ResolvedGeneration",
    "end_tokens",
    "generation_config",
    "resolve_generation",
]

DEFAULTS: dict[str, Any] = {
    "num_beams": 4,
    "max_new_tokens": 64,
    "min_new_tokens": 0,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "early_stopping": True,
}
"""Where nobody says otherwise. Those of transformers are 1 beam, 20 tokens, and no early stopping."""

_SOURCES = ("asked for", "the task", "the model", "default")

_KEPT = (
    "repetition_penalty",
    "encoder_repetition_penalty",
    "encoder_no_repeat_ngram_size",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "bad_words_ids",
    "suppress_tokens",
    "begin_suppress_tokens",
    "exponential_decay_length_penalty",
    "sequence_bias",
    "stop_strings",
)
"""Settings of the model's own that change what it generates, and that are kept."""

_NEUTRAL: dict[str, Any] = {
    "do_sample": False,
    "num_return_sequences": 1,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "penalty_alpha": 0.0,
    "return_dict_in_generate": False,
}
"""Settings for other ways to search or for several answers; never the model's: a score is of one beam search."""

_OF_BEAMS = ("length_penalty", "early_stopping")


def _word(value: Any) -> Any:
    """A truth value of YAML or Python as the word that the command line has."""
    return str(value).lower() if isinstance(value, bool) else value


class GenerationFields(GenerationOptions):
    """The settings of generation among those of a command, where `early_stopping` is a word."""

    model_config = ConfigDict(strict=False)

    early_stopping: Annotated[Literal["true", "false", "never"], BeforeValidator(_word)] | None = Field(  # type: ignore[assignment]
        None, description=GenerationOptions.model_fields["early_stopping"].description
    )

    @property
    def decode(self) -> GenerationOptions:
        """What replaces the task's settings and the model's own."""
        given = {name: getattr(self, name) for name in GenerationOptions.model_fields}
        word = self.early_stopping
        return GenerationOptions(**given | {"early_stopping": {"true": True, "false": False}.get(word or "", word)})


@dataclass(frozen=True)
class ResolvedGeneration:
    """Settings of generation, each with a value.

    Attributes:
        settings: name → value, for all of `DEFAULTS`.
        kept: others of the model's own settings, which apply too.
        notes: where they came from, and which were changed to be possible.
    """

    settings: Mapping[str, Any]
    kept: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def max_new_tokens(self) -> int:
        """The most tokens of an answer."""
        return int(self.settings["max_new_tokens"])

    def plain(self) -> dict[str, Any]:
        """What is used, as JSON values; with one beam, without what only weighs beams."""
        return {**_used(self.settings), **copy.deepcopy(dict(self.kept))}


def resolve_generation(
    model: Any, task: Task, requested: GenerationOptions | None, head: HeadKind
) -> ResolvedGeneration:
    """Decide the settings of generation.

    Args:
        model: of transformers, with or without wrappers.
        task: generation.
        requested: what the user asks for; the rest is None.
        head: `seq2seq` or `causal`.

    Raises:
        TaskError: min_new_tokens is above max_new_tokens, and takes precedence.
    """
    inner = unwrapped(model)
    own = inner.generation_config
    layers = [_given(requested), _given(task.decode), _own(own, head), DEFAULTS]
    chosen = {name: next(at for at, layer in enumerate(layers) if name in layer) for name in DEFAULTS}
    settings = {name: layers[at][name] for name, at in chosen.items()}
    notes = [f"Generation settings: {_told(settings, chosen)}."]
    notes += _fit_positions(settings, inner.config, head)
    notes += _agree(settings, chosen)
    kept = {name: value for name in _KEPT if (value := getattr(own, name, None)) is not None}
    if kept:
        notes.append(f"Other settings are the model's own: {', '.join(kept)}.")
    return ResolvedGeneration(settings, kept, tuple(notes))


def _given(decode: GenerationOptions | None) -> dict[str, Any]:
    return {} if decode is None else decode.model_dump(exclude_none=True)


def _own(config: Any, head: HeadKind) -> dict[str, Any]:
    """What a generation config has. Its whole lengths count a decoder's first token, or all of a prompt."""
    found = {name: getattr(config, name, None) for name in DEFAULTS}
    if head == "seq2seq":
        for name, whole in (("max_new_tokens", "max_length"), ("min_new_tokens", "min_length")):
            length = getattr(config, whole, None)
            if found[name] is None and length is not None:
                found[name] = max(length - 1, 0)
    if not found["max_new_tokens"]:
        found["max_new_tokens"] = None
    return {name: value for name, value in found.items() if value is not None}


def _told(settings: Mapping[str, Any], chosen: Mapping[str, int]) -> str:
    """Each setting that applies, by where it came from."""
    used = _used(settings)
    parts = []
    for at, source in enumerate(_SOURCES):
        if here := [f"{name} {used[name]}" for name in used if chosen[name] == at]:
            parts.append(f"{', '.join(here)} ({source})")
    return "; ".join(parts)


def _used(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if settings["num_beams"] > 1 or name not in _OF_BEAMS}


def _fit_positions(settings: dict[str, Any], config: Any, head: HeadKind) -> list[str]:
    """Cut answers to the positions that a decoder has.

    A decoder-only model's answers are left out of the room for its input (`encode`); of an encoder-decoder they have
    positions of their own, if it has a limited number at all.
    """
    places, longest = getattr(config, "max_position_embeddings", None), settings["max_new_tokens"]
    if head != "seq2seq" or not isinstance(places, int) or longest <= places:
        return []
    settings["max_new_tokens"] = places
    settings["min_new_tokens"] = min(settings["min_new_tokens"], places)
    return [f"Answers end at {places} tokens, not {longest}: the decoder has no more positions."]


def _agree(settings: dict[str, Any], chosen: Mapping[str, int]) -> list[str]:
    """Lower min_new_tokens to max_new_tokens, where the latter comes from a source with precedence."""
    least, most = settings["min_new_tokens"], settings["max_new_tokens"]
    if least <= most:
        return []
    if chosen["min_new_tokens"] <= chosen["max_new_tokens"]:
        raise TaskError(
            f"min_new_tokens {least} ({_SOURCES[chosen['min_new_tokens']]}) is above max_new_tokens {most} "
            f"({_SOURCES[chosen['max_new_tokens']]})",
            remedy="Give --max-new-tokens too",
        )
    settings["min_new_tokens"] = most
    return [f"min_new_tokens is {most}, not {least}: no answer is longer."]


def generation_config(model: Any, tokenizer: Any, decoding: ResolvedGeneration, pad: int) -> Any:
    """The model's own generation config (its special tokens, say), with the decided settings in their places.

    Args:
        model: of transformers, without wrappers.
        tokenizer: of the model.
        decoding: what was decided.
        pad: number of the padding token.
    """
    config = copy.deepcopy(model.generation_config)
    beams = decoding.settings["num_beams"] > 1
    settings = dict(decoding.settings) | ({} if beams else {"length_penalty": 1.0, "early_stopping": False})
    config.update(**settings, **_NEUTRAL, max_length=None, min_length=None, pad_token_id=pad)
    config.eos_token_id = end_tokens(model, tokenizer)
    if model.config.is_encoder_decoder and config.decoder_start_token_id is None:
        # The first token of targets in training; transformers would start answers with another one.
        config.decoder_start_token_id = model.config.decoder_start_token_id
    return config


def end_tokens(model: Any, tokenizer: Any) -> int | list[int] | None:
    """The tokens that end an answer: those that the model names, and the one that its tokenizer ends texts with.

    A model that was tuned with a tokenizer's end token says that one, whatever its generation config names.
    """
    named = model.generation_config.eos_token_id
    found = [named] if isinstance(named, int) else list(named or ())
    own = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    if own is not None and own not in found:
        found.append(own)
    return found if len(found) > 1 else found[0] if found else None
