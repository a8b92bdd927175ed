"""`hf-bias-patch patch`: plan, write, verify."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hf_bias_patch.cli.options import AsJson, Layerwise, Model, ModelType, Overwrite, Texts, read_texts

if TYPE_CHECKING:
    from hf_bias_patch.attention.sites import Site
    from hf_bias_patch.patching.disk import Patched
    from hf_bias_patch.patching.plan import Plan
    from hf_bias_patch.patching.recipe import Recipe

__all__ = ["patch"]

_LIST = "PROJECTION,…"


def patch(
    context: typer.Context,
    model: Model,
    out: Annotated[Path | None, typer.Argument(help="The folder to make.", show_default=False)] = None,
    fold: Annotated[
        list[str] | None,
        typer.Option(
            help="Remove exactly, or refuse: key, value, query, each alone or as PROJECTION:WHERE "
            "(value:output, value:weight, query:weight, query:norm, key:weight).",
            metavar="PROJECTION[:WHERE],…",
        ),
    ] = None,
    drop: Annotated[list[str] | None, typer.Option(help="Set to zero, whatever happens.", metavar=_LIST)] = None,
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
        typer.Option(help="What becomes of a removed bias: zeros (any loader works) or absent.", show_default="zeros"),
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
    recipe: Annotated[Path | None, typer.Option(help="All of the above from a YAML file.", metavar="FILE")] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Edit MODEL's bytes where they are.")] = False,
    overwrite: Overwrite = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    trust_probe: Annotated[
        bool,
        typer.Option("--trust-probe", help="Where no family knows, run the model and plan by the numbers of a probe."),
    ] = False,
    verify: Annotated[bool, typer.Option(help="Verify what was written.")] = True,
    texts: Texts = None,
    layerwise: Layerwise = False,
    as_json: AsJson = False,
) -> None:
    """Remove attention biases from a checkpoint and prove that it computes the same."""
    asked: dict[str, Any] = {
        "fold": fold,
        "drop": drop,
        "fill": fill,
        "freeze": freeze,
        "train": train,
        "layers": layers,
    }
    asked |= {"stack": stack, "attention": attention, "storage": storage, "seed": seed, "max_loss": max_loss}
    asked |= {"model_type": model_type, "where_possible": where_possible or None}
    wanted = _recipe(recipe, {name: value for name, value in asked.items() if value not in (None, [])})
    lines = read_texts(texts)
    if lines and layerwise:  # said before anything is written
        from hf_bias_patch.evidence.run import refuse_texts

        refuse_texts(lines, layerwise)
    _check_target(out, in_place, overwrite, dry_run)

    if verify:
        from hf_bias_patch.evidence.early_refusals import refuse_storage_ahead

        refuse_storage_ahead(model)
    sites = None
    if trust_probe:
        from hf_bias_patch.cli.probe import trusted_sites

        sites = trusted_sites(model, verify)
    if dry_run:
        from hf_bias_patch.patching.disk import plan as make_plan

        _show_plan(model, make_plan(model, wanted, sites=sites), as_json)
        if wanted.where_possible and verify and not as_json:
            typer.echo("Without --dry-run these folds are measured first, and those that would fail stay as well.")
        return
    if out is not None:
        from hf_bias_patch.cli.console import stderr, stdout
        from hf_bias_patch.cli.leftovers import clear_beside

        clear_beside(out, stderr() if as_json else stdout())
    if wanted.where_possible and verify:
        wanted = _measured(model, out, wanted, in_place, overwrite, sites, lines, layerwise)

    def announce(plan: Plan) -> None:
        if not as_json:
            _show_plan(model, plan, as_json=False)
        if verify:
            from hf_bias_patch.evidence.early_refusals import refuse_plan_ahead

            refuse_plan_ahead(model, plan, texts=len(lines or ()), layerwise=layerwise)

    done = _write(model, out, wanted, in_place, overwrite, announce, sites)
    result: dict[str, Any] = {"path": str(done.path), "plan": json.loads(done.plan.dumps()), "certificate": None}
    if not as_json:
        _show_done(done, in_place)
    passed = True
    if verify and not done.unchanged:
        from hf_bias_patch.cli.verify import certify

        certificate = certify(
            done.path, None if in_place else model, texts=lines, layerwise=layerwise, show=not as_json
        )
        result["certificate"] = json.loads(certificate.dumps())
        passed = certificate.passed or done.plan.lossy
    if as_json:
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
    raise typer.Exit(0 if passed else 1)


def _recipe(path: Path | None, asked: dict[str, Any]) -> Recipe:
    from hf_bias_patch.errors import RecipeError
    from hf_bias_patch.patching.recipe import make_recipe, read_recipe

    if path is None:
        return make_recipe(**asked)
    if asked:
        raise RecipeError(
            f"--recipe {path} stands beside --{next(iter(asked)).replace('_', '-')}",
            remedy="Say everything in the file, or everything by options",
        )
    return read_recipe(path)


def _check_target(out: Path | None, in_place: bool, overwrite: bool, dry_run: bool) -> None:
    from hf_bias_patch.errors import TargetError

    if in_place and overwrite:
        raise TargetError(
            "--in-place edits MODEL itself, and --overwrite, which is about OUT, was given too",
            remedy="Leave one of them out",
        )

    if in_place and out is not None:
        raise TargetError(
            f"--in-place edits MODEL itself, and OUT ({out}) was given too", remedy="Leave one of them out"
        )
    if out is None and not (in_place or dry_run):
        raise TargetError("There is no OUT", remedy="Name the folder to make, or pass --in-place or --dry-run")


def _measured(
    model: str,
    out: Path | None,
    recipe: Recipe,
    in_place: bool,
    overwrite: bool,
    sites: Sequence[Site] | None,
    texts: list[str] | None,
    layerwise: bool,
) -> Recipe:
    """The recipe without the folds that would fail the certificate; what cannot be written is refused before."""
    from hf_bias_patch.checkpoint.folder import refuse_existing
    from hf_bias_patch.checkpoint.source import resolve
    from hf_bias_patch.cli.console import stderr
    from hf_bias_patch.evidence.where_possible import where_possible
    from hf_bias_patch.patching.inplace import editable

    if in_place or out is None:
        editable(resolve(model))
    else:
        refuse_existing(out, overwrite)
    with stderr().status("measuring the folds") as status:
        return where_possible(
            model,
            recipe,
            sites=sites,
            texts=texts,
            layerwise=layerwise,
            progress=lambda step: status.update(f"measuring the folds: {step}"),
        )


def _write(
    model: str,
    out: Path | None,
    recipe: Recipe,
    in_place: bool,
    overwrite: bool,
    announce: Callable[[Plan], None],
    sites: Sequence[Site] | None,
) -> Patched:
    from hf_bias_patch.cli.console import ByteBar
    from hf_bias_patch.patching.disk import patch as write
    from hf_bias_patch.patching.inplace import patch_in_place

    if in_place or out is None:
        return patch_in_place(model, recipe, sites=sites, announce=announce)
    with ByteBar("writing") as bar:

        def begin(plan: Plan) -> None:
            announce(plan)
            bar.start(plan.nbytes)

        return write(model, out, recipe, sites=sites, overwrite=overwrite, announce=begin, progress=bar.advance)


def _show_plan(model: str, plan: Plan, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(json.loads(plan.dumps()), indent=2, ensure_ascii=False))
        return
    from rich.markup import escape

    from hf_bias_patch.cli.console import stdout
    from hf_bias_patch.cli.tables import plan_lines
    from hf_bias_patch.patching.adapter_beside import adapter_note

    for line in plan_lines(plan):
        stdout().print(line)
    if note := adapter_note(model, plan):
        stdout().print(f"[bold yellow]Note:[/] {escape(note)}\n")


def _show_done(done: Patched, in_place: bool) -> None:
    from hf_bias_patch.cli.console import stdout, strong

    if done.unchanged:
        stdout().print(f"{done.path} is already so: nothing to do, nothing written.")
        return
    stdout().print(f"Written: {strong(done.path)}")
    for what in dict.fromkeys(done.left_behind.values()):
        names = ", ".join(path.as_posix() for path, held in done.left_behind.items() if held == what)
        stdout().print(f"{'Not patched' if in_place else 'Left behind'} ({what}): {names}")
