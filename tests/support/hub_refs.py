"""Branches, tags and pull requests of the loopback Hub."""

from __future__ import annotations

from functools import partialmethod
from typing import Any

from tests.support.hub_state import (
    Reply,
    Repo,
    Request,
)


class Refs:
    """What the Hub answers of the refs of a repo."""

    def get_refs(self, call: Request, repo: Repo) -> Any:
        names = {"heads": "branches", "tags": "tags", "pr": "pullRequests", "convert": "converts"}
        answer: dict[str, list[Any]] = {name: [] for name in names.values()}
        for ref, oid in repo.refs.items():
            _, kind, name = ref.split("/", 2)
            answer[names[kind]].append({"name": name, "ref": ref, "targetCommit": oid})
        return answer

    def post_tag(self, call: Request, repo: Repo, rev: str) -> None:
        self._add_ref(repo, f"refs/tags/{call.json()['tag']}", rev)

    def post_branch(self, call: Request, repo: Repo, name: str) -> None:
        self._add_ref(repo, f"refs/heads/{name}", call.json().get("startingPoint", "main"))

    def _add_ref(self, repo: Repo, ref: str, rev: str) -> None:
        if ref in repo.refs:
            raise Reply(409, f"{ref} already exists")
        repo.refs[ref] = repo.head(rev).id

    def delete_tag(self, call: Request, repo: Repo, name: str, kind: str = "tags") -> None:
        if name == "main" or repo.refs.pop(f"refs/{kind}/{name}", None) is None:
            raise Reply(404, f"{name} is not there to be deleted", "RevisionNotFound")

    delete_branch = partialmethod(delete_tag, kind="heads")

    def post_discussions(self, call: Request, repo: Repo, num: str, merge: str) -> None:
        pull, main = repo.head(f"refs/pr/{num}"), repo.history()
        root = next(commit for commit in repo.history(pull.id) if commit in main)
        old, ours, theirs = root.files, main[0].files, pull.files
        changed = {path for path in {**old, **theirs} if old.get(path) != theirs.get(path)}
        clash = [p for p in changed if ours.get(p) not in (old.get(p), theirs.get(p))]
        if clash or any(pull.id in commit.parents for commit in main):
            raise Reply(409, f"Pull request {num} is merged already or conflicts: {clash}")
        files = {path: key for path, key in ours.items() if path not in changed}
        files |= {path: key for path, key in theirs.items() if path in changed}
        repo.record("refs/heads/main", f"Merge #{num}", files, main[0].id, pull.id)
