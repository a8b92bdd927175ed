"""Command-line options made from a settings model: one option a field, its description as help."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

__all__ = ["ANY_DASHES", "options_of"]

ANY_DASHES: dict[str, Any] = {"token_normalize_func": lambda name: name.replace("-", "_")}
"""Context settings under which `--output-dir` is `--output_dir`: the ecosystem's scripts have underscores."""


_ALSO = {"model_name_or_path": "--model", "task_name": "--task", "output_dir": "--output"}
"""Short names beside the ecosystem's, as the other commands have them."""


def options_of(model: type[BaseModel], command: Callable[..., None]) -> Callable[..., None]:
    """A function for typer that takes a model's fields as options, and a YAML file of them.

    Args:
        model: the settings.
        command: called with the fields that were given, as keywords, and its own parameters, whose options come after.

    Returns:
        The function. Fields of the file are overridden by options.
    """

    def called(config: Path | None = None, **values: Any) -> None:
        from hf_bias_patch.tuning.settings import read_settings

        own = {name: values.pop(name) for name in extra}
        given = {name: value for name, value in values.items() if value not in (None, [], ())}
        command({**(_fields(read_settings(config)) if config else {}), **given}, **own)

    extra = {name: parameter for name, parameter in inspect.signature(command).parameters.items() if name != "fields"}
    hints = inspect.get_annotations(command, eval_str=True)
    parameters = [_parameter(name, field) for name, field in model.model_fields.items()]
    file = typer.Option("--config", help="A YAML file with any of these options; options given beside it win.")
    parameters.append(_keyword("config", Annotated[Path | None, file], None))
    parameters += [_keyword(name, hints[name], parameter.default) for name, parameter in extra.items()]
    called.__doc__ = command.__doc__
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return called


def _fields(written: Mapping[str, Any]) -> dict[str, Any]:
    """A file's fields by their own names; short names and dashes do as well, as they do among options."""
    long = {short.removeprefix("--"): name for name, short in _ALSO.items()}
    plain = {name: str(name).replace("-", "_") for name in written}
    return {long.get(plain[name], plain[name]): value for name, value in written.items()}


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _parameter(name: str, field: Any) -> inspect.Parameter:
    kind = _option_type(field.annotation)
    two_ways = kind is bool and field.default is not False  # what is on, or undecided, can be switched off
    required = field.default is PydanticUndefined and field.default_factory is None
    default = None if required or field.default_factory is not None else field.default
    # A default is only shown: what is not given must stay so, or it would override the file.
    shown = False if default in (None, (), False) else _shown(default)
    names = [f"--{name}/--no_{name}"] if two_ways else [f"--{name}", *([_ALSO[name]] if name in _ALSO else [])]
    option = typer.Option(*names, help=field.description, show_default=shown, metavar=_metavar(field.annotation))
    return _keyword(name, Annotated[kind | None, option], None)


def _shown(default: Any) -> str:
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _option_type(annotation: Any) -> Any:
    """The type that typer parses. What is no plain type is left to the settings."""
    choices = [choice for choice in _alternatives(annotation) if choice is not NoneType]
    plain = choices[0] if len(choices) == 1 else str
    return plain if plain in (bool, int, float, Path) else str


def _metavar(annotation: Any) -> str | None:
    values = [value for value in _literals(annotation)]
    return "|".join(values) if values else None


def _literals(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    if get_origin(annotation) in (tuple, dict):
        return []
    return [value for inner in get_args(annotation) for value in _literals(inner)]


def _alternatives(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, UnionType):
        return [inner for part in get_args(annotation) for inner in _alternatives(part)]
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    return [annotation]
