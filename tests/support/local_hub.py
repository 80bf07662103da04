"""A hub on this machine: folders as repositories, over HTTP, as the hub library asks for them."""

import json
import os
from collections import Counter
from contextlib import contextmanager
from functools import partial
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit


@contextmanager
def local_hub(repositories, failing=()):
    """Its address and what was fetched from it, {"org/name/file": times}, while it runs.

    repositories: {"org/name": folder}. failing: files, named as above, that cannot be had.
    """
    fetched = Counter()
    handler = partial(_Handler, repositories, set(failing), fetched)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", fetched
        finally:
            server.shutdown()
            thread.join()


def environment(address, home):
    """For a process that shall know this hub only, with an empty cache."""
    left_out = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return {**kept, "HF_ENDPOINT": address, "HF_HOME": str(home)}


def commit_of(repository):
    """The only commit of a repository."""
    return sha1(repository.encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, repositories, failing, fetched, *given):
        self._repositories, self._failing, self._fetched = repositories, failing, fetched
        super().__init__(*given)

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        parts = urlsplit(self.path).path.strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        repository = "/".join(parts[2:4] if api else parts[:2])
        if repository not in self._repositories:
            self._answer(404, {"X-Error-Code": "RepoNotFound"})
            return
        files = {
            path.name: path.read_bytes() for path in Path(self._repositories[repository]).iterdir()
        }
        if api and parts[4:5] == ["tree"]:
            self._json([_entry(name, content) for name, content in files.items()])
        elif api:
            siblings = [
                {"rfilename": name, "size": len(content)} for name, content in files.items()
            ]
            about = {"id": repository, "sha": commit_of(repository), "siblings": siblings}
            self._json(about)
        else:
            self._file(repository, commit_of(repository), parts[-1], files)

    def _file(self, repository, commit, name, files):
        if name not in files:
            self._answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        full = f"{repository}/{name}"
        if self.command == "GET":
            self._fetched[full] += 1
            if full in self._failing:
                self._answer(500, {})
                return
        tag = sha1(files[name]).hexdigest()
        self._answer(200, {"ETag": f'"{tag}"', "X-Repo-Commit": commit}, files[name])

    def _json(self, value):
        self._answer(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _answer(self, status, headers, body=b""):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def _entry(name, content):
    return {"type": "file", "path": name, "size": len(content), "oid": sha1(content).hexdigest()}
