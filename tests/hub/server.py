"""A server of the Hub's protocol, for the real client: what a test puts into it, and faults on demand."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_MODEL = r"/api/models/(?P<id>[^/]+/[^/]+)"
_PIECE = 65_536


@dataclass(frozen=True)
class Blob:
    """The content of a file: a file on disk (which may be sparse), and what the Hub knows of it."""

    path: Path
    sha256: str
    lfs: bool

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    @property
    def etag(self) -> str:
        """What the Hub names its content by: sha256 where it is stored by that, else git's sha1, made up here."""
        return self.sha256 if self.lfs else self.sha256[:40]


@dataclass
class Repo:
    """A model: its commits, the last one on top, each with its files."""

    private: bool = False
    gated: bool = False
    commits: list[tuple[str, dict[str, Blob]]] = field(default_factory=list)

    def at(self, revision: str) -> tuple[str, dict[str, Blob]] | None:
        """Commit and files of a revision."""
        if revision == "main":
            return self.commits[-1]
        return next((commit for commit in self.commits if commit[0] == revision), None)


@dataclass(frozen=True)
class Request:
    """What was asked, and what was sent."""

    method: str
    path: str
    range: str | None
    status: int
    sent: int


@dataclass(frozen=True)
class Fault:
    """What goes wrong, once for each time it stands in the list: a status, a body cut short, or a range ignored."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    ignore_range: bool = False


class Hub:
    """The server's state. `url` is its endpoint."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: list[Request] = []
        self.tokens = {"hf_right"}
        self._faults: list[tuple[re.Pattern[str], Fault]] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Close it."""
        self._server.shutdown()
        self._server.server_close()

    def add(self, name: str, folder: Path, known_sha256: dict[str, str] | None = None, **access: bool) -> str:
        """Commit a folder's files to a model, `private` or `gated` if it is new; returns the commit's hash."""
        files = {
            path.relative_to(folder).as_posix(): _blob(path, (known_sha256 or {}).get(path.name))
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        repo = self.repos.setdefault(name, Repo(**access))
        commit = hashlib.sha1(f"{name} {len(repo.commits)}".encode()).hexdigest()
        repo.commits.append((commit, files))
        return commit

    def fail(self, path: str, *faults: Fault) -> None:
        """Let the next requests whose path matches go wrong, one for each fault."""
        self._faults += [(re.compile(path), fault) for fault in faults]

    def fault_of(self, path: str) -> Fault | None:
        """The fault that is due, taken off the list."""
        with self._lock:
            for place, (pattern, fault) in enumerate(self._faults):
                if pattern.search(path):
                    del self._faults[place]
                    return fault
        return None

    @property
    def sent(self) -> int:
        """Bytes of bodies sent so far."""
        return sum(request.sent for request in self.requests)


def _blob(path: Path, sha256: str | None) -> Blob:
    return Blob(path, sha256 or hashlib.sha256(path.read_bytes()).hexdigest(), path.suffix == ".safetensors")


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError | ValueError):  # a client that hung up, or was cut off, is no news
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = _PIECE  # head and body in one packet: else each waits 40 ms for the client to acknowledge the head
    disable_nagle_algorithm = True
    hub: Hub

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        """Nothing: the requests are in `Hub.requests`."""

    def _answer(self) -> None:
        self.path = unquote(self.path)
        self._sent = 0
        self._status = 0
        fault = self.hub.fault_of(self.path)
        try:
            if fault is not None and fault.status is not None:
                self._error(fault.status, headers=fault.headers)
            else:
                self._route(fault)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            self.hub.requests.append(
                Request(self.command, self.path, self.headers.get("Range"), self._status, self._sent)
            )

    def _route(self, fault: Fault | None) -> None:
        path = urlsplit(self.path).path
        if path == "/api/models":
            return self._models(parse_qs(urlsplit(self.path).query))
        routes: tuple[tuple[str, Callable[..., None]], ...] = (
            (_MODEL + r"(/revision/(?P<revision>.+))?", self._info),
            (_MODEL + r"/tree/(?P<revision>[^/]+)", self._tree),
            (r"/(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)", self._file),
        )
        for pattern, route in routes:
            if match := re.fullmatch(pattern, path):
                given = match.groupdict()
                repo = self.hub.repos.get(given["id"])
                if repo is None or (repo.private and not self._allowed()):
                    return self._error(401 if repo is None or repo.private else 404, code="RepoNotFound")
                if repo.gated:
                    return self._error(403, code="GatedRepo")
                at = repo.at(given["revision"] or "main")
                if at is None:
                    return self._error(404, code="RevisionNotFound")
                return route(given, *at, fault)
        return self._error(404)

    def _allowed(self) -> bool:
        return self.headers.get("Authorization", "").removeprefix("Bearer ") in self.hub.tokens

    def _models(self, asked: dict[str, list[str]]) -> None:
        author, text = (asked.get(name, [""])[0] for name in ("author", "search"))
        names = [name for name in self.hub.repos if name.startswith(f"{author}/" if author else "") and text in name]
        listed = [{"id": name, "modelId": name, "tags": []} for name in names[: int(asked.get("limit", ["100"])[0])]]
        self._send(200, json.dumps(listed).encode(), {"Content-Type": "application/json"})

    def _info(self, given: dict[str, str], commit: str, files: dict[str, Blob], fault: Fault | None) -> None:
        siblings = [
            {"rfilename": name, "size": blob.size, "blobId": blob.sha256[:40]}
            | ({"lfs": {"sha256": blob.sha256, "size": blob.size, "pointerSize": 130}} if blob.lfs else {})
            for name, blob in files.items()
        ]
        about = {"id": given["id"], "modelId": given["id"], "sha": commit, "siblings": siblings, "tags": []}
        self._send(200, json.dumps(about).encode(), {"Content-Type": "application/json"})

    def _tree(self, given: dict[str, str], commit: str, files: dict[str, Blob], fault: Fault | None) -> None:
        entries = [
            {"type": "file", "path": name, "size": blob.size, "oid": blob.sha256[:40]}
            | ({"lfs": {"oid": blob.sha256, "size": blob.size, "pointerSize": 130}} if blob.lfs else {})
            for name, blob in files.items()
        ]
        self._send(200, json.dumps(entries).encode(), {"Content-Type": "application/json"})

    def _file(self, given: dict[str, str], commit: str, files: dict[str, Blob], fault: Fault | None) -> None:
        blob = files.get(given["name"])
        if blob is None:
            return self._error(404, code="EntryNotFound")
        headers = {"ETag": f'"{blob.etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if blob.lfs:
            headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size)}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked is None or (fault and fault.ignore_range):
            return self._stream(200, blob, 0, blob.size, headers, fault)
        start, stop = int(asked[1]), min(int(asked[2]) + 1 if asked[2] else blob.size, blob.size)
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{blob.size}"
        return self._stream(206, blob, start, stop, headers, fault)

    def _stream(
        self, status: int, blob: Blob, start: int, stop: int, headers: dict[str, str], fault: Fault | None
    ) -> None:
        self._head(status, stop - start, headers)
        if self.command == "HEAD":
            return
        left = stop - start
        cut = fault.cut_after if fault else None
        if cut is not None:
            left = min(left, cut)
        for piece in _pieces(blob.path, start, left):
            self.wfile.write(piece)
            self._sent += len(piece)
        if cut is not None:
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self._head(status, len(body), headers)
        if self.command != "HEAD":
            self.wfile.write(body)
            self._sent += len(body)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self._status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _error(self, status: int, code: str = "", headers: dict[str, str] | None = None) -> None:
        about = {"X-Error-Code": code} if code else {}
        body = json.dumps({"error": HTTPStatus(status).phrase}).encode()
        self._send(status, body, {"Content-Type": "application/json"} | about | (headers or {}))


def _pieces(path: Path, start: int, length: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while length > 0 and (piece := file.read(min(_PIECE, length))):
            length -= len(piece)
            yield piece
