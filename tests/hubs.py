"""A Hub on this machine: the few requests with which huggingface_hub reads and writes model repositories."""

import base64
import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin")  # stored by SHA-256, as with Git LFS. Others by Git's own digest


class Hub:
    """Repositories by name: commits {id: {file: bytes}}, branches {name: id}. `requests` are (method, path)."""

    def __init__(self):
        self.commits, self.branches, self.private, self.requests, self.objects = {}, {}, {}, [], {}

    def commit(self, name, contents, branch="main"):
        """A commit of these files, on a branch. Returns its id."""
        text = json.dumps([len(self.commits.get(name, {})), sorted((n, digest(n, d)) for n, d in contents.items())])
        commit = hashlib.sha1(text.encode()).hexdigest()
        self.commits.setdefault(name, {})[commit] = dict(contents)
        self.branches.setdefault(name, {})[branch] = commit
        return commit


def digest(name, data):
    if name.endswith(LARGE):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, body=b"", status=200, **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self, code):
        self.answer({"error": code}, 404, X_Error_Code=code, X_Error_Message=code)

    def do_GET(self):
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        hub.requests.append((self.command, path))
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            name, verb, revision = "/".join(parts[2:4]), parts[4], "/".join(parts[5:])
        else:
            name, verb, revision = "/".join(parts[:2]), parts[2], parts[3]
        if name not in hub.commits:
            return self.missing("RepoNotFound")
        commit = hub.branches[name].get(revision, revision)
        if commit not in hub.commits[name]:
            return self.missing("RevisionNotFound")
        contents = hub.commits[name][commit]
        if verb == "revision":
            return self.answer({"id": name, "sha": commit, "siblings": [{"rfilename": file} for file in contents]})
        if verb == "tree":
            return self.answer([entry(file, data) for file, data in contents.items()])
        data = contents.get("/".join(parts[4:]))
        if data is None:
            return self.missing("EntryNotFound")
        self.answer(data, ETag=f'"{digest(parts[-1], data)}"', X_Repo_Commit=commit)

    do_HEAD = do_GET

    def do_POST(self):
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        hub.requests.append((self.command, path))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        name = "/".join(path.removeprefix("/api/models").strip("/").split("/")[:2])
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            hub.commit(name, {})
            hub.private[name] = asked.get("private") or asked.get("visibility") == "private"
            return self.answer({"url": f"http://{self.headers['Host']}/{name}", "id": name})
        if path.endswith("/info/lfs/objects/batch"):
            url = f"http://{self.headers['Host']}/put/"
            objects = [
                asked | {"actions": {"upload": {"href": url + asked["oid"]}}} for asked in json.loads(body)["objects"]
            ]
            return self.answer({"transfer": "basic", "objects": objects})
        if "/preupload/" in path:
            mode = lambda file: "lfs" if file.endswith(LARGE) else "regular"  # noqa: E731
            files = [{"path": f["path"], "uploadMode": mode(f["path"])} for f in json.loads(body)["files"]]
            return self.answer({"files": [f | {"shouldIgnore": False} for f in files]})
        if "/commit/" in path:
            contents = {}
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    contents[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    contents[value["path"]] = hub.objects[value["oid"]]
            commit = hub.commit(name, contents)
            return self.answer(
                {"commitUrl": f"http://{self.headers['Host']}/{name}/commit/{commit}", "commitOid": commit}
            )
        self.answer({})

    def do_PUT(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        assert hashlib.sha256(data).hexdigest() == self.path.rpartition("/")[2]
        self.server.hub.objects[self.path.rpartition("/")[2]] = data
        self.answer()


def entry(file, data):
    large = {"lfs": {"oid": digest(file, data), "size": len(data), "pointerSize": 130}} if file.endswith(LARGE) else {}
    return {"type": "file", "path": file, "size": len(data), "oid": digest("", data), **large}


@contextlib.contextmanager
def serving():
    """(a Hub, its URL), until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.hub = Hub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.hub, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
