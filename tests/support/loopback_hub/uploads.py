"""What the hub answers to an upload: it makes a repository or a branch, says which files are large, takes these, and
commits. It knows the requests of huggingface_hub 2.4 (``create_repo``, ``create_branch``, ``create_commit``)."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from support.faults.wire import Answer, Request, reply
from support.loopback_hub.repos import Repo

if TYPE_CHECKING:
    from support.loopback_hub.api import HubApi

_CREATE = "/api/repos/create"
_YAML = "/api/validate-yaml"
_CALL = re.compile(r"/api/(models|datasets|spaces)/((?:[^/]+/)?[^/]+)/(preupload|commit|branch)/(.+)")
_BATCH = re.compile(r"/(?:(datasets|spaces)/)?((?:[^/]+/)?[^/]+)\.git/info/lfs/objects/batch")
_OBJECT = "/lfs/"


class Uploads:
    """Uploads to one hub. Without a ``token`` nobody may write. ``refused`` is a status that every commit is answered
    with; ``objects`` are the large files by their sha256, and ``sent`` those that came, in their order."""

    def __init__(self, hub: HubApi) -> None:
        self._hub = hub
        self.token = ""
        self.refused = 0
        self.objects: dict[str, bytes] = {}
        self.sent: list[str] = []

    def answer(self, request: Request) -> Answer | None:
        """The answer to a request of an upload; None for any other."""
        call = _CALL.fullmatch(request.path)
        batch = _BATCH.fullmatch(request.path)
        is_object = request.method == "PUT" and request.path.startswith(_OBJECT)
        if is_object:
            return self._take(request)
        if request.method != "POST" or not (call or batch or request.path in (_CREATE, _YAML)):
            return None
        if request.path == _YAML:
            return _json({"errors": [], "warnings": []})
        if not self.token or request.header("authorization") != f"Bearer {self.token}":
            return _json({"error": "Invalid username or password."}, 401)
        if request.path == _CREATE:
            return self._create(json.loads(request.body), f"http://{request.header('host')}")
        if batch:
            return self._batch(request)
        assert call
        kind, repo_id, name, rest = call.groups()
        versions = self._hub.versions(kind, unquote(repo_id))
        if not versions:
            return reply(404, b"{}", ("X-Error-Code", "RepoNotFound"))
        branch = unquote(rest)
        of_branch = [repo for repo in versions if repo.branch == branch]
        if name == "branch":
            if of_branch:
                return _json({"error": "Reference already exists"}, 409)
            self._hub.publish(replace(versions[-1], branch=branch))
            return _json({})
        if name == "preupload":
            return _json({"files": [self._mode(one, versions[-1]) for one in json.loads(request.body)["files"]]})
        if self.refused:
            return _json({"error": "no"}, self.refused)
        return self._commit(request, of_branch[-1])

    def _create(self, asked: dict[str, Any], origin: str) -> Answer:
        repo_id = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        repo_type = asked.get("type", "model")
        if self._hub.versions(f"{repo_type}s", repo_id):
            return _json({"error": "You already created this model repo", "url": f"{origin}/{repo_id}"}, 409)
        private = asked.get("private", asked.get("visibility") == "private")
        files = {".gitattributes": b"*.bin filter=lfs\n"}
        self._hub.publish(Repo(repo_id, files, repo_type, private=private, token=self.token))
        return _json({"url": f"{origin}/{repo_id}", "name": repo_id, "id": "1"})

    @staticmethod
    def _mode(file: dict[str, Any], repo: Repo) -> dict[str, Any]:
        is_large = file["size"] > repo.lfs_threshold
        known = repo.stored.get(file["path"])
        oid = known.etag if known else None
        return {"path": file["path"], "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False, "oid": oid}

    def _batch(self, request: Request) -> Answer:
        found = []
        for one in json.loads(request.body)["objects"]:
            href = f"http://{request.header('host')}{_OBJECT}{one['oid']}"
            actions = {} if one["oid"] in self.objects else {"actions": {"upload": {"href": href, "header": {}}}}
            found.append({"oid": one["oid"], "size": one["size"], **actions})
        return _json({"transfer": "basic", "objects": found})

    def _take(self, request: Request) -> Answer:
        oid = request.path.removeprefix(_OBJECT)
        if hashlib.sha256(request.body).hexdigest() != oid:
            return _json({"error": "other bytes"}, 400)
        self.objects[oid] = request.body
        self.sent.append(oid)
        return reply(200, b"")

    def _commit(self, request: Request, head: Repo) -> Answer:
        files = dict(head.files)
        for line in request.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
        commit = replace(head, files=files, commit="")
        self._hub.publish(commit)
        url = f"http://{request.header('host')}/{head.id}/commit/{commit.commit}"
        return _json({"commitUrl": url, "commitOid": commit.commit, "success": True})


def _json(value: Any, status: int = 200) -> Answer:
    return reply(status, json.dumps(value).encode(), ("Content-Type", "application/json"))
