"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "ANY_SPELLING",
    "AsJson",
    "BaseModelId",
    "Layerwise",
    "Model",
    "ModelType",
    "Overwrite",
    "Seed",
    "Texts",
    "TrustRemoteCode",
    "Variant",
    "read_texts",
]

ANY_SPELLING: dict[str, Any] = {"token_normalize_func": lambda name: name.replace("_", "-")}
"""Context settings under which `--dry_run` is `--dry-run`: scripts of Hugging Face have underscores."""

Model = Annotated[
    str,
    typer.Argument(
        help="A folder, a safetensors file, embedded:bert|gpt2|bart, or a Hub id: owner/name or owner/name@REVISION.",
        metavar="MODEL",
    ),
]
Variant = Annotated[Path, typer.Argument(help="Folder of a variant or a fine-tuned model.", metavar="VARIANT")]
BaseModelId = Annotated[
    str | None,
    typer.Option(
        help="Hub id of the base, if the variant was made from a local copy: owner/name or owner/name@COMMIT.",
        metavar="HUB_ID",
    ),
]
ModelType = Annotated[
    str | None,
    typer.Option(help="Model type, such as bert, for an old config.json that names none.", metavar="TYPE"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it holds a checkpoint.")]
Texts = Annotated[Path | None, typer.Option(help="A file of texts to verify on as well, one a line.", metavar="FILE")]
Layerwise = Annotated[
    bool,
    typer.Option(help="Verify one attention site at a time: for checkpoints larger than memory, without --texts."),
]
Seed = Annotated[int, typer.Option(help="Seed of the random inputs.", min=0)]
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
