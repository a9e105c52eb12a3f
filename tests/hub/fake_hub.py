#!/usr/bin/env python3
"""A hub on the loopback interface: the part of the Hugging Face hub's HTTP interface that downloads use, with faults on demand.

fake_hub.py ROOT [CERTIFICATE]: prints "http://127.0.0.1:PORT", or https where a PEM file with certificate and key is given, and serves
ROOT until its standard input ends.
ROOT/models/ORG/NAME/... and ROOT/datasets/ORG/NAME/... are the repositories; files of LFS_BYTES and more (or *.safetensors and
*.parquet) are "large": they have a sha256 and lie behind a redirect to a second server, which has another port.
ROOT/faults.json is read at each request: {"FAULT": argument}, see faults below. ROOT/log.jsonl takes one line a request:
{"server": "hub" | "cdn", "method", "path", "range", "authorization"}.
"""
import hashlib
import json
import os
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

LFS_BYTES = 1 << 20
FAULTS = {
    "status": "[code, times]: answers of the server of bytes",
    "api_status": "[code, times]: answers of /api",
    "retry_after": "seconds, in the header of these answers",
    "cut": "[bytes, times]: the connection ends after so many bytes of a body",
    "stall": "[seconds, times]: nothing comes for so long in the middle of a body",
    "wrong_size": "the hub says one byte more than there is",
    "wrong_hash": "[times]: the first byte of a large file is another one",
    "no_ranges": "the whole file comes whatever range is asked for",
    "gated": "401 or 403 with GatedRepo for a file",
    "expired": "[times]: the server of bytes answers 403, as for an old signature",
    "page": "entries of a page of the file list",
    "token": "401 without this token",
    "evil_name": "a file name in the list",
    "big_header": "bytes of a header",
    "big_body": "MB of the answer of /api",
    "redirect_to": "address that every file redirects to",
    "sha": "commit; without it one made from the files",
    "slow": "bytes a second of a body",
}


class Hub:
    def __init__(self, root):
        self.root, self.lock, self.used, self.faults_text = root, threading.Lock(), {}, ""
        self.cdn = ""

    def faults(self):
        try:
            text = (self.root / "faults.json").read_text()
        except FileNotFoundError:
            text = "{}"
        if text != self.faults_text:
            self.faults_text, self.used = text, {}
        return json.loads(text or "{}")

    def fault(self, name):
        """The argument of a fault that is to happen now."""
        with self.lock:
            value = self.faults().get(name)
            if isinstance(value, list):
                times = value[-1]
                if self.used.get(name, 0) >= times:
                    return None
                self.used[name] = self.used.get(name, 0) + 1
                return value[0]
            return value

    def log(self, **what):
        with self.lock, open(self.root / "log.jsonl", "a") as file:
            file.write(json.dumps(what) + "\n")

    def files(self, folder):
        return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())

    def commit(self, folder):
        sha = hashlib.sha1()
        for name in self.files(folder):
            sha.update(f"{name}\0{etag_of(folder / name)}\n".encode())
        return self.faults().get("sha") or sha.hexdigest()


def is_large(path):
    return path.suffix in (".safetensors", ".parquet") or path.stat().st_size >= LFS_BYTES


hashes = {}


