"""What a Hub holds: models, their commits, their files; and what can go wrong on the way to them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

_BY_SHA256 = {".safetensors", ".bin", ".zip", ".onnx"}
"""Kept apart from git, as the Hub's .gitattributes has it for these and others."""


@dataclass(frozen=True)
class Blob:
    """The content of a file: a file on disk (which may be sparse), and what the Hub knows of it."""

    path: Path
    sha256: str
    lfs: bool

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    @cached_property
    def oid(self) -> str:
        """git's hash of it; of what is kept apart from git, that of a pointer, made up here."""
        if self.lfs:
            return self.sha256[:40]
        content = self.path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid


def blob(path: Path, name: str, sha256: str | None = None) -> Blob:
    """The content of a file on disk under a name in a repository."""
    return Blob(path, sha256 or hashlib.sha256(path.read_bytes()).hexdigest(), Path(name).suffix in _BY_SHA256)


@dataclass
class Repo:
    """A model.

    Attributes:
        commits: hash → files.
        refs: branch, or a pull request's ref, to commit.
        objects: what was uploaded to it or copied into it, by sha256, committed or not.
    """

    name: str
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    objects: dict[str, Path] = field(default_factory=dict)

    def at(self, revision: str) -> tuple[str, dict[str, Blob]] | None:
        """Commit and files of a revision."""
        commit = self.refs.get(revision, revision)
        return (commit, self.commits[commit]) if commit in self.commits else None

    def commit(self, files: dict[str, Blob], ref: str = "main") -> str:
        """Add a commit; returns its hash."""
        made = hashlib.sha1(f"{self.name} {len(self.commits)}".encode()).hexdigest()
        self.commits[made] = files
        self.refs[ref] = made
        return made


@dataclass(frozen=True)
class Request:
    """What was asked, and what was sent and received."""

    method: str
    path: str
    range: str | None
    status: int
    sent: int
    received: int


@dataclass(frozen=True)
class Fault:
    """What goes wrong, once for each time it stands in the list.

    Attributes:
        status, headers, body: the answer, instead of the right one; a text is sent as a page, all else as JSON.
        cut_after: bytes of a body after which the connection is cut: of the answer, or of an upload.
        ignore_range: the whole file is sent.
        unanswered: a commit is made, and the connection cut before that is said.
        flip_at: a bit of this byte of the answer's body is wrong; negative numbers count from its end.
        first: is called before the request is answered; what somebody else does in this moment.
    """

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: object = None
    cut_after: int | None = None
    ignore_range: bool = False
    unanswered: bool = False
    flip_at: int | None = None
    first: Callable[[], object] | None = None
