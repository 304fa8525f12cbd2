"""A Hugging Face Hub on 127.0.0.1, so that the real client can be tested without the network.

    with LoopbackHub(token="hf_test") as hub:
        api = HfApi(endpoint=hub.url, token="hf_test")  # or a subprocess with hub.env()
        api.create_repo("tester/model")

It speaks what huggingface_hub 2.4 needs of the Hub's API without Xet (HF_HUB_DISABLE_XET=1), in
memory. Unlike the Hub it serves LFS files itself instead of redirecting to a CDN, takes no file in
parts, and has a fixed clock. `token` writes to tester/* and org/*, `read_token` only reads there;
private repos look missing to others; every token that writes opens pull requests where it reads.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import threading
import time
from http.server import ThreadingHTTPServer
from itertools import takewhile
from typing import Any
from urllib.parse import parse_qs, unquote

import yaml  # huggingface_hub itself needs it, so it is there wherever the client is

from tests.support.hub_connection import Connection
from tests.support.hub_refs import Refs
from tests.support.hub_state import (
    MOST,
    Account,
    Commit,
    Faults,
    Reply,
    Repo,
    Request,
    git_id,
)

__all__ = ["LoopbackHub"]

LFS_SUFFIXES = (".safetensors", ".onnx", ".bin", ".npy", ".npz", ".pt", ".tar", ".zip", ".parquet")
LFS_SIZE = 10_000_000  # bytes; the Hub takes regular files up to 10 MB
WEB = r"/((?:(?:datasets|spaces)/)?[^/]+/[^/]+?)"
PATHS = (  # (repo or nothing, verb, up to two arguments)
    r"/api/((?:models|datasets|spaces)/[^/]+/[^/]+)(?:/([^/]+))?(?:/(.+))?",
    WEB + r"(?:\.git/info/lfs/objects)?/(batch|verify|resolve)/?(.*)",
    r"()/(?:api/)?(?:repos/)?([^/]*)/?(.*)",  # whoami-v2, validate-yaml, create, jobs, ...
)
PROPOSING = ("preupload", "commit", "batch", "verify")  # verbs that a pull request needs


def front_matter(card: str) -> Any:
    match = re.match(r"\s*---\s*\n(.*?)\n---", card, re.DOTALL)
    return (yaml.safe_load(match[1]) if match else None) or {}


class LoopbackHub(Refs):
    """The server and its state. `requests` logs every call, `bytes_received` sums LFS uploads."""

    def __init__(
        self, token: str = "hf_test", read_token: str = "hf_read", host: str = "127.0.0.1"
    ) -> None:
        self.token, self.faults = token, Faults()
        self.requests: list[Request] = []
        self.accounts: dict[str, Account] = {"": ("", False, ())}  # by token
        self.add_token(token, "tester", "org")
        self.add_token(read_token, "tester", "org", may_write=False)
        self.repos: dict[str, Repo] = {}  # by Repo.web
        self.contents: dict[str, bytes] = {}  # by git blob id or sha256
        self.jobs: list[dict[str, Any]] = []  # as they were asked for; none is run
        self._uploads: dict[str, tuple[Repo, str]] = {}  # by the key that signs the URL
        self._lock = threading.Lock()
        connection = type("ConnectionToThisHub", (Connection,), {"hub": self})
        self._server = ThreadingHTTPServer((host, 0), connection)
        self._server.socket.listen(128)  # 5 by default, and clients open many at once
        self.url = f"http://{host}:{self._server.server_port}"

    def __enter__(self) -> LoopbackHub:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Answer nobody any longer."""
        self._server.shutdown()
        self._server.server_close()

    def env(self) -> dict[str, str]:
        return {"HF_ENDPOINT": self.url, "HF_TOKEN": self.token, "HF_HUB_DISABLE_XET": "1"}

    def add_token(self, token: str, user: str, *orgs: str, may_write: bool = True) -> None:
        self.accounts[token] = (user, may_write, (user, *orgs))

    def content(self, repo: str, path: str, rev: str = "main") -> bytes:
        return self.contents[self.repos[repo].head(rev).files[path]]

    def calls(self, part: str, *methods: str) -> list[Request]:
        return [c for c in self.requests if part in c.path and c.method in (methods or [c.method])]

    @property
    def bytes_received(self) -> int:
        return sum(call.received for call in self.calls("/lfs-upload/"))

    def answer(self, call: Request, raw_path: str) -> Reply:
        """What the method that is named after HTTP method and verb returns or raises."""
        if delay := self.faults.take("delay", call):
            time.sleep(delay.value)
        if fault := self.faults.take("status", call):
            return Reply(int(fault.value), "planned fault")
        try:
            with self._lock:
                return Reply(200, self._dispatch(call, raw_path))
        except Reply as reply:
            return reply

    def _dispatch(self, call: Request, raw_path: str) -> Any:
        token = call.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in self.accounts:
            raise Reply(401, "Invalid credentials in Authorization header")
        call.account = self.accounts[token]
        web, verb, rest = next(m for path in PATHS if (m := re.fullmatch(path, raw_path))).groups()
        method = "get" if call.method == "HEAD" else call.method.lower()
        endpoint = getattr(self, f"{method}_{verb or 'revision'}".replace("-", "_"), None)
        if endpoint is None:
            raise Reply(404, "Not found")
        args: list[Any] = [unquote(arg) for arg in rest.split("/", 1)] if rest else []
        if web:
            need = "read" if method == "get" or verb == "paths-info" else "write"
            need = "open" if verb == "resolve" else "propose" if verb in PROPOSING else need
            args.insert(0, self._allow(call, web.removeprefix("models/"), need))
        return endpoint(call, *args)

    def _allow(self, call: Request, web: str, need: str) -> Repo | None:
        """The repo for a caller who may read, open (its files), propose to, write or create it."""
        repo, (name, may_write, spaces) = self.repos.get(web), call.account
        mine = web.split("/")[-2] in spaces
        if need != "create" and (repo is None or (repo.private and not mine)):
            raise Reply(404 if name else 401, "Repository not found", "RepoNotFound")
        if need == "open" and repo and repo.gated and not mine and name not in repo.readers:
            raise Reply(403 if name else 401, f"{web} is gated", "GatedRepo")
        if need not in ("read", "open") and not (may_write and (mine or need == "propose")):
            raise Reply(403 if name else 401, f"This token has no right to {need} to {web}")
        return repo

    def get_whoami_v2(self, call: Request) -> Any:
        name, may_write, spaces = call.account
        auth = {"accessToken": {"role": "write" if may_write else "read"}}
        orgs = [{"name": org} for org in spaces[1:]]
        return {"type": "user", "name": name, "orgs": orgs, "auth": auth}

    def post_jobs(self, call: Request, namespace: str) -> Any:
        name, may_write, spaces = call.account
        if not may_write or namespace not in spaces:
            raise Reply(403 if name else 401, f"This token has no right to jobs of {namespace}")
        self.jobs.append(call.json())
        status = {"stage": "RUNNING", "message": None}
        owner = {"id": name, "name": namespace, "type": "user"}
        made = {"id": f"{len(self.jobs):024x}", "status": status, "owner": owner}
        return {**self.jobs[-1], **made, "createdAt": "2026-01-01T00:00:00.000Z", "secrets": {}}

    def post_validate_yaml(self, call: Request) -> Any:
        try:
            data = dict(front_matter(call.json()["content"]))
        except (yaml.YAMLError, TypeError, ValueError) as error:
            raise Reply(400, {"errors": [{"message": str(error)}]}) from error
        return {"warnings": [] if data else [{"message": "empty or missing metadata"}]}

    def _web(self, call: Request) -> str:
        given = call.json()
        name = f"{given.get('organization') or call.account[0]}/{given['name']}"
        return f"{given.get('type') or 'model'}s/{name}".removeprefix("models/")

    def post_create(self, call: Request) -> Any:
        web = self._web(call)
        self._allow(call, web, "create")
        if web in self.repos:
            raise Reply(409, {"url": f"{self.url}/{web}", "error": f"{web} already exists"})
        repo = self.repos[web] = Repo(web, call.json().get("visibility") == "private")
        attributes = "".join(f"*{end} filter=lfs\n" for end in LFS_SUFFIXES).encode()
        repo.record("refs/heads/main", "initial commit", {".gitattributes": self._put(attributes)})
        return {"url": f"{self.url}/{web}"}

    def delete_delete(self, call: Request) -> None:
        del self.repos[self._allow(call, self._web(call), "write").web]

    def put_settings(self, call: Request, repo: Repo) -> Any:
        given = call.json()
        repo.private = given.get("visibility", "private" if repo.private else "") == "private"
        repo.gated = given.get("gated", repo.gated)
        return given

    def get_revision(self, call: Request, repo: Repo, rev: str = "main") -> Any:
        head, name = repo.head(rev), "/".join(repo.web.split("/")[-2:])
        card = front_matter(self.contents.get(head.files.get("README.md", ""), b"").decode())
        siblings = [{"rfilename": path} for path in sorted(head.files)]
        for item in siblings if "blobs" in call.query else []:
            item |= self._blob(head.files[item["rfilename"]])
        answer = {"id": name, "sha": head.id, "private": repo.private, "gated": repo.gated}
        return answer | {"lastModified": head.date, "cardData": card, "siblings": siblings}

    def _put(self, content: bytes) -> str:
        self._keep(git_id(content), content)
        return git_id(content)

    def _keep(self, key: str, content: bytes) -> None:
        if sum(map(len, self.contents.values())) + len(content) > MOST["contents"]:
            raise Reply(507, f"More than {MOST['contents']} bytes in all")
        self.contents[key] = content

    def _blob(self, key: str) -> dict[str, Any]:
        """Ids and size of a content, under the names that siblings and tree give them."""
        size, lfs = len(self.contents[key]), len(key) == 64
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{key}\nsize {size}\n"
        oid = git_id(pointer.encode()) if lfs else key
        about = {"size": size, "oid": key, "sha256": key, "pointerSize": len(pointer)}
        return {"size": size, "oid": oid, "blobId": oid} | ({"lfs": about} if lfs else {})

    def _target(self, call: Request, repo: Repo, rev: str) -> tuple[str, Commit]:
        """(ref, head) to commit to, for a caller who may; a new pull request gets a new ref."""
        head, ref = repo.head(rev), rev if rev.startswith("refs/") else f"refs/heads/{rev}"
        if "create_pr" in call.query:
            return f"refs/pr/{sum('refs/pr/' in ref for ref in repo.refs) + 1}", head
        if not ref.startswith("refs/pr/"):
            self._allow(call, repo.web, "write")
        if ref not in repo.refs or ref.startswith("refs/tags/"):
            raise Reply(400, f"{rev} is not a branch")
        return ref, head

    def post_preupload(self, call: Request, repo: Repo, rev: str) -> Any:
        files, old = call.json()["files"], self._target(call, repo, rev)[1].files
        for file in files:
            lfs = file["size"] > LFS_SIZE or file["path"].endswith(LFS_SUFFIXES)
            lfs = lfs or b"\0" in base64.b64decode(file["sample"])
            file |= {"uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
            file["oid"] = old.get(file["path"])
        return {"files": files}

    def post_batch(self, call: Request, repo: Repo) -> Any:
        objects = call.json()["objects"]
        for item in objects:
            if item["oid"] not in repo.objects:
                self._uploads[key := secrets.token_hex(8)] = (repo, item["oid"])
                upload = {"href": f"{self.url}/lfs-upload/{key}/{item['oid']}"}
                verify = {"href": f"{self.url}{call.path.removesuffix('batch')}verify"}
                item["actions"] = {"upload": upload, "verify": verify}
        return {"transfer": "basic", "objects": objects}

    def put_lfs_upload(self, call: Request, key: str, oid: str) -> Any:
        repo, wanted = self._uploads.get(key, (None, ""))
        if repo is None or oid != wanted or hashlib.sha256(call.body).hexdigest() != oid:
            raise Reply(400, f"The link is not valid or the content is not {oid}")
        self._keep(oid, bytes(call.body))
        repo.objects.add(oid)

    def post_verify(self, call: Request, repo: Repo) -> Any:
        oid, size = call.json()["oid"], call.json()["size"]
        if oid not in repo.objects or len(self.contents[oid]) != size:
            raise Reply(404, f"No object {oid} of {size} bytes")

    def post_commit(self, call: Request, repo: Repo, rev: str) -> Any:
        """All operations or none: nothing changes before every line has been accepted."""
        ref, head = self._target(call, repo, rev)
        (_, header), *changes = [json.loads(line).values() for line in call.body.splitlines()]
        parent = header.get("parentCommit") or head.id
        if not head.id.startswith(parent) and "create_pr" not in call.query:
            raise Reply(412, f"{rev} is at {head.id}, no longer at {parent}")
        base = repo.head(parent)
        files = dict(base.files)
        if len(files) + len(changes) > MOST["files"]:
            raise Reply(413, f"More than {MOST['files']} files")
        for key, value in changes:
            path = value["path"].removesuffix("/")
            missing = key == "lfsFile" and value["oid"] not in repo.objects
            if missing or {"", ".", ".."} & set(path.split("/")):
                raise Reply(400, f"Invalid path, or LFS object not uploaded: {path}")
            if key == "file":
                files[path] = self._put(base64.b64decode(value["content"]))
            elif key == "lfsFile":
                files[path] = value["oid"]
            else:  # deletedFile or deletedFolder; no path starts with a slash
                folder = f"{path}/" if key == "deletedFolder" else "/"
                kept = {n: k for n, k in files.items() if n != path and not n.startswith(folder)}
                if kept == files:
                    raise Reply(404, f"No such file: {path}", "EntryNotFound")
                files = kept
        oid = repo.record(ref, header["summary"], files, base.id)
        web, num = f"{self.url}/{repo.web}", ref.split("/")[-1]
        pull = {"pullRequestUrl": f"{web}/discussions/{num}"} if "create_pr" in call.query else {}
        return {"commitOid": oid, "commitUrl": f"{web}/commit/{oid}"} | pull

    def _entry(self, repo: Repo, head: Commit, path: str, expand: bool) -> dict[str, Any]:
        def within(commit: Commit) -> list[tuple[str, str]]:
            return sorted(f for f in commit.files.items() if f"{f[0]}/".startswith(f"{path}/"))

        entry: dict[str, Any] = {"type": "directory", "oid": git_id(repr(within(head)).encode())}
        if path in head.files:
            entry = {"type": "file"} | self._blob(head.files[path])
        if expand:
            *_, last = takewhile(lambda c: within(c) == within(head), repo.history(head.id))
            entry["lastCommit"] = {"id": last.id, "title": last.title, "date": last.date}
        return entry | {"path": path}

    def get_tree(self, call: Request, repo: Repo, rev: str, path: str = "") -> Any:
        head, start, deep = repo.head(rev), f"{path}/" if path else "", "recursive" in call.query
        inside = [name[len(start) :].split("/") for name in head.files if name.startswith(start)]
        if path and not inside:
            raise Reply(404, f"{path} does not exist on {rev}", "EntryNotFound")
        names = {start + "/".join(p[: n + 1]) for p in inside for n in range(len(p) if deep else 1)}
        return [self._entry(repo, head, name, "expand" in call.query) for name in sorted(names)]

    def post_paths_info(self, call: Request, repo: Repo, rev: str) -> Any:
        head, form = repo.head(rev), parse_qs(call.body.decode())
        known = [f"{name}/" for name in head.files]
        paths = [path for path in form["paths"] if any(n.startswith(f"{path}/") for n in known)]
        return [self._entry(repo, head, path, form["expand"] == ["true"]) for path in paths]

    def get_resolve(self, call: Request, repo: Repo, rev: str, path: str) -> None:
        head = repo.head(rev)
        headers = {"X-Repo-Commit": head.id, "Accept-Ranges": "bytes"}
        if path not in head.files:
            raise Reply(404, f"{path} is not in {rev}", "EntryNotFound", **headers)
        key = head.files[path]
        content, size = self.contents[key], len(self.contents[key])
        if content and call.method == "GET" and self.faults.take("corrupt", call):
            at = size // 2
            content = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        headers["ETag"] = f'"{key}"'
        if len(key) == 64:
            headers |= {"X-Linked-Etag": f'"{key}"', "X-Linked-Size": str(size)}
        asked = re.fullmatch(r"bytes=(?:(\d+)-(\d*)|-(\d+))", call.headers.get("range", ""))
        if asked is None:
            raise Reply(200, content, **headers)
        start = int(asked[1]) if asked[1] else max(size - int(asked[3]), 0)
        end = min(int(asked[2] or size) + 1, size)
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        raise Reply(206 if start < end else 416, content[start:end], **headers)
