"""`hf-bias-patch push`: a model for others, on the Hub."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from hf_bias_patch.cli.options import AsJson, BaseModelId, Variant

if TYPE_CHECKING:
    from hf_bias_patch.publish.push import Pushed
    from hf_bias_patch.publish.push_plan import PushPlan

__all__ = ["push"]

_HOW = {"upload": "upload", "copy": "copy on the server", "same": "there already"}


def push(
    variant: Variant,
    name: Annotated[str, Argument(help="owner/name on the Hub; made if it is missing.", metavar="NAME")],
    private: Annotated[bool, Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[
        str | None,
        Option(help="Branch, made if it is missing; or refs/pr/NUMBER, an open pull request.", show_default="main"),
    ] = None,
    create_pr: Annotated[
        bool, Option("--create-pr", help="Propose it as a pull request, a new one each time.")
    ] = False,
    patch_only: Annotated[
        bool, Option("--patch-only", help="Publish the edits and no weights, about 100 kB; `pull` applies them.")
    ] = False,
    allow_lossy: Annotated[
        bool, Option("--allow-lossy", help="Publish a variant that computes something else on purpose.")
    ] = False,
    base_model: BaseModelId = None,
    commit_message: Annotated[str | None, Option(help="Summary of the commit.", show_default="what was done")] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="List the files and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Publish a model on the Hub, with its card and the proof that it computes the same: one commit, or nothing."""
    from hf_bias_patch.publish.push import push as publish
    from hf_bias_patch.publish.push_plan import plan_push

    asked: dict[str, Any] = {"private": private, "revision": revision, "create_pr": create_pr, "patch_only": patch_only}
    asked |= {"allow_lossy": allow_lossy, "base_model": base_model, "commit_message": commit_message}
    show = None if as_json else _show
    if dry_run:
        plan, done = plan_push(variant, name, **asked), None
        if show is not None:
            show(plan)
    else:
        done = publish(variant, name, **asked, announce=show)
        plan = done.plan
    if as_json:
        result = _plain(plan) | ({"commit": done.commit, "url": done.url} if done else {})
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        _conclude(done)


def _conclude(done: Pushed | None) -> None:
    from hf_bias_patch.cli.console import stdout, strong

    if done is None:
        stdout().print("Nothing was sent: this was a dry run.")
        return
    if not done.copied:
        stdout().print("The Hub did not copy from the base, so those files were uploaded too.")
    said = "All of it is there already" if not done.plan.changes else "Proposed" if done.pull else "Published"
    stdout().print(f"{said}: {strong(done.url)}", soft_wrap=True)
    if done.pull:
        stdout().print(
            f"To change it, push with --revision {done.pull}: --create-pr opens another one.", soft_wrap=True
        )


def _show(plan: PushPlan) -> None:
    from hf_bias_patch.cli.console import nbytes, stdout, table

    place = plan.name if plan.revision == "main" else f"{plan.name}, branch {plan.revision}"
    made = table("file", "size", "how", numbers=("size",))
    for file in plan.files:
        made.add_row(file.name, nbytes(file.content.size), _HOW[file.how])
    for name in plan.deleted:
        made.add_row(name, "", "delete (of an earlier push)")
    stdout().print(made)
    new = "" if plan.there else f", a new {'private' if plan.private else 'public'} repository"
    pull = " as a new pull request" if plan.create_pr else ""
    stdout().print(
        f"To {place}{new}{pull}: {nbytes(plan.nbytes('upload'))} to upload, {nbytes(plan.nbytes('copy'))} to "
        f"copy on the server, {nbytes(plan.nbytes('same'))} there already."
    )


def _plain(plan: PushPlan) -> dict[str, Any]:
    return {
        "name": plan.name,
        "revision": plan.revision,
        "create_pr": plan.create_pr,
        "new": plan.there is None,
        "files": [{"name": file.name, "bytes": file.content.size, "how": file.how} for file in plan.files],
        "deleted": list(plan.deleted),
    }
