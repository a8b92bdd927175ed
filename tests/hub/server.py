"""A server of the Hub's protocol, for the real client: what a test puts into it, and faults on demand."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub.state import Blob, Fault, Repo, Request, blob
from tests.hub.uploads import POSTS, PUTS, entry

__all__ = ["Fault", "Hub", "offline"]

_REPO = r"/api/(?:models|datasets)/(?P<id>[^/]+/[^/]+)"
_PIECE = 65_536


class Hub:
    """The server's state. `url` is its endpoint.

    Attributes:
        tokens: token → user, who may write where the namespace is that name, and read what is private.
        messages: summary and description of the commits made by upload.
        cards: those that it was asked to check the metadata of.
        complaints: what it finds wrong with it.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: list[Request] = []
        self.messages: list[tuple[str, str]] = []
        self.cards: list[str] = []
        self.complaints: list[str] = []
        self.tokens = {"hf_right": "owner", "hf_stranger": "stranger"}
        self._faults: list[tuple[re.Pattern[str], Fault]] = []
        self._lock = threading.Lock()
        self._kept = TemporaryDirectory()
        self._server = _Server(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Close it."""
        self._server.shutdown()
        self._server.server_close()
        self._kept.cleanup()

    def add(
        self,
        name: str,
        folder: Path,
        known_sha256: dict[str, str] | None = None,
        *,
        keep: bool = False,
        in_git: bool = False,
        **access: bool,
    ) -> str:
        """Commit a folder's files to a model or data set, `private` or `gated` if it is new; returns the commit's hash.

        All that was there goes, unless it is to `keep`. With `in_git` no file is kept apart from git.
        """
        files = self.repos[name].commits[self.repos[name].refs["main"]].copy() if keep else {}
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            inside = path.relative_to(folder).as_posix()
            made = blob(path, inside, (known_sha256 or {}).get(path.name))
            files[inside] = replace(made, lfs=False) if in_git else made
        return self.repos.setdefault(name, Repo(name, **access)).commit(files)

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """What a model holds."""
        found = self.repos[name].at(revision)
        assert found is not None
        return {name: kept.path.read_bytes() for name, kept in found[1].items()}

    def keep(self, content: bytes) -> Path:
        """Put uploaded bytes on disk."""
        with self._lock:
            path = Path(self._kept.name, str(len(list(Path(self._kept.name).iterdir()))))
            path.write_bytes(content)
        return path

    def fail(self, path: str, *faults: Fault) -> None:
        """Let the next requests whose method and path match go wrong, one for each fault."""
        self._faults += [(re.compile(path), fault) for fault in faults]

    def fault_of(self, request: str) -> Fault | None:
        """The fault that is due, taken off the list."""
        with self._lock:
            for place, (pattern, fault) in enumerate(self._faults):
                if pattern.search(request):
                    del self._faults[place]
                    return fault
        return None

    def mend(self) -> None:
        """Forget the faults that did not happen yet."""
        self._faults.clear()

    @property
    def faults_left(self) -> int:
        """Faults that did not happen."""
        return len(self._faults)

    @property
    def sent(self) -> int:
        """Bytes of bodies sent so far."""
        return sum(request.sent for request in self.requests)

    @property
    def received(self) -> int:
        """Bytes of bodies received so far."""
        return sum(request.received for request in self.requests)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError | ValueError):  # a client that hung up, or was cut off, is no news
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = _PIECE  # head and body in one packet: else each waits 40 ms for the client to acknowledge the head
    disable_nagle_algorithm = True
    hub: Hub

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        """Nothing: the requests are in `Hub.requests`."""

    @property
    def user(self) -> str | None:
        """Who asks."""
        return self.hub.tokens.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    @property
    def asks_for_pull(self) -> bool:
        return "create_pr=1" in urlsplit(self.path).query

    def may_write(self, name: str) -> bool:
        """Whether the user may write to a model; answers if not."""
        if self.user is None:
            self.error(401)
        elif self.user != name.partition("/")[0]:
            self.error(403)
        else:
            return True
        return False

    def _answer(self) -> None:
        self.path = unquote(self.path)
        self._sent = self._received = self._status = 0
        self._body: bytes | None = None
        fault = self.hub.fault_of(f"{self.command} {self.path}")
        if fault is not None and fault.first is not None:
            fault.first()
        try:
            if fault is not None and fault.status is not None:
                self.error(fault.status, headers=fault.headers, body=fault.body)
            else:
                self._route(fault)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            asked = self.headers.get("Range")
            self.hub.requests.append(Request(self.command, self.path, asked, self._status, self._sent, self._received))

    def _route(self, fault: Fault | None) -> None:
        path = urlsplit(self.path).path
        for pattern, route in {"POST": POSTS, "PUT": PUTS}.get(self.command, ()):
            if match := re.fullmatch(pattern, path):
                return route(self, match.groupdict(), fault)
        if path == "/api/models":
            return self._models(parse_qs(urlsplit(self.path).query))
        routes = (
            (_REPO + r"(/revision/(?P<revision>.+))?", self._info),
            (_REPO + r"/tree/(?P<revision>refs/pr/\d+|[^/]+)(/(?P<inside>.+))?", self._tree),
            (r"(?:/datasets)?/(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>refs/pr/\d+|[^/]+)/(?P<name>.+)", self._file),
        )
        for pattern, read in routes:
            if match := re.fullmatch(pattern, path):
                given = match.groupdict()
                repo = self.hub.repos.get(given["id"])
                if repo is None or (repo.private and self.user is None):
                    return self.error(401, code="RepoNotFound")
                if repo.gated:
                    return self.error(403, code="GatedRepo")
                at = repo.at(given["revision"] or "main")
                if at is None:
                    return self.error(404, code="RevisionNotFound")
                return read(given, *at, fault)
        return self.error(404)

    def _models(self, asked: dict[str, list[str]]) -> None:
        author, text = (asked.get(name, [""])[0] for name in ("author", "search"))
        names = [name for name in self.hub.repos if name.startswith(f"{author}/" if author else "") and text in name]
        listed = names[: int(asked.get("limit", ["100"])[0])]
        self.send_json([{"id": name, "modelId": name, "tags": []} for name in listed])

    def _info(self, given: dict[str, str], commit: str, files: dict[str, Blob], fault: Fault | None) -> None:
        siblings = [
            {"rfilename": name, "size": blob.size, "blobId": blob.oid}
            | ({"lfs": {"sha256": blob.sha256, "size": blob.size, "pointerSize": 130}} if blob.lfs else {})
            for name, blob in files.items()
        ]
        private = self.hub.repos[given["id"]].private
        about = {"id": given["id"], "modelId": given["id"], "sha": commit, "siblings": siblings, "tags": []}
        self.send_json(about | {"private": private})

    def _tree(self, given: dict[str, str], commit: str, files: dict[str, Blob], fault: Fault | None) -> None:
        inside = f"{given['inside']}/" if given["inside"] else ""
        found = [entry(name, blob) for name, blob in files.items() if name.startswith(inside)]
        if not found and inside:
            return self.error(404, code="EntryNotFound")
        self.send_json(found)

    def _file(self, given: dict[str, str], commit: str, files: dict[str, Blob], fault: Fault | None) -> None:
        blob = files.get(given["name"])
        if blob is None:
            return self.error(404, code="EntryNotFound")
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
        wrong = fault.flip_at % left if fault and fault.flip_at is not None else None
        for piece in _pieces(blob.path, start, left):
            self.wfile.write(_flipped(piece, None if wrong is None else wrong - self._sent))
            self._sent += len(piece)
        if cut is not None:
            self.hang_up()

    def body(self, cut_after: int | None = None) -> bytes | None:
        """What was uploaded; None where the connection was cut in the middle of it."""
        if self._body is None:
            self._body = b""
            for piece in self._pieces_sent():
                self._body += piece
                if cut_after is not None and len(self._body) >= cut_after:
                    break
            self._received = len(self._body)
        if cut_after is None:
            return self._body
        self.hang_up()
        return None

    def _pieces_sent(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding") != "chunked":
            yield self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def json(self) -> Any:
        """What was sent, read as JSON."""
        return json.loads(self.body() or b"null")

    def hang_up(self) -> None:
        """Cut the connection."""
        self.wfile.flush()
        self.connection.close()
        self.close_connection = True

    def send_json(self, value: Any, status: int = 200) -> None:
        """Answer with JSON."""
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.body()  # what was sent along is read in any case, for the connection goes on
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

    def error(self, status: int, code: str = "", headers: dict[str, str] | None = None, body: object = None) -> None:
        """Refuse."""
        about = {"X-Error-Code": code} if code else {}
        kind = "text/html" if isinstance(body, str) else "application/json"
        content = body if isinstance(body, str) else json.dumps(body or {"error": HTTPStatus(status).phrase})
        self._send(status, content.encode(), {"Content-Type": kind} | about | (headers or {}))


def _pieces(path: Path, start: int, length: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while length > 0 and (piece := file.read(min(_PIECE, length))):
            length -= len(piece)
            yield piece


def _flipped(piece: bytes, place: int | None) -> bytes:
    if place is None or not 0 <= place < len(piece):
        return piece
    return piece[:place] + bytes([piece[place] ^ 1]) + piece[place + 1 :]


def offline() -> AbstractContextManager[object]:
    """The client is told that there is no network."""
    return mock.patch("huggingface_hub.constants.HF_HUB_OFFLINE", True)
