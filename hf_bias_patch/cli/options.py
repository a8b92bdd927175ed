"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["AsJson", "Layerwise", "Model", "ModelType", "Overwrite", "Seed", "Texts", "TrustRemoteCode", "read_texts"]

Model = Annotated[
    str,
    typer.Argument(
        help="A folder, a safetensors file, embedded:bert|gpt2|bart, or a Hub id: owner/name or owner/name@REVISION."
    ),
]
ModelType = Annotated[
    str | None, typer.Option(help="The model type, such as bert, if config.json has none.", metavar="TYPE")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it holds a checkpoint.")]
Texts = Annotated[Path | None, typer.Option(help="Also verify on these texts, one per line.", metavar="FILE")]
Layerwise = Annotated[
    bool, typer.Option(help="Verify site by site, for checkpoints larger than memory; not with --texts.")
]
Seed = Annotated[int, typer.Option(help="Seed of the random probes.", min=0)]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="With --probe: run Python code that comes with the checkpoint.")
]


def read_texts(path: Path | None) -> list[str] | None:
    """The non-empty lines of a text file."""
    if path is None:
        return None
    from hf_bias_patch.errors import SourceError

    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"--texts {path} cannot be read: {error}", remedy="Give a text file in UTF-8") from None
    texts = [line for line in lines if line]
    if not texts:
        raise SourceError(f"--texts {path} holds no text", remedy="Write one text a line")
    return texts
