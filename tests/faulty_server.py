"""A local HTTP server with configurable faults: each path has a list of answers, one per request; the last is repeated.

    with serve() as server:
        url = server.add("/x.bin", status(503), ranged(b"..."))
        ...
        server.requests["/x.bin"]  # the headers of each request, in order

An answer is a function that gets the request handler and writes the response; then the connection is closed.
"""

import gzip
import re
import threading
from collections import defaultdict
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """The answers, and the requests received."""

    def __init__(self, port: int, scheme: str):
        self.root = f"{scheme}://127.0.0.1:{port}"
        self.answers: dict[str, list] = {}
        self.requests: dict[str, list] = defaultdict(list)
        self.closing = threading.Event()

    def add(self, path: str, *answers) -> str:
        """Set the answers of a path; returns its url."""
        self.answers[path] = list(answers)
        return self.root + path

    def ranges(self, path: str) -> list:
        """The Range header of each request for a path."""
        return [headers["Range"] for headers in self.requests[path]]


@contextmanager
def serve(tls=None):
    """A running server on a free port; `tls` is an ssl context for https."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    if tls:
        http.socket = tls.wrap_socket(http.socket, server_side=True)
    http.handle_error = lambda *_: None  # clients that disconnect are part of the tests
    http.record = server = Server(http.server_address[1], "https" if tls else "http")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        http.shutdown()
        http.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server.record
        self.close_connection = True
        requests = server.requests[self.path]
        requests.append(self.headers)
        answers = server.answers.get(self.path, [status(404)])
        answers[min(len(requests), len(answers)) - 1](self)

    def begin(self, code: int, **headers):
        """Status line and headers; `_` in a name means `-`, None omits a header."""
        self.send_response(code)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *_):
        pass


def status(code: int, body: bytes = b"no", **headers):
    """An answer without the file."""

    def answer(request):
        request.begin(code, Content_Length=len(body), **headers)
        request.wfile.write(body)

    return answer


def ranged(
    body: bytes, etag: str | None = '"v1"', modified_s: float | None = None, sends: int | None = None, then=None
):
    """A correct server: Range, If-Range, 206, 416. After `sends` bytes of an answer it calls `then` (such as `stall`),
    or hangs up."""
    modified = formatdate(modified_s, usegmt=True) if modified_s is not None else None

    def answer(request):
        asked, condition = request.headers["Range"], request.headers["If-Range"]
        valid = {etag} if etag and not etag.startswith("W/") else set()
        start = int(asked[len("bytes=") : -1]) if asked and condition in {None, modified, *valid} else None
        if start is not None and start >= len(body):
            request.begin(416, Content_Length=0, Content_Range=f"bytes */{len(body)}", ETag=etag)
            return
        content = body[start or 0 :]
        sent_range = None if start is None else f"bytes {start}-{len(body) - 1}/{len(body)}"
        request.begin(
            200 if start is None else 206,
            Content_Length=len(content),
            Content_Range=sent_range,
            ETag=etag,
            Last_Modified=modified,
        )
        request.wfile.write(content[:sends])
        if then:
            then(request)

    return answer


def rangeless(body: bytes, sends: int | None = None, then=None, **headers):
    """A server that ignores Range: 200 and the complete file, or only its first `sends` bytes."""

    def answer(request):
        request.begin(200, Content_Length=len(body), **headers)
        request.wfile.write(body[:sends])
        if then:
            then(request)

    return answer


def stall(request):
    """Send nothing more, but keep the connection until the test ends."""
    request.wfile.flush()
    request.server.record.closing.wait(20)


def partial(body: bytes, content_range: str, **headers):
    """206 with the given content and Content-Range, whatever was requested."""

    def answer(request):
        request.begin(206, Content_Length=len(body), Content_Range=content_range, **headers)
        request.wfile.write(body)

    return answer


def chunked(body: bytes, whole: bool = True, **headers):
    """Chunks of 1,000 bytes and no length; not `whole`: it hangs up before the final chunk."""

    def answer(request):
        request.begin(200, Transfer_Encoding="chunked", **headers)
        for start in range(0, len(body), 1000):
            chunk = body[start : start + 1000]
            request.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        request.wfile.write(b"0\r\n\r\n" if whole else b"")

    return answer


def endless(body: bytes):
    """HTTP/1.0: no length; the file ends with the connection."""

    def answer(request):
        request.begin(200)
        request.wfile.write(body)

    return answer


def gzipped_if_asked(body: bytes):
    """Compressed, if the client accepts that."""

    def answer(request):
        asked = re.search(r"gzip|\*", request.headers["Accept-Encoding"] or "*")
        content = gzip.compress(body) if asked else body
        request.begin(200, Content_Length=len(content), Content_Encoding="gzip" if asked else None)
        request.wfile.write(content)

    return answer