def etag_of(path):
    stat = path.stat()
    key = (str(path), stat.st_size, stat.st_mtime_ns)
    if key not in hashes:
        data = path.read_bytes()
        hashes[key] = (hashlib.sha256(data) if is_large(path) else hashlib.sha1(b"blob %d\0" % len(data) + data)).hexdigest()
    return hashes[key]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub, name = None, "hub"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        url = urlsplit(self.path)
        self.hub.log(server=self.name, method=self.command, path=url.path, range=self.headers.get("Range"),
                     authorization=self.headers.get("Authorization"))
        try:
            self.route(unquote(url.path), parse_qs(url.query))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def send(self, status, body=b"", headers=None):
        self.send_response(status)
        headers = dict(headers or {})
        headers.setdefault("Content-Length", str(len(body)))
        if size := self.hub.faults().get("big_header"):
            headers["X-Filler"] = "x" * size
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status, code, message=""):
        self.send(status, json.dumps({"error": message}).encode(), {"X-Error-Code": code, "X-Error-Message": message})

    def fail_now(self, kind):
        status = self.hub.fault(kind)
        if not status:
            return False
        wait = self.hub.faults().get("retry_after")
        self.send(status, b"busy", {"Retry-After": str(wait)} if wait is not None else {})
        return True

    def route(self, path, query):
        parts = path.strip("/").split("/")
        if self.name == "cdn":
            return self.bytes_of(self.hub.root / "/".join(parts[1:]))
        token = self.hub.faults().get("token")
        if token and self.headers.get("Authorization") != f"Bearer {token}":
            return self.refuse(401, "RepoNotFound", "Invalid username or password.")
        if parts[0] == "api":
            return self.api(parts[1:], query)
        kind = "datasets" if parts[0] == "datasets" else "models"
        if kind == "datasets":
            parts = parts[1:]
        if len(parts) < 5 or parts[2] != "resolve":
            return self.refuse(404, "EntryNotFound")
        folder = self.hub.root / kind / parts[0] / parts[1]
        if not folder.is_dir():
            return self.refuse(404, "RepoNotFound")
        commit, file = self.hub.commit(folder), folder / "/".join(parts[4:])
        if parts[3] not in (commit, "main"):
            return self.refuse(404, "RevisionNotFound")
        if gated := self.hub.faults().get("gated"):
            return self.refuse(gated, "GatedRepo", "Access to this model is restricted.")
        if not file.is_file():
            return self.refuse(404, "EntryNotFound")
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        size = file.stat().st_size + (1 if self.hub.faults().get("wrong_size") else 0)
        target = self.hub.faults().get("redirect_to")
        if is_large(file) or target:
            location = target or f"{self.hub.cdn}/signed/{file.relative_to(self.hub.root).as_posix()}?signature=secret"
            headers |= {"X-Linked-Etag": f'"{etag_of(file)}"', "X-Linked-Size": str(size), "Location": location}
            return self.send(302, b"", headers)
        self.bytes_of(file, headers | {"ETag": f'"{etag_of(file)}"'}, size)

    def api(self, parts, query):
        if size := self.hub.faults().get("big_body"):
            return self.send(200, b" " * (size << 20))
        if self.fail_now("api_status"):
            return None
        folder = self.hub.root / parts[0] / parts[1] / parts[2] if len(parts) > 2 else self.hub.root / "nothing"
        if len(parts) < 3 or not folder.is_dir():
            return self.refuse(404, "RepoNotFound", "Repository not found")
        commit, name = self.hub.commit(folder), f"{parts[1]}/{parts[2]}"
        if len(parts) > 4 and parts[4] not in (commit, "main"):
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {parts[4]}")
        if len(parts) == 3 or parts[3] == "revision":
            files = [{"rfilename": file} for file in self.hub.files(folder)]
            body = {"_id": "0", "id": name, "sha": commit, "siblings": files, "private": False, "tags": []}
            return self.send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})
        if parts[3] != "tree":
            return self.refuse(404, "EntryNotFound")
        entries = []
        for file in self.hub.files(folder):
            path = folder / file
            entry = {"type": "file", "path": file, "size": path.stat().st_size + (1 if self.hub.faults().get("wrong_size") else 0),
                     "oid": etag_of(path)[:40]}
            if is_large(path):
                entry["lfs"] = {"oid": etag_of(path), "size": path.stat().st_size, "pointerSize": 134}
            entries.append(entry)
        entries.append({"type": "directory", "path": "folder", "size": 0, "oid": "0" * 40})
        if evil := self.hub.faults().get("evil_name"):
            entries.append({"type": "file", "path": evil, "size": 1, "oid": "0" * 40})
        page = self.hub.faults().get("page") or 1000
        at = int(query.get("cursor", ["0"])[0])
        headers = {"Content-Type": "application/json"}
        if at + page < len(entries):
            address = f"{self.hub.cdn.split(':')[0]}://{self.headers['Host']}/api/{'/'.join(parts)}?recursive=true&cursor={at + page}"
            headers["Link"] = f'<{address}>; rel="next"'
        return self.send(200, json.dumps(entries[at:at + page]).encode(), headers)

    def bytes_of(self, file, headers=None, size=None):
        if self.command == "GET" and self.fail_now("status"):
            return
        if self.name == "cdn" and self.hub.fault("expired"):
            return self.send(403, b"expired")
        data = file.read_bytes()
        if is_large(file) and self.hub.fault("wrong_hash"):
            data = bytes([data[0] ^ 1]) + data[1:]
        begin, end, status = 0, len(data), 200
        asked = self.headers.get("Range")
        headers = dict(headers or {})
        if asked and not self.hub.faults().get("no_ranges"):
            first, last = asked.removeprefix("bytes=").split("-")
            begin, end = int(first), min(int(last) + 1 if last else len(data), len(data))
            if begin >= len(data):
                return self.send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            status = 206
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data)}"
        body = data[begin:end]
        headers["Content-Length"] = str(size if self.command == "HEAD" and size is not None else len(body))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.hub.fault("cut") if len(body) > 1 else None
        if cut is not None:
            self.wfile.write(body[:cut])
            self.close_connection = True
            return
        stall = self.hub.fault("stall") if len(body) > 1 else None
        if stall:
            self.wfile.write(body[:len(body) // 2])
            self.wfile.flush()
            time.sleep(stall)
            self.close_connection = True
            return
        if slow := self.hub.faults().get("slow"):
            for at in range(0, len(body), max(1, slow // 20)):
                self.wfile.write(body[at:at + max(1, slow // 20)])
                self.wfile.flush()
                time.sleep(0.05)
            return
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        pass  # a client may go away at any time


def serve(hub, name, certificate):
    server = Server(("127.0.0.1", 0), type(name, (Handler,), {"hub": hub, "name": name}))
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http{'s' if certificate else ''}://127.0.0.1:{server.server_address[1]}"


def main():
    hub = Hub(Path(sys.argv[1]))
    hub.root.mkdir(parents=True, exist_ok=True)
    certificate = sys.argv[2] if len(sys.argv) > 2 else None
    hub.cdn = serve(hub, "cdn", certificate)
    print(serve(hub, "hub", certificate), flush=True)
    while os.read(0, 4096):
        pass


if __name__ == "__main__":
    main()
