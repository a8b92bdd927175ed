"""What a model on the Hub holds, file by file, and whether a local file is the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from hf_bias_patch.checkpoint.hashing import sha256_file

__all__ = ["Content", "Remote", "RemoteFile", "look_at"]


@dataclass(frozen=True)
class RemoteFile:
    """A file on the Hub.

    Attributes:
        size: bytes.
        oid: git's hash of it, where it is kept in git.
        sha256: where it is kept apart from git.
        copyable: whether the Hub can copy it from one repository to another.
    """

    size: int
    oid: str
    sha256: str | None
    copyable: bool


@dataclass(frozen=True)
class Remote:
    """One commit of a model.

    Attributes:
        commit: its full hash.
        private: whether only some may see it.
        files: by name.
    """

    commit: str
    private: bool
    files: Mapping[str, RemoteFile]


@dataclass(frozen=True)
class Content:
    """What a file will hold.

    Attributes:
        source: the file on this machine, or its bytes.
    """

    source: Path | bytes
    known_sha256: str = field(default="", repr=False)

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    @cached_property
    def sha256(self) -> str:
        if self.known_sha256:
            return self.known_sha256
        return hashlib.sha256(self.source).hexdigest() if isinstance(self.source, bytes) else sha256_file(self.source)

    @cached_property
    def oid(self) -> str:
        """git's hash of it. Such files are small."""
        content = self.source if isinstance(self.source, bytes) else self.source.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def is_same(self, there: RemoteFile) -> bool:
        """Whether a file on the Hub holds the same bytes."""
        if self.size != there.size:
            return False
        return self.sha256 == there.sha256 if there.sha256 else self.oid == there.oid


def look_at(model: str, revision: str | None) -> Remote:
    """List one commit of a model, by two requests.

    Raises:
        Exception: whatever the Hub's client raises.
    """
    from huggingface_hub import HfApi, RepoFile

    api = HfApi()
    info = api.model_info(model, revision=revision)
    entries = api.list_repo_tree(model, recursive=True, revision=info.sha)
    files = {
        entry.path: RemoteFile(
            entry.size, entry.blob_id, entry.lfs.sha256 if entry.lfs else None, bool(entry.lfs and entry.xet_hash)
        )
        for entry in entries
        if isinstance(entry, RepoFile)
    }
    return Remote(str(info.sha), bool(info.private), files)
