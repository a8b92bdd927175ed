"""Command-line options made from a settings model: one option a field, its description as help."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from typer.core import TyperCommand

from hf_bias_patch.cli.words import ANY_WORD, field_of, option_of
from hf_bias_patch.errors import ArgumentError

__all__ = ["command_of", "options_of"]


def command_of(name: str, function: Callable[..., None], kind: type[TyperCommand] = TyperCommand) -> Any:
    """A command of its own, whose options are accepted in any spelling."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(name, cls=kind, context_settings=ANY_WORD)(function)
    return typer.main.get_command(app)


def options_of(
    model: type[BaseModel], command: Callable[..., None], without: Container[str] = ()
) -> Callable[..., None]:
    """A function for typer that takes a model's fields as options, and a YAML file of them.

    Args:
        model: the settings.
        command: called with the fields that were given, as a mapping, and its own parameters, whose options come after.
        without: fields that have no option.

    Returns:
        The function. Options win over fields of the file.
    """

    def called(config: Path | None = None, **values: Any) -> None:
        from hf_bias_patch.tuning.settings import read_settings

        own = {name: values.pop(name) for name in extra}
        file = {field_of(name): value for name, value in read_settings(config).items()} if config else {}
        fields = {**file, **{name: value for name, value in values.items() if value not in (None, [], ())}}
        if missing := [
            f"--{option_of(name)}" for name in options if options[name].is_required() and name not in fields
        ]:
            are = "is" if len(missing) == 1 else "are"
            raise ArgumentError(
                f"{', '.join(missing)} {are} missing", remedy="Give it here, or in the file of --config"
            )
        command(fields, **own)

    options = {name: field for name, field in model.model_fields.items() if name not in without}
    extra = {name: parameter for name, parameter in inspect.signature(command).parameters.items() if name != "fields"}
    hints = inspect.get_annotations(command, eval_str=True)
    parameters = [_parameter(name, field) for name, field in options.items()]
    file = typer.Option("--config", help="A YAML file with any of these options; those on the command line win.")
    parameters.append(_keyword("config", Annotated[Path | None, file], None))
    parameters += [_keyword(name, hints[name], parameter.default) for name, parameter in extra.items()]
    called.__doc__ = command.__doc__
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return called


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _parameter(name: str, field: Any) -> inspect.Parameter:
    kind = _option_type(field.annotation)
    two_ways = kind is bool and field.default is not False  # what is on, or undecided, can be switched off
    default = None if field.is_required() or field.default_factory is not None else field.default
    # A default is only shown: what is not given must stay so, or it would override the file.
    shown = False if default in (None, (), False) else _shown(default)
    word = option_of(name)
    option = typer.Option(
        f"--{word}/--no-{word}" if two_ways else f"--{word}",
        help=f"{field.description}{' Required.' if field.is_required() else ''}",
        show_default=shown,
        metavar=_metavar(field.annotation),
    )
    return _keyword(name, Annotated[kind | None, option], None)


def _shown(default: Any) -> str:
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _option_type(annotation: Any) -> Any:
    """The type that typer parses. What is no plain type is left to the settings."""
    choices = [choice for choice in _alternatives(annotation) if choice is not NoneType]
    plain = choices[0] if len(choices) == 1 else str
    return plain if plain in (bool, int, float, Path) else str


def _metavar(annotation: Any) -> str | None:
    """The values of a choice, such as `no|bf16|fp16`; None of other types."""
    choices = [choice for choice in _alternatives(annotation) if choice is not NoneType]
    if not all(get_origin(choice) is Literal for choice in choices):
        return None
    return "|".join(str(value) for choice in choices for value in get_args(choice))


def _alternatives(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, UnionType):
        return [inner for part in get_args(annotation) for inner in _alternatives(part)]
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    return [annotation]
