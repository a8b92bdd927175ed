"""What the user asks for: selectors and actions, from flags, YAML or Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    ValidationError,
    model_validator,
)

from hf_bias_patch.architecture.sites import Projection, Site
from hf_bias_patch.architecture.verdict import DESTINATIONS, Destination
from hf_bias_patch.checkpoint.shorten import brief
from hf_bias_patch.errors import ArgumentError, RecipeError
from hf_bias_patch.patching.fills import Fill, fields_of
from hf_bias_patch.patching.strict_yaml import read_fields
from hf_bias_patch.patching.wording import not_offered, problems

__all__ = ["DestinationOrDefault", "Recipe", "as_folds", "as_names", "make_recipe", "read_recipe", "recipe_or_fields"]


DestinationOrDefault = Literal["default", Destination]


def as_folds(value: Any) -> Any:
    """`"key,value:weight"`, `["key", "value:weight"]` or `{"key": "default"}` as a mapping."""
    if isinstance(value, Mapping):
        return {name: destination or "default" for name, destination in value.items()}
    pairs = (item.partition(":") for item in as_names(value))
    return _once((name, destination or "default") for name, _, destination in pairs)


def _fills(value: Any) -> Any:
    """`"key=uniform:-5:5"`, a list of such, or `{"key": "uniform:-5:5"}` as a mapping to Fill."""
    if not isinstance(value, Mapping):
        pairs = [item.partition("=") for item in as_names(value)]
        if missing := [name for name, equals, _ in pairs if not equals]:
            raise ValueError(f"{brief(missing[0])} has no value; write {missing[0]}=0 or {missing[0]}=uniform:-5:5")
        value = _once((name, text) for name, _, text in pairs)
    return {name: fill if isinstance(fill, (Fill, Mapping)) else fields_of(fill) for name, fill in value.items()}


def _once(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Pairs as a mapping, unless two disagree."""
    found: dict[str, str] = {}
    for name, value in pairs:
        if found.setdefault(name, value) != value:
            raise ValueError(f"{name} is given twice, as {found[name]} and as {value}")
    return found


def as_names(value: Any) -> Any:
    """`"key,value"` or an iterable of such, as a list."""
    if value is not None and not isinstance(value, Iterable):
        raise ValueError(f"{brief(value)} is not a list of names")
    items = [value] if isinstance(value, str) else list(value or ())
    return [part.strip() for item in items for part in str(item).split(",") if part.strip()]


