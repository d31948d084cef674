"""A Hub on this machine: the real client reads from it and pushes to it over HTTP, and every commit is kept.

It speaks the part of huggingface.co's protocol that `huggingface_hub`, `transformers` and `datasets` use: repository
information, tree, paths-info, resolve (HEAD, GET, ranges), create, preupload, LFS batch, PUT, commit, branch. Xet is not
spoken, so clients need `HF_HUB_DISABLE_XET=1`; `HF_HUB_OFFLINE=1` would refuse even 127.0.0.1.

    with HubServer() as hub:
        hub.add_model("someone/model", folder)
        subprocess.run([...], env=hub.environment(tmp_path))     # downloads and pushes
        hub.fail(429, times=2, retry_after=0)                    # the next two writes are refused
        hub.files("someone/pushed")["README.md"]                 # what was pushed, as bytes
"""

import base64
import hashlib
import json
import os
import re
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

TOKEN = "hf_canaryCanaryCanaryCanaryCanary01"  # no part of it may ever be found in an uploaded byte
KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}


@dataclass
class Commit:
    """One state of a branch: all its files, by path."""

    oid: str
    title: str
    files: dict[str, bytes]


@dataclass
class Repository:
    """A repository and its branches, oldest commit first."""

    kind: str
    id: str
    private: bool = False
    branches: dict[str, list[Commit]] = field(default_factory=dict)

    def commit(self, branch: str, title: str, files: dict[str, bytes]) -> Commit:
        commits = self.branches.setdefault(branch, [])
        oid = hashlib.sha1(f"{self.kind} {self.id} {branch} {len(commits)}".encode()).hexdigest()
        commits.append(Commit(oid, title, files))
        return commits[-1]

    def at(self, revision: str) -> Commit | None:
        """The head of a branch, or the commit with that id."""
        if revision in self.branches:
            return self.branches[revision][-1]
        return next((c for commits in self.branches.values() for c in commits if c.oid == revision), None)


@dataclass
class Failure:
    """What happens to the next `times` requests whose "METHOD /path" matches; None = for good."""

    status: int | None  # None: the connection is dropped half-way through the request's body
    pattern: str
    times: int | None
    retry_after: int | None


