"""`hf-bias-patch patch`: plan, write, verify."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hf_bias_patch.architecture.verdict import DESTINATIONS
from hf_bias_patch.cli.options import AsJson, Layerwise, Model, ModelType, Overwrite, Texts, read_texts

if TYPE_CHECKING:
    from hf_bias_patch.architecture.sites import Site
    from hf_bias_patch.patching.on_disk import Patched
    from hf_bias_patch.patching.plan import Plan
    from hf_bias_patch.patching.recipe import Recipe

__all__ = ["patch"]

_DESTINATIONS = [
    f"{projection}:{to}" for projection, places in DESTINATIONS.items() for to in places if to != "nothing"
]
_LIST = "PROJECTION,…"


def patch(
    model: Model,
    out: Annotated[Path | None, typer.Argument(help="The folder to make.", metavar="OUT", show_default=False)] = None,
    fold: Annotated[
        list[str] | None,
        typer.Option(
            help="Remove exactly, or refuse: key, value, query, each alone or with its destination "
            f"({', '.join(_DESTINATIONS)}).",
            metavar="PROJECTION[:DESTINATION],…",
        ),
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option(help="Set to zero, even where that changes the output.", metavar=_LIST)
    ] = None,
    fill: Annotated[
        list[str] | None,
        typer.Option(help="Write other values: key=0, key=uniform:-5:5, key=normal:0:1.", metavar="PROJECTION=VALUES"),
    ] = None,
    freeze: Annotated[list[str] | None, typer.Option(help="Mark as not trainable.", metavar=_LIST)] = None,
    train: Annotated[list[str] | None, typer.Option(help="Mark as trainable.", metavar=_LIST)] = None,
    layers: Annotated[str | None, typer.Option(help="Only these layers, such as 0-5,7.")] = None,
    stack: Annotated[str | None, typer.Option(help="Only this stack: encoder or decoder.")] = None,
    attention: Annotated[str | None, typer.Option(help="Only this kind of attention: self or cross.")] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="How a removed bias is stored: as zeros (any loader works), or absent.", show_default="zeros"
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of random fills, 0 or more.", show_default="0")] = None,
    max_loss: Annotated[
        float | None, typer.Option(help="Largest relative rounding loss of a folded bias.", show_default="0.1")
    ] = None,
    model_type: ModelType = None,
    where_possible: Annotated[
        bool,
        typer.Option(
            "--where-possible",
            help="Leave out, and list, the folds that are not exact, lose too much, or would fail the certificate.",
        ),
    ] = False,
    recipe: Annotated[
        Path | None, typer.Option(help="Read the options above from a YAML file instead.", metavar="FILE")
    ] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Edit the files of MODEL themselves.")] = False,
    overwrite: Overwrite = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    trust_probe: Annotated[
        bool,
        typer.Option("--trust-probe", help="For a model type without a family: run the model, and plan by a probe."),
    ] = False,
    verify: Annotated[bool, typer.Option(help="Verify what was written.")] = True,
    texts: Texts = None,
    layerwise: Layerwise = False,
    as_json: AsJson = False,
) -> None:
    """Remove attention biases from a checkpoint and prove that it computes the same."""
    asked = {
        "fold": fold, "drop": drop, "fill": fill, "freeze": freeze, "train": train, "layers": layers, "stack": stack,
        "attention": attention, "storage": storage, "seed": seed, "max_loss": max_loss, "model_type": model_type,
        "where_possible": where_possible or None,
    }  # fmt: skip
    wanted = _recipe(recipe, {name: value for name, value in asked.items() if value not in (None, [])})
    job = _Job(model, out, wanted, in_place, overwrite, verify, read_texts(texts), layerwise, as_json)
    job.refuse_early(dry_run)
    sites = None
    if trust_probe:
        from hf_bias_patch.cli.probe import trusted_sites

        sites = trusted_sites(model, verify)
    if dry_run:
        job.show_dry_run(sites)
    elif not job.run(sites):
        raise typer.Exit(1)


def _recipe(path: Path | None, asked: dict[str, Any]) -> Recipe:
    from hf_bias_patch.errors import RecipeError
    from hf_bias_patch.patching.recipe import make_recipe, read_recipe

    if path is None:
        return make_recipe(**asked)
    if asked:
        raise RecipeError(
            f"--recipe and --{next(iter(asked)).replace('_', '-')} cannot be given together",
            remedy="Say everything in the file, or everything by options",
        )
    return read_recipe(path)


@dataclass(frozen=True)
class _Job:
    """What the command is to do."""

    model: str
    out: Path | None
    recipe: Recipe
    in_place: bool
    overwrite: bool
    verify: bool
    texts: list[str] | None
    layerwise: bool
    as_json: bool

    def refuse_early(self, dry_run: bool) -> None:
        """Refuse what cannot be written or verified, before anything is computed."""
        if self.texts and self.layerwise:
            from hf_bias_patch.evidence.run import refuse_texts

            refuse_texts(self.texts, self.layerwise)
        self._check_target(dry_run)
        if self.verify:
            from hf_bias_patch.evidence.early_refusals import refuse_storage_ahead

            refuse_storage_ahead(self.model)

    def _check_target(self, dry_run: bool) -> None:
        from hf_bias_patch.errors import TargetError

        if self.in_place and (self.overwrite or self.out is not None):
            other = "--overwrite, which is about OUT," if self.overwrite else f"OUT ({self.out})"
            raise TargetError(
                f"--in-place edits MODEL itself, and {other} was given too", remedy="Leave one of them out"
            )
        if self.out is None and not (self.in_place or dry_run):
            raise TargetError("OUT is missing", remedy="Name the folder to make, or pass --in-place or --dry-run")

    def show_dry_run(self, sites: Sequence[Site] | None) -> None:
        """Print the plan."""
        from hf_bias_patch.patching.on_disk import plan

        self._show_plan(plan(self.model, self.recipe, sites=sites))
        if self.recipe.where_possible and self.verify and not self.as_json:
            typer.echo("Without --dry-run these folds are measured first, and those that would fail stay as well.")

    def run(self, sites: Sequence[Site] | None) -> bool:
        """Write, verify and print; whether the certificate holds, where it must."""
        if self.out is not None:
            from hf_bias_patch.cli.console import clear_beside, stderr, stdout

            clear_beside(self.out, stderr() if self.as_json else stdout())
        measured = self._measured(sites) if self.recipe.where_possible and self.verify else self.recipe
        done = self._write(measured, sites)
        result: dict[str, Any] = {"path": str(done.path), "plan": json.loads(done.plan.dumps()), "certificate": None}
        if not self.as_json:
            self._show_done(done)
        passed = True
        if self.verify and not done.unchanged:
            from hf_bias_patch.cli.verify import certify

            against = None if self.in_place else self.model
            certificate = certify(done.path, against, texts=self.texts, layerwise=self.layerwise, show=not self.as_json)
            result["certificate"] = json.loads(certificate.dumps())
            passed = certificate.passed or done.plan.lossy
        if self.as_json:
            typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return passed

    def _measured(self, sites: Sequence[Site] | None) -> Recipe:
        """The recipe without the folds that would fail the certificate; what cannot be written is refused before."""
        from hf_bias_patch.checkpoint.folder import refuse_existing
        from hf_bias_patch.checkpoint.source import resolve
        from hf_bias_patch.cli.console import stderr
        from hf_bias_patch.evidence.where_possible import where_possible
        from hf_bias_patch.patching.inplace import editable

        if self.out is None:
            editable(resolve(self.model))
        else:
            refuse_existing(self.out, self.overwrite)
        with stderr().status("measuring the folds") as status:
            return where_possible(
                self.model,
                self.recipe,
                sites=sites,
                texts=self.texts,
                layerwise=self.layerwise,
                progress=lambda step: status.update(f"measuring the folds: {step}"),
            )

    def _write(self, recipe: Recipe, sites: Sequence[Site] | None) -> Patched:
        from hf_bias_patch.cli.console import ByteBar
        from hf_bias_patch.patching.inplace import patch_in_place
        from hf_bias_patch.patching.on_disk import patch as write

        if self.out is None:
            return patch_in_place(self.model, recipe, sites=sites, announce=self._announce)
        with ByteBar("writing") as bar:

            def begin(plan: Plan) -> None:
                self._announce(plan)
                bar.start(plan.nbytes)

            return write(
                self.model,
                self.out,
                recipe,
                sites=sites,
                overwrite=self.overwrite,
                announce=begin,
                progress=bar.advance,
            )

    def _announce(self, plan: Plan) -> None:
        if not self.as_json:
            self._show_plan(plan)
        if self.verify:
            from hf_bias_patch.evidence.early_refusals import refuse_plan_ahead

            refuse_plan_ahead(self.model, plan, texts=len(self.texts or ()), layerwise=self.layerwise)

    def _show_plan(self, plan: Plan) -> None:
        if self.as_json:
            typer.echo(json.dumps(json.loads(plan.dumps()), indent=2, ensure_ascii=False))
            return
        from rich.markup import escape

        from hf_bias_patch.cli.console import stdout
        from hf_bias_patch.cli.tables import plan_lines
        from hf_bias_patch.patching.adapter_beside import adapter_note

        for line in plan_lines(plan):
            stdout().print(line)
        if note := adapter_note(self.model, plan):
            stdout().print(f"[bold yellow]Note:[/] {escape(note)}\n")

    def _show_done(self, done: Patched) -> None:
        from hf_bias_patch.cli.console import stdout, strong

        if done.unchanged:
            stdout().print(f"{done.path} is patched this way already: nothing was written.")
            return
        stdout().print(f"Written: {strong(done.path)}")
        for what in dict.fromkeys(done.left_behind.values()):
            names = ", ".join(path.as_posix() for path, held in done.left_behind.items() if held == what)
            stdout().print(f"{'Not patched' if self.in_place else 'Left behind'} ({what}): {names}")
