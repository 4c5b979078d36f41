"""What the hub answers to an upload: it makes a repository or a branch, says which files are large, takes these, and
commits. It knows the requests of huggingface_hub 2.4 (``create_repo``, ``create_branch``, ``create_commit``)."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from mdl.demo.hub import Hub, HubAnswer, HubRequest, bytes_answer, json_answer
from mdl.demo.repositories import Content, Repo

_CREATE = "/api/repos/create"
_YAML = "/api/validate-yaml"
_CALL = re.compile(r"/api/(model|dataset|space)s/((?:[^/]+/)?[^/]+)/(preupload|commit|branch)/(.+)")
_BATCH = re.compile(r"/(?:(?:datasets|spaces)/)?((?:[^/]+/)?[^/]+)\.git/info/lfs/objects/batch")
_OBJECT = "/lfs/"


class Uploads:
    """Uploads to one hub. Without a ``token`` nobody may write. ``refused`` is a status that every commit is answered
    with; with a ``card_error`` no model card is accepted; ``objects`` are the large files by their sha256, and ``sent``
    those that came, in their order."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.token = ""
        self.refused = 0
        self.card_error = ""
        self.objects: dict[str, bytes] = {}
        self.sent: list[str] = []

    def answer(self, request: HubRequest) -> HubAnswer | None:
        """The answer to a request of an upload; None for any other."""
        call = _CALL.fullmatch(request.path)
        batch = _BATCH.fullmatch(request.path)
        is_object = request.method == "PUT" and request.path.startswith(_OBJECT)
        if is_object:
            return self._take(request)
        if request.method != "POST" or not (call or batch or request.path in (_CREATE, _YAML)):
            return None
        if request.path == _YAML:
            errors = [{"message": self.card_error}] if self.card_error else []
            return json_answer({"errors": errors, "warnings": []}, status=400 if errors else 200)
        if not self.token or request.authorization != f"Bearer {self.token}":
            return json_answer({"error": "Invalid username or password."}, status=401)
        if request.path == _CREATE:
            return self._create(json.loads(request.body), self._hub.url)
        if batch:
            return self._batch(request)
        assert call
        repo_type, repo_id, name, rest = call.groups()
        versions = self._hub.commits(repo_type, unquote(repo_id))
        if not versions:
            return json_answer({}, {"X-Error-Code": "RepoNotFound"}, status=404)
        branch = unquote(rest)
        of_branch = [repo for repo in versions if repo.branch == branch]
        if name == "branch":
            if of_branch:
                return json_answer({"error": "Reference already exists"}, status=409)
            self._hub.publish(replace(versions[-1], branch=branch))
            return json_answer({})
        if name == "preupload":
            return json_answer({"files": [self._mode(one, versions[-1]) for one in json.loads(request.body)["files"]]})
        if self.refused:
            return json_answer({"error": "no"}, status=self.refused)
        return self._commit(request, of_branch[-1])

    def _create(self, asked: dict[str, Any], origin: str) -> HubAnswer:
        repo_id = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        repo_type = asked.get("type", "model")
        if self._hub.commits(repo_type, repo_id):
            return json_answer(
                {"error": "You already created this model repo", "url": f"{origin}/{repo_id}"}, status=409
            )
        private = asked.get("private", asked.get("visibility") == "private")
        files = {".gitattributes": b"*.bin filter=lfs\n"}
        self._hub.publish(Repo(repo_id, files, repo_type, private=private, token=self.token))
        return json_answer({"url": f"{origin}/{repo_id}", "name": repo_id, "id": "1"})

    @staticmethod
    def _mode(file: dict[str, Any], repo: Repo) -> dict[str, Any]:
        is_large = file["size"] > repo.lfs_threshold
        known = repo.stored.get(file["path"])
        oid = known.digest.hex if known else None
        return {"path": file["path"], "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False, "oid": oid}

    def _batch(self, request: HubRequest) -> HubAnswer:
        found = []
        for one in json.loads(request.body)["objects"]:
            href = f"{self._hub.url}{_OBJECT}{one['oid']}"
            actions = {} if one["oid"] in self.objects else {"actions": {"upload": {"href": href, "header": {}}}}
            found.append({"oid": one["oid"], "size": one["size"], **actions})
        return json_answer({"transfer": "basic", "objects": found})

    def _take(self, request: HubRequest) -> HubAnswer:
        oid = request.path.removeprefix(_OBJECT)
        if hashlib.sha256(request.body).hexdigest() != oid:
            return json_answer({"error": "other bytes"}, status=400)
        self.objects[oid] = request.body
        self.sent.append(oid)
        return bytes_answer(200, b"", {})

    def _commit(self, request: HubRequest, head: Repo) -> HubAnswer:
        files: dict[str, Content] = dict(head.files)
        for line in request.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
        commit = replace(head, files=files, commit="")
        self._hub.publish(commit)
        url = f"{self._hub.url}/{head.id}/commit/{commit.commit}"
        return json_answer({"commitUrl": url, "commitOid": commit.commit, "success": True})
