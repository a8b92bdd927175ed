"""Files that are no weights, or weights of another format than their name says: told by their first bytes."""

from __future__ import annotations

__all__ = ["FIRST_BYTES", "mistaken"]

FIRST_BYTES = 9
"""As many as `mistaken` looks at."""

_LFS = "It is a Git LFS pointer: the repository was cloned, and its weights were not", "Fetch them with `git lfs pull`"
_PAGE = "It is a web page", "Download the file itself again"
_PICKLE = "It is a PyTorch pickle", "Name it pytorch_model.bin"
_SAFETENSORS = "It is a safetensors file", "Name it model.safetensors"
_OTHER = "Take the checkpoint in safetensors"

_KNOWN: dict[bytes, tuple[str, str]] = {
    b"version ": _LFS,
    b"<!DOCTYP": _PAGE,
    b"<!doctyp": _PAGE,
    b"<html": _PAGE,
    b"PK\x03\x04": _PICKLE,
    b"\x80\x02": _PICKLE,
    b"GGUF": ("It is a GGUF file", _OTHER),
    b"\x89HDF": ("It is an HDF5 file, as TensorFlow and Keras write", _OTHER),
}


def mistaken(first: bytes) -> tuple[str, str] | None:
    """What a file really is if its name is wrong, and what to do; None if its bytes do not tell.

    Args:
        first: the first bytes of the file, at least eight where it has as many.
    """
    if first[8:9] == b"{" and not any(first[4:8]):
        return _SAFETENSORS
    return next((said for sign, said in _KNOWN.items() if first.startswith(sign)), None)
