"""The files of one commit of a model on the Hub: which there are, and parts of them, without fetching the rest."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hf_bias_patch.checkpoint.hub_errors import hub_error
from hf_bias_patch.errors import CheckpointError, SourceError, UnreachableError

__all__ = ["ByteRange", "HubFiles", "open_hub_files"]

_TIMEOUT = 10.0
"""Seconds without a byte until a request is given up."""

_TRIES = 4
_AT_ONCE = 8
"""Requests under way together."""

_LARGEST_SMALL = 50_000_000
"""Bytes; no config.json or index is larger."""


@dataclass(frozen=True)
class ByteRange:
    """Bytes `start` to `stop`, not included, of a file."""

    name: str
    start: int
    stop: int


@dataclass
class HubFiles:
    """What one commit holds.

    Attributes:
        model: the Hub id.
        commit: its full hash: what is read later is of the same commit, whatever is pushed meanwhile.
        sizes: file name → bytes.
        sha256: file name → sha256, of the files that the Hub stores by it (the weights are such).
        received: bytes of bodies that came so far.
    """

    model: str
    commit: str
    sizes: Mapping[str, int]
    sha256: Mapping[str, str]
    received: int = 0
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    @cached_property
    def _headers(self) -> dict[str, str]:
        """Of every request, the token of who is logged in among them; found out once, for it takes reading files."""
        from huggingface_hub.utils import build_hf_headers

        return build_hf_headers()

    def small(self, name: str) -> bytes:
        """A whole file that is not a weight file.

        Raises:
            CheckpointError: it is not there, or is larger than any config.
            SourceError: the Hub cannot be reached, or refuses.
        """
        if name not in self.sizes:
            raise CheckpointError(f"{self.model} has no {name}")
        if self.sizes[name] > _LARGEST_SMALL:
            raise CheckpointError(f"{name} of {self.model} has {self.sizes[name]:,} bytes, more than any valid {name}")
        return self.part(ByteRange(name, 0, self.sizes[name]))

    def sha256_of(self, name: str) -> str | None:
        """The sha256 of a file, of one that is kept in git by its content; None if there is no such file.

        Raises:
            CheckpointError: it is kept in git, and larger than any file there.
            SourceError: the Hub cannot be reached, or refuses.
        """
        if name in self.sha256 or name not in self.sizes:
            return self.sha256.get(name)
        return hashlib.sha256(self.small(name)).hexdigest()

    def parts(self, wanted: Iterable[ByteRange]) -> Iterator[tuple[ByteRange, bytes]]:
        """Several parts, some requests under way at once, in the order asked for."""
        wanted = list(wanted)
        with ThreadPoolExecutor(min(_AT_ONCE, len(wanted) or 1)) as pool:
            yield from zip(wanted, pool.map(self.part, wanted), strict=True)

    def part(self, part: ByteRange) -> bytes:
        """A part of a file. A connection that is cut goes on where it was cut.

        Raises:
            SourceError: the Hub cannot be reached, refuses, or sends something else than was asked for.
        """
        got = bytearray()
        for attempt in range(_TRIES):
            try:
                for piece in self._stream(part, len(got)):
                    got += piece
                    with self._lock:
                        self.received += len(piece)
                if len(got) == part.stop - part.start:
                    return bytes(got)
            except SourceError:
                raise
            except Exception as error:  # each version of the client has its own transport, with its own errors
                if attempt == _TRIES - 1 or not _may_pass(error):
                    raise hub_error(self.model, self.commit, error) from error
            time.sleep(0.2 * 2**attempt)
        raise UnreachableError(
            f"{part.name} of {self.model} ended early, {_TRIES} times",
            why=f"{len(got):,} of {part.stop - part.start:,} bytes came",
            remedy="Try again later",
        )

    def _stream(self, part: ByteRange, had: int) -> Iterator[bytes]:
        import huggingface_hub as hub
        from huggingface_hub.utils import hf_raise_for_status, http_stream_backoff

        start, left = part.start + had, part.stop - part.start - had
        if not left:
            return
        url = hub.hf_hub_url(self.model, part.name, revision=self.commit)
        headers = self._headers | {"Range": f"bytes={start}-{part.stop - 1}", "Accept-Encoding": "identity"}
        with http_stream_backoff("GET", url, headers=headers, timeout=_TIMEOUT, max_retries=3) as response:
            hf_raise_for_status(response)
            whole = response.status_code == 200 and start == 0 and part.stop == self.sizes[part.name]
            if not whole:
                _check_range(self.model, part, start, response)
            broke: Exception | None = None
            try:
                for piece in response.iter_bytes():
                    if len(piece) > left:
                        raise SourceError(f"The Hub sent more of {part.name} of {self.model} than was asked for")
                    left -= len(piece)
                    yield piece
            except SourceError:
                raise
            except Exception as error:  # raised below: in here the client would take it for one to try again itself
                broke = error
        if broke is not None:
            raise broke


def open_hub_files(model: str, revision: str | None = None) -> HubFiles:
    """List the files of a model on the Hub, by one request.

    Raises:
        SourceError: there is no such model or revision, it is private or gated, or the Hub cannot be reached.
    """
    import huggingface_hub as hub

    try:
        info = hub.HfApi().model_info(model, revision=revision, files_metadata=True, timeout=_TIMEOUT)
    except Exception as error:
        raise hub_error(model, revision, error) from error
    files = info.siblings or []
    return HubFiles(
        model,
        str(info.sha),
        {file.rfilename: file.size or 0 for file in files},
        {file.rfilename: file.lfs.sha256 for file in files if file.lfs},
    )


def _check_range(model: str, part: ByteRange, start: int, response: Any) -> None:
    """Refuse anything but the bytes asked for, before a byte of a body that may be a whole weight file is read."""
    said = response.headers.get("content-range", "")
    if response.status_code != 206 or not said.startswith(f"bytes {start}-{part.stop - 1}/"):
        raise SourceError(
            f"The Hub does not send parts of {part.name} of {model}",
            why=f"It answered {response.status_code} ({said or 'the whole file'}) to a request for a range",
            remedy=f"Download the model (`hf download {model}`) and give its folder",
        )


def _may_pass(error: Exception) -> bool:
    """Whether to try again: a connection failed; what the server answered on purpose stays."""
    return getattr(error, "response", None) is None
