"""A small Hugging Face Hub for the tests: the endpoints by which the client loads and pushes, over what it
has in memory.

``python -m tests.hub_server FOLDER`` serves ``FOLDER/models/org/name`` and ``FOLDER/datasets/org/name`` on a
free port and prints its address, the client's HF_ENDPOINT. It has no LFS: every file is a regular one. Any
token will do, but pushing and what is private need one. Of its own it has ``GET /log``: commits and tags of
every repository.
"""

import base64
import hashlib
import json
import re
import sys
import threading
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

DATE = "2026-01-01T00:00:00.000Z"
REPOSITORY = r"/api/(model|dataset)s/([^/]+/[^/]+)"
ROUTES = {
    "info": ("GET", rf"{REPOSITORY}(?:/revision/([^/]+))?"),
    "tree": ("GET", rf"{REPOSITORY}/tree/([^/]+)(?:/(.+))?"),
    "paths_info": ("POST", rf"{REPOSITORY}/paths-info/([^/]+)"),
    "refs": ("GET", rf"{REPOSITORY}/refs"),
    "file": ("GET", r"/(?:(dataset)s/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)"),
    "create": ("POST", r"/api/repos/create"),
    "validate": ("POST", r"/api/validate-yaml"),
    "preupload": ("POST", rf"{REPOSITORY}/preupload/([^/]+)"),
    "commit": ("POST", rf"{REPOSITORY}/commit/([^/]+)"),
    "tag": ("POST", rf"{REPOSITORY}/tag/([^/]+)"),
    "log": ("GET", r"/log"),
}


@dataclass(frozen=True)
class Request:
    """What is asked, besides the path."""

    endpoint: str
    query: dict[str, list[str]]
    body: bytes
    has_token: bool
    range: str

    def address(self, kind: str, name: str) -> str:
        return f"{self.endpoint}/{'datasets/' if kind == 'dataset' else ''}{name}"


@dataclass
class Answer:
    """A body of bytes, or what JSON can say."""

    body: Any
    status: int = 200
    headers: dict[str, str] | None = None


class Refusal(Exception):
    """An answer with an error; the client chooses its own error by the code."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        headers |= {"X-Error-Code": code, "X-Error-Message": message}
        self.answer = Answer({"error": message}, status, headers)


def blob_id(content: bytes) -> str:
    """A file's hash, as git and the client compute it."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass(frozen=True)
class Commit:
    """All files that there are after it, and which of them it wrote and deleted."""

    oid: str
    title: str
    files: dict[str, bytes]
    written: list[str]
    deleted: list[str]

    def entry(self, path: str) -> dict[str, Any]:
        """What the client hears of a file or folder; it must be there."""
        if path not in self.files:
            return {"type": "directory", "path": path, "oid": blob_id(path.encode()), "size": 0}
        content = self.files[path]
        return {"type": "file", "path": path, "oid": blob_id(content), "size": len(content)}

    def below(self, folder: str) -> list[str]:
        return [path for path in self.files if not folder or path.startswith(f"{folder}/")]


class Repository:
    """Commits, of which the last is the branch main, and tags."""

    def __init__(self, files: dict[str, bytes], *, private: bool = False) -> None:
        self.private = private
        self.commits: list[Commit] = []
        self.tags: dict[str, str] = {}
        self.commit("initial commit", files)

    def commit(self, title: str, files: dict[str, bytes], deleted: tuple[str, ...] = ()) -> Commit:
        parent = self.commits[-1] if self.commits else Commit("", "", {}, [], [])
        gone = {path for name in deleted for path in [name, *parent.below(name.rstrip("/"))]}
        after = {path: content for path, content in parent.files.items() if path not in gone} | files
        listing = json.dumps([parent.oid, title, {path: blob_id(content) for path, content in after.items()}])
        oid = hashlib.sha1(listing.encode()).hexdigest()
        self.commits.append(Commit(oid, title, dict(sorted(after.items())), sorted(files), sorted(deleted)))
        return self.commits[-1]

    def at(self, revision: str | None) -> Commit:
        """The commit of main, of a tag or of a hash."""
        oid = self.commits[-1].oid if revision in (None, "main") else self.tags.get(str(revision), revision)
        for commit in self.commits:
            if commit.oid == oid:
                return commit
        raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")


