"""`hf-bias-patch push`: a variant for others, on the Hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hf_bias_patch.cli.options import AsJson

if TYPE_CHECKING:
    from hf_bias_patch.publish.push_plan import Push

__all__ = ["push"]

_HOW = {"upload": "upload", "copy": "copy on the server", "same": "there already"}


def push(
    variant: Annotated[Path, typer.Argument(help="A variant's folder.", metavar="VARIANT")],
    name: Annotated[str, typer.Argument(help="owner/name on the Hub; made if it is not there.", metavar="NAME")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[
        str | None,
        typer.Option(
            help="Branch, made if it is not there; or refs/pr/NUMBER, a pull request that is open.", show_default="main"
        ),
    ] = None,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Propose it as a pull request, a new one each time.")
    ] = False,
    patch_only: Annotated[
        bool,
        typer.Option(
            "--patch-only", help="Kilobytes: not the weights, but what makes them of the base's (see `pull`)."
        ),
    ] = False,
    allow_lossy: Annotated[
        bool, typer.Option("--allow-lossy", help="Publish a variant that computes something else on purpose.")
    ] = False,
    base_model: Annotated[
        str | None,
        typer.Option(help="Hub id of the base, owner/name or owner/name@COMMIT, where the variant does not know it."),
    ] = None,
    commit_message: Annotated[
        str | None, typer.Option(help="Summary of the commit.", show_default="what was done")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Publish a variant that is proven: one commit with card, certificate and all, or nothing."""
    from hf_bias_patch.publish.push import push as publish
    from hf_bias_patch.publish.push_plan import plan_push

    planned = plan_push(
        variant,
        name,
        private=private,
        revision=revision,
        create_pr=create_pr,
        patch_only=patch_only,
        allow_lossy=allow_lossy,
        base_model=base_model,
        commit_message=commit_message,
    )
    if not as_json:
        _show(planned)
    done = None if dry_run else publish(planned)
    if as_json:
        result = _plain(planned) | ({"commit": done.commit, "url": done.url} if done else {})
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    from hf_bias_patch.cli.console import stdout, strong

    if done is None:
        stdout().print("Nothing was sent: this was a dry run.")
        return
    if not done.copied:
        stdout().print("The Hub does not copy from the base, so those files were uploaded too.")
    said = "All of it is there already" if not planned.changes else "Proposed" if done.pull else "Published"
    stdout().print(f"{said}: {strong(done.url)}", soft_wrap=True)
    if done.pull:
        stdout().print(
            f"To change it, push with --revision {done.pull}: --create-pr opens another one.", soft_wrap=True
        )


def _show(planned: Push) -> None:
    from hf_bias_patch.cli.console import nbytes, stdout, table

    place = planned.name if planned.revision == "main" else f"{planned.name}, branch {planned.revision}"
    made = table("file", "size", "how", numbers=("size",))
    for file in planned.files:
        made.add_row(file.name, nbytes(file.content.size), _HOW[file.how])
    for name in planned.deleted:
        made.add_row(name, "", "delete (of an earlier push)")
    stdout().print(made)
    new = "" if planned.there else f", a new {'private' if planned.private else 'public'} repository"
    pull = " as a new pull request" if planned.create_pr else ""
    stdout().print(
        f"To {place}{new}{pull}: {nbytes(planned.nbytes('upload'))} to upload, {nbytes(planned.nbytes('copy'))} to "
        f"copy on the server, {nbytes(planned.nbytes('same'))} there already."
    )


def _plain(planned: Push) -> dict[str, Any]:
    return {
        "name": planned.name,
        "revision": planned.revision,
        "create_pr": planned.create_pr,
        "new": planned.there is None,
        "files": [{"name": file.name, "bytes": file.content.size, "how": file.how} for file in planned.files],
        "deleted": list(planned.deleted),
    }
