"""`hf-bias-patch verify`: the certificate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hf_bias_patch.cli.options import AsJson, Layerwise, Seed, Texts, read_texts

if TYPE_CHECKING:
    from hf_bias_patch.evidence.certificate import Certificate
    from hf_bias_patch.evidence.training import Training

__all__ = ["certify", "verify"]


def verify(
    variant: Annotated[str, typer.Argument(help="Folder of a variant or a fine-tuned model.", metavar="VARIANT")],
    against: Annotated[
        str | None,
        typer.Option(
            help="The checkpoint that it was made from: a folder, file or Hub id (owner/name@REVISION).",
            metavar="MODEL",
            show_default="restored from VARIANT",
        ),
    ] = None,
    texts: Texts = None,
    layerwise: Layerwise = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Measure whether a variant computes what its source computes, and write the certificate.

    Of a model that `tune` made: whether nothing but what trained differs from its source. Exit code 1 if it fails.
    """
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
) -> Certificate | Training:
    """Verify, and print what was found if `show`."""
    from hf_bias_patch.cli.console import stderr, stdout
    from hf_bias_patch.cli.report import evidence_lines
    from hf_bias_patch.evidence.run import verify as measure

    with stderr().status("verifying") as status:
        certificate = measure(
            variant,
            against,
            texts=texts,
            layerwise=layerwise,
            seed=seed,
            progress=lambda step: status.update(f"verifying: {step}"),
        )
    if show:
        for line in evidence_lines(certificate):
            stdout().print(line)
    return certificate