class Hub:
    """The repositories, and for each of `ROUTES` a method, which takes what the route's pattern has in
    parentheses and gives an `Answer`, or what JSON can say.
    """

    def __init__(self, folder: Path) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        for kind in ("model", "dataset"):
            for root in folder.glob(f"{kind}s/*/*"):
                paths = [path for path in root.rglob("*") if path.is_file()]
                files = {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
                self.repositories[kind, root.relative_to(root.parents[1]).as_posix()] = Repository(files)

    def find(self, request: Request, kind: str | None, name: str) -> Repository:
        repository = self.repositories.get((kind or "model", name))
        if repository is None or (repository.private and not request.has_token):
            raise Refusal(404 if request.has_token else 401, "RepoNotFound", "Repository not found")
        return repository

    def info(self, request: Request, kind: str, name: str, revision: str | None) -> Any:
        repository = self.find(request, kind, name)
        commit = repository.at(revision)
        siblings = [{"rfilename": path, "size": len(content)} for path, content in commit.files.items()]
        found = {"_id": name, "id": name, "sha": commit.oid, "private": repository.private, "tags": []}
        dates = {"lastModified": DATE, "createdAt": DATE}
        return found | dates | {"siblings": siblings, "gated": False, "disabled": False}

    def tree(self, request: Request, kind: str, name: str, revision: str, folder: str | None) -> Any:
        commit, folder = self.find(request, kind, name).at(revision), folder or ""
        below = commit.below(folder)
        if folder and not below:
            raise Refusal(404, "EntryNotFound", f"{folder} does not exist on {revision}")
        parts = [path.removeprefix(f"{folder}/").split("/") for path in below]
        depth = max(map(len, parts), default=0) if request.query.get("recursive") == ["true"] else 1
        above = [folder] * bool(folder)
        listed = {"/".join(above + part[:most]) for part in parts for most in range(1, depth + 1)}
        return [commit.entry(path) for path in sorted(listed)]

    def paths_info(self, request: Request, kind: str, name: str, revision: str) -> Any:
        commit = self.find(request, kind, name).at(revision)
        paths = parse_qs(request.body.decode()).get("paths", [])
        return [commit.entry(path) for path in paths if path in commit.files or commit.below(path)]

    def refs(self, request: Request, kind: str, name: str) -> Any:
        repository = self.find(request, kind, name)
        named = {"heads/main": repository.at("main").oid}
        named |= {f"tags/{tag}": oid for tag, oid in repository.tags.items()}
        refs = [
            {"name": ref.partition("/")[2], "ref": f"refs/{ref}", "targetCommit": oid}
            for ref, oid in named.items()
        ]
        return {"branches": refs[:1], "tags": refs[1:], "converts": []}

    def file(self, request: Request, kind: str | None, name: str, revision: str, path: str) -> Answer:
        commit = self.find(request, kind, name).at(revision)
        if path not in commit.files:
            raise Refusal(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": commit.oid})
        content = commit.files[path]
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{blob_id(content)}"', "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.range)
        if not wanted:
            return Answer(content, 200, headers)
        first = int(wanted[1])
        part = content[first : int(wanted[2] or len(content)) + 1]
        place = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
        return Answer(part, 206, headers | {"Content-Range": place})

    def create(self, request: Request) -> Any:
        wanted = json.loads(request.body)
        kind, name = wanted.get("type", "model"), f"{wanted['organization']}/{wanted['name']}"
        made = {"url": request.address(kind, name), "name": name}
        if (kind, name) in self.repositories:
            return Answer(made | {"error": "You already created this repo"}, 409)
        private = wanted.get("visibility") == "private"
        self.repositories[kind, name] = Repository({".gitattributes": b""}, private=private)
        return made

    def validate(self, request: Request) -> Any:
        return {"errors": [], "warnings": []}

    def preupload(self, request: Request, kind: str, name: str, revision: str) -> Any:
        commit = self.find(request, kind, name).at(revision)
        known = {path: blob_id(content) for path, content in commit.files.items()}
        paths = [file["path"] for file in json.loads(request.body)["files"]]
        regular = {"uploadMode": "regular", "shouldIgnore": False}
        return {"files": [{"path": path, "oid": known.get(path)} | regular for path in paths]}

    def commit(self, request: Request, kind: str, name: str, revision: str) -> Any:
        repository = self.find(request, kind, name)
        if revision != "main":
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        header, *operations = map(json.loads, request.body.splitlines())
        named: dict[str, list[dict[str, str]]] = {"file": [], "deletedFile": [], "deletedFolder": []}
        for operation in operations:
            named[operation["key"]].append(operation["value"])
        files = {file["path"]: base64.b64decode(file["content"]) for file in named["file"]}
        deleted = tuple(entry["path"] for entry in named["deletedFile"] + named["deletedFolder"])
        oid = repository.commit(header["value"]["summary"], files, deleted).oid
        return {"commitUrl": f"{request.address(kind, name)}/commit/{oid}", "commitOid": oid}

    def tag(self, request: Request, kind: str, name: str, revision: str) -> Any:
        repository, tag = self.find(request, kind, name), json.loads(request.body)["tag"]
        if tag in repository.tags:
            raise Refusal(409, "", f"Tag {tag} already exists")
        repository.tags[tag] = repository.at(revision).oid
        return {}

    def log(self, request: Request) -> Any:
        return {
            f"{kind}s/{name}": {
                "private": repository.private,
                "tags": repository.tags,
                "commits": [asdict(commit) | {"files": list(commit.files)} for commit in repository.commits],
            }
            for (kind, name), repository in self.repositories.items()
        }


class Handler(BaseHTTPRequestHandler):
    """Finds the route of a request; `hub` is set before the server starts."""

    hub: Hub
    lock = threading.Lock()
    protocol_version = "HTTP/1.1"  # keeps a connection open between requests

    def handle_request(self) -> None:
        address, headers = urlsplit(self.path), self.headers
        request = Request(
            endpoint=f"http://{headers['Host']}",
            query=parse_qs(address.query),
            body=self.rfile.read(int(headers.get("Content-Length") or 0)),
            has_token="Authorization" in headers,
            range=headers.get("Range") or "",
        )
        try:
            with self.lock:
                found = self.answer(request, address.path)
        except Refusal as refusal:
            found = refusal.answer
        answer = found if isinstance(found, Answer) else Answer(found)
        is_file = isinstance(answer.body, bytes)
        body = answer.body if is_file else json.dumps(answer.body).encode()
        kind = "application/octet-stream" if is_file else "application/json"
        self.send_response(answer.status)
        sent = {"Content-Type": kind, "Content-Length": str(len(body))} | (answer.headers or {})
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = handle_request

    def answer(self, request: Request, path: str) -> Any:
        for name, (method, pattern) in ROUTES.items():
            if method == self.command.replace("HEAD", "GET") and (found := re.fullmatch(pattern, path)):
                if name in ("create", "preupload", "commit", "tag") and not request.has_token:
                    raise Refusal(401, "", "Invalid username or password.")
                return getattr(self.hub, name)(request, *[part and unquote(part) for part in found.groups()])
        raise Refusal(404, "", f"no such endpoint: {self.command} {path}")

    def log_message(self, format: str, *args: Any) -> None:
        """Prints nothing: `/log` has it."""


if __name__ == "__main__":
    Handler.hub = Hub(Path(sys.argv[1]))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
