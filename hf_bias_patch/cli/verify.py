"""`hf-bias-patch verify`: the certificate."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hf_bias_patch.cli.options import AsJson, Layerwise, Seed, Texts, read_texts

if TYPE_CHECKING:
    from hf_bias_patch.evidence.certificate import Certificate

__all__ = ["certify", "verify"]


def verify(
    variant: Annotated[str, typer.Argument(help="A patched checkpoint.")],
    against: Annotated[
        str | None,
        typer.Option(
            help="The checkpoint it was made from: a folder, file or Hub id (owner/name@REVISION).",
            metavar="MODEL",
            show_default="restored from VARIANT",
        ),
    ] = None,
    texts: Texts = None,
    layerwise: Layerwise = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Measure that a variant computes what its source computes. Exit code 1 if it does not."""
    certificate = certify(variant, against, texts=read_texts(texts), layerwise=layerwise, seed=seed, show=not as_json)
    if as_json:
        typer.echo(certificate.dumps())
    raise typer.Exit(0 if certificate.passed else 1)


def certify(
    variant: str | Path,
    against: str | None,
    *,
    texts: list[str] | None = None,
    layerwise: bool = False,
    seed: int = 0,
    show: bool = True,
) -> Certificate:
    """Verify, keep the certificate in the variant, and print it if `show`."""
    from hf_bias_patch.cli.console import stderr, stdout
    from hf_bias_patch.cli.report import certificate_lines
    from hf_bias_patch.evidence.run import verify as measure

    with _source(variant, against) as source, stderr().status("verifying") as status:
        certificate = measure(
            variant,
            source,
            texts=texts,
            layerwise=layerwise,
            seed=seed,
            progress=lambda step: status.update(f"verifying: {step}"),
        )
    _keep(certificate, variant)
    if show:
        for line in certificate_lines(certificate):
            stdout().print(line)
    return certificate


def _keep(certificate: Certificate, variant: str | Path) -> None:
    """Put the certificate beside the plan; a checkpoint that we did not write stays as it is."""
    from hf_bias_patch.checkpoint.source import resolve
    from hf_bias_patch.patching.record import CERTIFICATE, PLAN

    folder = resolve(variant).path
    if (folder / PLAN).is_file() and os.access(folder / PLAN, os.W_OK):
        (folder / CERTIFICATE).write_text(certificate.dumps(), "utf-8")


@contextmanager
def _source(variant: str | Path, against: str | None) -> Iterator[str | Path]:
    """The checkpoint to compare with: the one given, or the source restored beside the variant for a while."""
    if against is not None:
        yield against
        return
    from hf_bias_patch.checkpoint.source import resolve
    from hf_bias_patch.patching.revert import revert

    folder = resolve(variant).path
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.source-") as place:
        yield revert(folder, Path(place) / "source").path
