"""What the loopback Hub holds: requests, replies, planned faults, commits, repos."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partialmethod
from typing import Any, NamedTuple

__all__ = [
    "MOST",
    "Account",
    "Commit",
    "Fault",
    "Faults",
    "Files",
    "Reply",
    "Repo",
    "Request",
    "git_id",
]

MOST = {"line": 8192, "headers": 32768, "body": 1 << 28, "files": 10_000, "contents": 1 << 30}
"""What one request, one commit and the whole Hub may hold, in characters, bytes and files."""


Account = tuple[str, bool, tuple[str, ...]]  # name, whether the token may write, own namespaces


Files = dict[str, str]  # path -> git blob id (40 digits) or, in LFS, sha256 (64 digits)


def git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Request:
    """One call: who asked for what, and how many body bytes went each way."""

    method: str
    path: str  # percent-decoded, without the query
    query: dict[str, str]  # without what is false
    headers: dict[str, str]  # names in lower case
    account: Account = ("", False, ())  # as yet nobody
    status: int | None = None  # stays None when the connection was cut
    received: int = 0
    sent: int = 0
    body: bytearray = field(default_factory=bytearray, repr=False)  # emptied once answered

    def json(self) -> Any:
        return json.loads(self.body or b"{}")


class Reply(Exception):  # noqa: N818 - it is raised to end a request, with or without an error
    """Status, body (bytes or JSON), headers; a str is an error, `code` tells the client which."""

    def __init__(self, status: int, body: Any, code: str = "", **headers: str) -> None:
        self.status, self.body, self.headers = status, body, headers
        if isinstance(body, str):
            self.body = {"error": body}
            self.headers |= {"X-Error-Message": body, "X-Error-Code": code}


@dataclass
class Fault:
    kind: str
    path_part: str
    value: float = 0
    times: float = 1  # how often it is still to strike, may be infinite
    method: str | None = None  # None: any
    fired: int = 0  # how often it struck


class Faults(list[Fault]):
    """Planned trouble for requests whose decoded path contains `path_part`.

    cut: hang up after `value` bytes of the upload or else the answer, if that has more; corrupt:
    flip a bit of a downloaded file, not its size or headers; status: answer with status `value` and
    do nothing else; delay: wait `value` seconds first; lose_reply: do as asked, then hang up. LFS
    uploads go to /lfs-upload/<key>/<sha256>, downloads to /<repo>/resolve/<revision>/<path>.
    """

    def plan(self, kind: str, path_part: str, value: float = 0, **when: Any) -> Fault:
        self.append(Fault(kind, path_part, value, **when))
        return self[-1]

    cut = partialmethod(plan, "cut")
    corrupt = partialmethod(plan, "corrupt")
    status = partialmethod(plan, "status")
    delay = partialmethod(plan, "delay")
    lose_reply = partialmethod(plan, "lose_reply")

    def take(self, kind: str, call: Request, size: float = 1e99) -> Fault | None:
        """The fault of this kind that strikes now, if any; `size` is the length of the body."""
        for fault in self:
            fits = fault.path_part in call.path and fault.method in (None, call.method)
            if fault.kind == kind and fits and fault.times > 0 and size > fault.value:
                fault.times, fault.fired = fault.times - 1, fault.fired + 1
                return fault
        return None


class Commit(NamedTuple):
    id: str  # 40 hex digits
    parents: tuple[str, ...]
    title: str
    date: str
    files: Files


@dataclass
class Repo:
    """A repo with its history. `refs` maps refs/heads/x, refs/tags/x, refs/pr/n to a commit id."""

    web: str  # tester/model, datasets/tester/data
    private: bool
    gated: str | bool = False
    readers: set[str] = field(default_factory=set)  # people let into a gated repo
    objects: set[str] = field(default_factory=set)  # sha256 of the LFS objects uploaded to it
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def head(self, rev: str = "main") -> Commit:
        """The commit of a branch, tag, ref or (abbreviated) commit id; typed 404 otherwise."""
        refs = (f"refs/heads/{rev}", f"refs/tags/{rev}", rev)
        oid = next((self.refs[ref] for ref in refs if ref in self.refs), rev)
        for commit in self.commits.values():
            if commit.id.startswith(oid) and len(oid) >= 7:
                return commit
        raise Reply(404, f"Invalid rev id: {rev}", "RevisionNotFound")

    def history(self, rev: str = "main") -> list[Commit]:
        """Commits of a revision along first parents, newest first."""
        head = self.head(rev)
        return [head, *self.history(head.parents[0])] if head.parents else [head]

    def record(self, ref: str, title: str, files: Files, *parents: str) -> str:
        """Make a commit and move `ref` to it; the clock counts commits from a fixed day."""
        date = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=len(self.commits))
        commit = Commit("", parents, title, date.strftime("%Y-%m-%dT%H:%M:%S.000Z"), files)
        oid = hashlib.sha1(json.dumps([self.web, *commit]).encode()).hexdigest()
        self.commits[oid], self.refs[ref] = commit._replace(id=oid), oid
        return oid