def is_lfs(path: str, size: int) -> bool:
    """The Hub's default .gitattributes, as far as this project's files go."""
    return size > 10_000_000 or path.endswith((".safetensors", ".bin", ".parquet", ".onnx", ".pt", ".pkl"))


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class HubServer:
    """A Hub in a thread of this process, on a free port of 127.0.0.1.

    `requests` holds every request as ("METHOD /path", body): a test can look at each byte that was sent.
    """

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.blobs: dict[str, bytes] = {}  # LFS objects by sha256
        self.requests: list[tuple[str, bytes]] = []
        self.failures: list[Failure] = []
        self.role = "write"  # what the caller's token may do: read, write, fineGrained
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.server.daemon_threads = True
        self.server.hub = self  # the handler's way back
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "HubServer":
        # The poll interval is what stopping costs each test.
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def add_model(self, repo_id: str, folder: Path) -> Commit:
        """Serve a folder's files as the model `repo_id`."""
        return self._add("model", repo_id, folder)

    def add_dataset(self, repo_id: str, folder: Path) -> Commit:
        """Serve a folder's files (README.md, data/*.parquet) as the data set `repo_id`."""
        return self._add("dataset", repo_id, folder)

    def _add(self, kind: str, repo_id: str, folder: Path) -> Commit:
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
        repository = self.repositories.setdefault((kind, repo_id), Repository(kind, repo_id))
        return repository.commit("main", "initial commit", files)

    def files(self, repo_id: str, revision: str = "main", kind: str = "model") -> dict[str, bytes]:
        """The files of a repository, by path; empty when there is no such repository or revision."""
        repository = self.repositories.get((kind, repo_id))
        commit = repository.at(revision) if repository else None
        return dict(commit.files) if commit else {}

    def commits(self, repo_id: str, branch: str = "main", kind: str = "model") -> list[Commit]:
        return self.repositories[kind, repo_id].branches[branch]

    def fail(
        self,
        status: int | None,
        times: int | None = None,
        pattern: str = "^(POST|PUT)",
        retry_after: int | None = None,
    ) -> None:
        """Refuse requests: with an HTTP status, or (None) by dropping the connection half-way through the body.

        Args:
            times: how many requests; None = all from now on.
            pattern: regular expression searched in "METHOD /path"; all writes by default.
            retry_after: seconds in the Retry-After header (429).
        """
        self.failures.append(Failure(status, pattern, times, retry_after))

    def heal(self) -> None:
        """Serve every request again."""
        self.failures.clear()

    def environment(self, home: Path, token: str | None = TOKEN) -> dict[str, str]:
        """This process's environment with the Hub replaced by this server and a fresh HF_HOME, for a new process."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_HUB_", "HF_TOKEN", "HUGGING_FACE"))}
        ours = {"HF_ENDPOINT": self.url, "HF_HOME": str(home / "hf_home"), "HF_HUB_DISABLE_XET": "1"}
        ours |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_DATASETS_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"}
        ours |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        return kept | ours | ({"HF_TOKEN": token} if token else {})

    def use_here(self, monkeypatch: pytest.MonkeyPatch, token: str | None = TOKEN) -> None:
        """Point the huggingface_hub of this very process at this server (much quicker than a new process).

        Only for calls of `HfApi`: transformers and datasets copy the settings when they are imported.
        """
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        else:
            monkeypatch.delenv("HF_TOKEN", raising=False)

    def next_failure(self, request: str) -> Failure | None:
        with self.lock:
            for failure in self.failures:
                if failure.times != 0 and re.search(failure.pattern, request):
                    if failure.times is not None:
                        failure.times -= 1
                    return failure
        return None


class _Handler(BaseHTTPRequestHandler):
    """One connection. The path decides; see `route`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise each small answer waits 40 ms

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        hub: HubServer = self.server.hub
        split = urlsplit(self.path)
        self.query = parse_qs(split.query)
        path = unquote(split.path)
        request = f"{self.command} {path}"
        length = int(self.headers.get("Content-Length") or 0)
        failure = hub.next_failure(request)
        if failure and failure.status is None:
            return self.drop(length)
        self.body = self.read_chunks() if "chunked" in self.headers.get("Transfer-Encoding", "") else b""
        self.body += self.rfile.read(length)
        with hub.lock:
            hub.requests.append((request, self.body))
        if failure:
            extra = {} if failure.retry_after is None else {"Retry-After": str(failure.retry_after)}
            return self.answer(failure.status, {"error": f"injected {failure.status}"}, extra)
        # LFS objects go to a signed address, and paths-info is a read in the shape of a POST.
        is_write = self.command in ("POST", "PUT") and "/lfs-put/" not in path and "/paths-info/" not in path
        if is_write and "Authorization" not in self.headers:
            return self.answer(401, {"error": "Invalid username or password."})
        with hub.lock:
            return self.route(hub, path)

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def read_chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def drop(self, length: int) -> None:
        """Read half the body, then reset the connection, as a cable pulled out does."""
        self.rfile.read(length // 2)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()
        self.wfile = open(os.devnull, "wb")  # noqa: SIM115  (http.server flushes it after us)

    def answer(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))} | (headers or {})
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self, code: str) -> None:
        self.answer(404, {"error": code}, {"X-Error-Code": code, "X-Error-Message": code})

    def route(self, hub: HubServer, path: str) -> None:
        if path in ("/api/whoami-v2", "/api/whoami"):
            return self.whoami(hub)
        if path == "/api/repos/create":
            return self.create(hub, json.loads(self.body))
        if path == "/api/validate-yaml":  # of a card; the Hub's own rules stand in tests/hub/test_card.py
            return self.answer(200, {"errors": [], "warnings": []})
        if match := re.fullmatch(r"/lfs-put/(\w{64})", path):
            return self.lfs_put(hub, match[1])
        if match := re.fullmatch(r"/(datasets/|spaces/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self.lfs_batch(hub, json.loads(self.body))
        if match := re.fullmatch(r"/api/(models|datasets|spaces)/([^/]+/[^/]+)(?:/([a-z-]+))?(?:/(.*))?", path):
            kind, repo_id, verb, rest = match.groups()
            return self.api(hub, hub.repositories.get((KINDS[kind], repo_id)), verb or "revision", rest or "main")
        if match := re.fullmatch(r"/(?:(datasets|spaces)/)?([^/]+/[^/]+)/resolve/(refs/[^/]+/[^/]+|[^/]+)/(.+)", path):
            kind, repo_id, revision, file = match.groups()
            return self.resolve(hub.repositories.get((KINDS[kind or "models"], repo_id)), revision, file)
        return self.missing("NotFound")

    def whoami(self, hub: HubServer) -> None:
        if "Authorization" not in self.headers:
            return self.answer(401, {"error": "Invalid username or password."})
        token = {"displayName": "a token", "role": hub.role}
        account = {"type": "user", "name": "tester", "fullname": "A tester", "orgs": []}
        return self.answer(200, account | {"auth": {"type": "access_token", "accessToken": token}})

    def create(self, hub: HubServer, wish: dict) -> None:
        kind, repo_id = wish.get("type", "model"), f"{wish.get('organization') or 'tester'}/{wish['name']}"
        prefix = "" if kind == "model" else f"{kind}s/"
        content = {"url": f"{hub.url}/{prefix}{repo_id}", "name": repo_id, "id": repo_id}
        if (kind, repo_id) in hub.repositories:
            return self.answer(409, content | {"error": "You already created this repo"})
        private = wish.get("private", False) or wish.get("visibility") == "private"
        hub.repositories[kind, repo_id] = repository = Repository(kind, repo_id, private)
        repository.commit(
            "main", "initial commit", {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs\n"}
        )
        return self.answer(200, content)

    def lfs_batch(self, hub: HubServer, wish: dict) -> None:
        objects = []
        for wanted in wish["objects"]:
            known = wanted["oid"] in hub.blobs
            upload = {"upload": {"href": f"{hub.url}/lfs-put/{wanted['oid']}", "header": {}}}
            objects.append(wanted | ({} if known else {"actions": upload}))
        self.answer(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, hub: HubServer, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self.answer(400, {"error": "the object's sha256 is not its name"})
        hub.blobs[oid] = self.body
        return self.answer(200, {})

    def api(self, hub: HubServer, repository: Repository | None, verb: str, rest: str) -> None:
        if repository is None:
            return self.missing("RepoNotFound")
        if verb == "branch":
            base = repository.at(json.loads(self.body or b"{}").get("startingPoint", "main"))
            if rest in repository.branches:
                return self.answer(409, {"error": f"Reference already exists: {rest}"})
            repository.commit(rest, base.title, dict(base.files))
            return self.answer(200, {})
        revision, _, folder = rest.partition("/")
        if revision == "refs":  # refs/convert/parquet, refs/pr/1
            parts = rest.split("/")
            revision, folder = "/".join(parts[:3]), "/".join(parts[3:])
        commit = repository.at(revision)
        if commit is None:
            return self.missing("RevisionNotFound")
        if verb == "revision":
            return self.answer(200, self.information(repository, commit))
        if verb == "tree":
            return self.tree(commit, folder)
        if verb == "paths-info":
            wanted = parse_qs(self.body.decode())["paths"]
            return self.answer(200, [entry for entry in _entries(commit, recursive=True) if entry["path"] in wanted])
        if verb == "preupload":
            return self.preupload(commit, json.loads(self.body))
        if verb == "commit":
            return self.commit(hub, repository, revision)
        return self.missing("NotFound")

    def information(self, repository: Repository, commit: Commit) -> dict:
        """The keys that ModelInfo, DatasetInfo and `datasets` read."""
        card = {}
        if text := commit.files.get("README.md"):
            from huggingface_hub import RepoCard

            card = RepoCard(text.decode(), ignore_metadata_errors=True).data.to_dict()
        return {
            "_id": repository.id,
            "id": repository.id,
            "modelId": repository.id,
            "author": repository.id.split("/")[0],
            "sha": commit.oid,
            "lastModified": "2026-01-01T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "private": repository.private,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [f"license:{card['license']}"] if "license" in card else [],
            "cardData": card,
            "siblings": [{"rfilename": path} for path in sorted(commit.files)],
        }

    def tree(self, commit: Commit, folder: str) -> None:
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        entries = _entries(commit, recursive, folder)
        return self.answer(200, entries) if entries or not folder else self.missing("EntryNotFound")

    def preupload(self, commit: Commit, wish: dict) -> None:
        files = []
        for file in wish["files"]:
            mode = "lfs" if is_lfs(file["path"], file["size"]) else "regular"
            known = commit.files.get(file["path"])
            oid = None if known is None else hashlib.sha256(known).hexdigest() if mode == "lfs" else blob_id(known)
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.answer(200, {"files": files})

    def commit(self, hub: HubServer, repository: Repository, branch: str) -> None:
        files, title = dict(repository.at(branch).files), ""
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                title = value["summary"]
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = hub.blobs[value["oid"]]
            elif item["key"] == "deletedFile":
                files.pop(value["path"])
            elif item["key"] == "deletedFolder":
                files = {path: content for path, content in files.items() if not path.startswith(value["path"])}
        made = repository.commit(branch, title, files)
        prefix = "" if repository.kind == "model" else f"{repository.kind}s/"
        url = f"{hub.url}/{prefix}{repository.id}/commit/{made.oid}"
        self.answer(200, {"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})

    def resolve(self, repository: Repository | None, revision: str, file: str) -> None:
        if repository is None:
            return self.missing("RepoNotFound")
        commit = repository.at(revision)
        if commit is None:
            return self.missing("RevisionNotFound")
        if file not in commit.files:
            return self.missing("EntryNotFound")
        content = commit.files[file]
        etag = hashlib.sha256(content).hexdigest() if is_lfs(file, len(content)) else blob_id(content)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        headers["Content-Type"] = "application/octet-stream"
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(match[1]), min(int(match[2] or len(content)), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            return self.answer(206, content[start : end + 1], headers)
        return self.answer(200, content, headers)


def _entries(commit: Commit, recursive: bool, folder: str = "") -> list[dict]:
    """A folder's files and folders as the tree and paths-info end points list them."""
    prefix = f"{folder}/" if folder else ""
    entries: dict[str, dict] = {}
    for path, content in sorted(commit.files.items()):
        if not path.startswith(prefix):
            continue
        parts = path[len(prefix) :].split("/")
        for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
            parent = prefix + "/".join(parts[:depth])
            oid = hashlib.sha1(parent.encode()).hexdigest()
            entries.setdefault(parent, {"type": "directory", "path": parent, "oid": oid, "size": 0})
        if recursive or len(parts) == 1:
            entries[path] = {"type": "file", "path": path, "oid": blob_id(content), "size": len(content)}
            if is_lfs(path, len(content)):
                sha256 = hashlib.sha256(content).hexdigest()
                entries[path]["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
    return list(entries.values())


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """An empty Hub on this machine. `conftest.py` imports it; see `HubServer` for how to fill and break it."""
    with HubServer() as server:
        yield server
