"""How files come to the Hub: repositories, branches, what to upload how, objects by sha256, and commits."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from tests.hub.state import Blob, Fault, Repo, blob

if TYPE_CHECKING:
    from tests.hub.server import Handler


def create(http: Handler, given: dict[str, str], fault: Fault | None) -> None:
    asked = http.json()
    name = f"{asked.get('organization') or http.user}/{asked['name']}"
    if not http.may_write(name):
        return
    if name in http.hub.repos:
        return http.send_json({"error": "You already created this model repo"}, 409)
    repo = http.hub.repos[name] = Repo(name, private=asked.get("visibility") == "private")
    repo.commit({})
    http.send_json({"url": f"{http.hub.url}/{name}", "name": name})


def branch(http: Handler, given: dict[str, str], fault: Fault | None) -> None:
    repo = http.hub.repos[given["id"]]
    if not http.may_write(repo.name):
        return
    if given["revision"] in repo.refs:
        return http.send_json({"error": "Reference already exists"}, 409)
    repo.refs[given["revision"]] = repo.refs["main"]
    http.send_json({})


def validate(http: Handler, given: dict[str, str], fault: Fault | None) -> None:
    http.hub.cards.append(http.json()["content"])
    found = [{"message": complaint} for complaint in http.hub.complaints]
    http.send_json({"errors": found, "warnings": []}, 400 if found else 200)


def preupload(http: Handler, given: dict[str, str], fault: Fault | None) -> None:
    found = _writable(http, given)
    if found is None:
        return
    _, files = found
    answers = []
    for file in http.json()["files"]:
        mode = "lfs" if blob(Path(), file["path"], "-").lfs or file["size"] > 10_000_000 else "regular"
        there = files.get(file["path"])
        oid = {"oid": there.etag} if there else {}
        answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False} | oid)
    http.send_json({"files": answers})


def batch(http: Handler, given: dict[str, str], fault: Fault | None) -> None:
    """What of these is to be uploaded, and where to."""
    repo = http.hub.repos.get(given["id"])
    if repo is None or http.user is None:
        return http.error(401, code="RepoNotFound")
    objects = []
    for wanted in http.json()["objects"]:
        target = f"{http.hub.url}/objects/{given['id']}/{wanted['oid']}"
        upload = {} if wanted["oid"] in repo.objects else {"actions": {"upload": {"href": target, "header": {}}}}
        objects.append(wanted | upload)
    http.send_json({"transfer": "basic", "objects": objects})


def put(http: Handler, given: dict[str, str], fault: Fault | None) -> None:
    """An object's bytes; what is cut or is not what its name says is not kept."""
    body = http.body(fault.cut_after if fault else None)
    if body is None:
        return
    if hashlib.sha256(body).hexdigest() != given["oid"]:
        return http.error(400)
    http.hub.repos[given["id"]].objects[given["oid"]] = http.hub.keep(body)
    http.send_json({})


def duplicate(http: Handler, given: dict[str, str], fault: Fault | None) -> None:
    """Objects of this repository, into another one, without a byte of them being sent."""
    asked = http.json()
    source, target = http.hub.repos[given["id"]], http.hub.repos[asked["target"]["name"]]
    there = {kept.sha256: kept.path for files in source.commits.values() for kept in files.values() if kept.lfs}
    for file in asked["files"]:
        assert file["xetHash"] == _xet(file["sha256"])
        target.objects[file["sha256"]] = there[file["sha256"]]
    http.send_json({"failed": [], "success": [{"sha256": file["sha256"]} for file in asked["files"]]})


def paths(http: Handler, given: dict[str, str], fault: Fault | None) -> None:
    wanted = parse_qs(http.body().decode())["paths"]
    found = http.hub.repos[given["id"]].at(given["revision"])
    assert found is not None
    http.send_json([entry(name, found[1][name]) for name in wanted if name in found[1]])


def entry(name: str, kept: Blob) -> dict[str, Any]:
    """A file as listings have it."""
    about = {"type": "file", "path": name, "size": kept.size, "oid": kept.oid}
    if kept.lfs:
        about |= {"lfs": {"oid": kept.sha256, "size": kept.size, "pointerSize": 130}, "xetHash": _xet(kept.sha256)}
    return about


def commit(http: Handler, given: dict[str, str], fault: Fault | None) -> None:
    """All of it, or nothing."""
    found = _writable(http, given)
    if found is None:
        return
    body = http.body(fault.cut_after if fault else None)
    if body is None:
        return
    repo = http.hub.repos[given["id"]]
    parent, files = found[0], dict(found[1])
    for line in body.decode().splitlines():
        item = json.loads(line)
        value = item["value"]
        if item["key"] == "header":
            wanted = value.get("parentCommit") or parent
            if wanted != parent and not http.asks_for_pull:
                return http.error(412)
            http.hub.messages.append((value["summary"], value["description"]))
        elif item["key"] == "file":
            files[value["path"]] = blob(http.hub.keep(base64.b64decode(value["content"])), value["path"])
        elif item["key"] == "lfsFile":
            if value["oid"] not in repo.objects:
                return http.error(400)  # nobody uploaded it
            files[value["path"]] = blob(repo.objects[value["oid"]], value["path"], value["oid"])
        elif item["key"] == "deletedFile":
            del files[value["path"]]
    pulls = sum(ref.startswith("refs/pr/") for ref in repo.refs)
    ref = f"refs/pr/{pulls + 1}" if http.asks_for_pull else given["revision"]
    made = repo.commit(files, ref)
    if fault and fault.unanswered:
        return http.hang_up()
    pull = {"pullRequestUrl": f"{http.hub.url}/{repo.name}/discussions/{pulls + 1}"} if http.asks_for_pull else {}
    http.send_json(
        {"success": True, "commitOid": made, "commitUrl": f"{http.hub.url}/{repo.name}/commit/{made}"} | pull
    )


def _writable(http: Handler, given: dict[str, str]) -> tuple[str, dict[str, Blob]] | None:
    """The commit and files to build on; None where that was refused. A pull request may come from anybody."""
    repo = http.hub.repos.get(given["id"])
    if repo is None:
        http.error(401, code="RepoNotFound")
        return None
    if not (http.user if http.asks_for_pull else http.may_write(given["id"])):
        return None
    found = repo.at(given["revision"])
    if found is None:
        http.error(404, code="RevisionNotFound")
    return found


def _xet(sha256: str) -> str:
    return "xet" + sha256[:32]


POSTS = (
    (r"/api/repos/create", create),
    (r"/api/validate-yaml", validate),
    (r"/api/models/(?P<id>[^/]+/[^/]+)/branch/(?P<revision>.+)", branch),
    (r"/api/models/(?P<id>[^/]+/[^/]+)/preupload/(?P<revision>.+)", preupload),
    (r"/api/(?:models|datasets)/(?P<id>[^/]+/[^/]+)/paths-info/(?P<revision>.+)", paths),
    (r"/api/models/(?P<id>[^/]+/[^/]+)/lfs-files/duplicate", duplicate),
    (r"/api/models/(?P<id>[^/]+/[^/]+)/commit/(?P<revision>[^?]+)", commit),
    (r"/(?P<id>[^/]+/[^/]+)\.git/info/lfs/objects/batch", batch),
)
PUTS = ((r"/objects/(?P<id>[^/]+/[^/]+)/(?P<oid>[0-9a-f]{64})", put),)

__all__ = ["POSTS", "PUTS", "entry"]