def _layers(value: Any) -> Any:
    """`"0-5,7"`, `3` or `[0, 1]` as sorted numbers."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    if not isinstance(value, str):
        try:
            return tuple(sorted(set(value)))
        except TypeError:
            raise ValueError(f"{brief(value)} is not a list of layers; write 0-5,7 or [0, 1]") from None
    chosen: set[int] = set()
    for part in as_names(value):
        low, dash, high = part.partition("-")
        try:
            first, last = int(low), int(high) if dash else int(low)
        except ValueError:
            raise ValueError(f"{brief(part)} is not a layer or range of layers; write 0-5,7") from None
        if first > last:
            raise ValueError(f"{part!r}: the first layer is after the last")
        if last > _LAST_LAYER:
            raise ValueError(f"{part!r}: no model has a layer {last}")
        chosen.update(range(first, last + 1))
    return tuple(sorted(chosen))


_LAST_LAYER = 99_999
"""A range is written out, so it must end."""

_Projections = Annotated[tuple[Projection, ...], BeforeValidator(as_names)]


class Recipe(BaseModel):
    """Actions, and the sites they are for. Every field is optional; a recipe without an action is refused.

    Attributes:
        fold: projection → where its bias goes (`default`, `nothing`, `output`, `weight`, `norm`); exact, or refused.
        drop: projections whose bias is set to zero whatever happens.
        fill: projection → constant or random values to write instead.
        freeze, train: what an optimiser may touch; changes no value.
        layers: layer numbers; all if None.
        stack: `encoder` or `decoder`; both if None.
        attention: `self` or `cross`; both if None.
        storage: `zeros` keeps a removed bias as zeros, `absent` takes tensor and parameter away.
        seed: of random fills; 0 or more.
        max_loss: largest relative rounding loss a fold may cost the bias it moves (amplification · unit roundoff).
        model_type: such as `bert`, for a config.json that names none; the variant's then names it.
        where_possible: leave out the folds that a plan would refuse. The plan's own recipe names them in `left_out`
            and asks for the rest without this word, so that it means the same wherever it is planned again.
        left_out: `SITE.PROJECTION` → why its bias stays; such a slot is neither folded nor dropped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fold: Annotated[dict[Projection, DestinationOrDefault], BeforeValidator(as_folds)] = Field(default_factory=dict)
    drop: _Projections = ()
    fill: Annotated[dict[Projection, Fill], BeforeValidator(_fills)] = Field(default_factory=dict)
    freeze: _Projections = ()
    train: _Projections = ()
    layers: Annotated[tuple[StrictInt, ...] | None, BeforeValidator(_layers)] = None
    stack: Literal["encoder", "decoder"] | None = None
    attention: Literal["self", "cross"] | None = None
    storage: Literal["zeros", "absent"] = "zeros"
    # Strict: YAML reads `yes` as true, which is not a number, and Python would take it for 1.
    seed: Annotated[int, Field(strict=True, ge=0)] = 0
    max_loss: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.1
    model_type: Annotated[str, Field(min_length=1)] | None = None
    where_possible: StrictBool = False
    left_out: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if not (self.fold or self.drop or self.fill or self.freeze or self.train):
            raise ValueError("no action: give at least one of fold, drop, fill, freeze, train")
        for first, second in (("fold", "drop"), ("fold", "fill"), ("drop", "fill"), ("freeze", "train")):
            if both := sorted(set(getattr(self, first)) & set(getattr(self, second))):
                raise ValueError(f"{both[0]} is in both {first} and {second}")
        for projection, destination in self.fold.items():
            offered = DESTINATIONS[projection]
            if not offered:
                raise ValueError(f"the {projection} bias cannot be folded; drop or fill it instead")
            if destination not in ("default", *offered):
                raise ValueError(not_offered(projection, destination))
        if self.storage == "absent" and not (self.fold or self.drop):
            raise ValueError("storage absent needs a fold or drop")
        if self.where_possible and not self.fold:
            raise ValueError("where_possible needs a fold")
        if self.left_out and not (self.fold or self.drop):
            raise ValueError("left_out needs a fold or drop")
        return self

    def without(self, left_out: Mapping[str, str]) -> Recipe:
        """The same, but for some slots, which are not folded: `SITE.PROJECTION` → why."""
        return self.model_copy(update={"left_out": {**self.left_out, **left_out}})

    def storing_zeros(self) -> Recipe:
        """The same for a model in memory, where a removed bias stays as zeros whatever the storage of a variant."""
        return self.model_copy(update={"storage": "zeros"})

    def selects(self, site: Site) -> bool:
        """Whether a site is among those the recipe is for."""
        return (
            (self.layers is None or site.layer in self.layers)
            and self.stack in (None, site.stack)
            and self.attention in (None, site.kind)
        )

    def plain(self) -> dict[str, Any]:
        """The recipe as JSON values, defaults left out."""
        return self.model_dump(mode="json", exclude_defaults=True)


def make_recipe(**fields: Any) -> Recipe:
    """A recipe from keyword arguments, in the forms the command line takes.

    Raises:
        RecipeError: a field is unknown or its value is wrong; the message lists every such field.
    """
    try:
        return Recipe(**fields)
    except ValidationError as error:
        raise RecipeError(
            f"The recipe is wrong: {'; '.join(problems(error))}", remedy=f"Fields: {', '.join(Recipe.model_fields)}"
        ) from None


def recipe_or_fields(recipe: Recipe | None, fields: Mapping[str, Any]) -> Recipe:
    """The recipe given, or one made of keyword arguments; not both.

    Raises:
        RecipeError: both are given, or the fields make no recipe.
        ArgumentError: `recipe` is something else.
    """
    if recipe is None:
        return make_recipe(**fields)
    if not isinstance(recipe, Recipe):
        raise ArgumentError(
            f"A recipe was expected, and a {type(recipe).__name__} was given",
            remedy='Give its fields as keywords, such as fold="key,value", or make a Recipe of them',
        )
    if fields:
        raise RecipeError(
            f"A recipe was given, and {', '.join(fields)} too",
            remedy="Say everything in the recipe, or everything by keywords",
        )
    return recipe


def read_recipe(path: str | Path) -> Recipe:
    """A recipe from a YAML (or JSON) file.

    Raises:
        RecipeError: the file cannot be read, is not a mapping, has a key twice, or a field of it is wrong.
    """
    return make_recipe(**read_fields(path, "The recipe", RecipeError, "Write, for example, `fold: [key]`"))
