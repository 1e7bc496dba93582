"""Downloads against a real server on this machine that breaks in every way a server does."""

import hashlib
import http.server
import resource
import socket
import struct
import threading
import time

import numpy as np
import pytest

from cifar_report.base.errors import InputError
from cifar_report.data.downloads import fetch

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SENT = 200_000  # bytes before a transfer breaks
ADVICE = "set datasets.x.archive to a copy on disk"


def serve(request, content=CONTENT, headers=()):
    """As a server should: ranges, lengths, 416."""
    wanted = request.headers.get("Range")
    start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
    if wanted and start >= len(content):
        return answer(request, 416, b"")
    extra = (("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"),) if wanted else ()
    return answer(request, 206 if wanted else 200, content[start:], (*extra, *headers))


def answer(request, status, body, headers=(), length=None):
    request.send_response(status)
    for header in (("Content-Length", len(body) if length is None else length), *headers):
        if header[1] is not None:
            request.send_header(*map(str, header))
    request.end_headers()
    request.wfile.write(body)
    request.wfile.flush()


def whole(request):
    answer(request, 200, CONTENT)


def truncate(request):
    answer(request, 200, CONTENT[:SENT], length=len(CONTENT))


def without_length(request):
    answer(request, 200, CONTENT[:SENT], (("Content-Length", None),), length="")


def stall(request):
    truncate(request)
    request.server.over.wait()


def silence(request):
    request.server.over.wait()


def reset(request):
    truncate(request)
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.connection.close()


def refuse(request):
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.connection.close()


def wrong(request):
    serve(request, bytes(len(CONTENT)))


def elsewhere(request):
    answer(request, 206, CONTENT[5:], (("Content-Range", f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}"),))


def encoded(request):
    serve(request, headers=(("Content-Encoding", "x-gzip"),))


def endless(request):
    request.send_response(200)
    request.end_headers()
    while not request.server.over.is_set():
        request.wfile.write(bytes(SENT))


def status(code):
    def reply(request):
        answer(request, code, b"an error page")

    return reply


def redirect(to):
    def reply(request):
        answer(request, 302, b"", (("Location", to),))

    return reply


class Server(http.server.ThreadingHTTPServer):
    """Plays, for each path, its replies in turn, the last one for ever; notes the `Range` of each request."""

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.over = threading.Event()
        self.replies = {}
        self.asked = []

    def play(self, path, *replies):
        self.replies[path] = list(replies)
        return f"http://127.0.0.1:{self.server_port}{path}"

    def handle_error(self, request, client_address):
        """Clients that hang up are part of the tests."""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        replies = self.server.replies[self.path]
        (replies.pop(0) if len(replies) > 1 else replies[0])(self)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "resources" / "archive.tar.gz"


def get(urls, target, **options):
    fetch(urls, target, SHA256, ADVICE, **({"attempts": 3, "first_wait": 0.01, "timeouts": (5, 5)} | options))
    assert target.read_bytes() == CONTENT
    assert sorted(path.name for path in target.parent.iterdir()) == [".archive.tar.gz.lock", "archive.tar.gz"]


def leave(target, content):
    """What a killed download leaves."""
    target.parent.mkdir()
    target.with_name("archive.tar.gz.part").write_bytes(content)


@pytest.mark.parametrize("fault", [truncate, stall, silence, reset, refuse, status(503), status(429), status(500)])
def test_a_fault_is_survived(server, target, fault, capfd):
    get([server.play("/a", fault, serve)], target, timeouts=(5, 0.3))
    assert len(server.asked) >= 2
    told = capfd.readouterr()
    assert told.err == "", "the progress bar is for terminals"
    if fault in (truncate, stall):
        begin = int(server.asked[1][1].removeprefix("bytes=").removesuffix("-"))
        assert begin > SENT / 2 and f"from byte {begin}\n" in told.out


@pytest.mark.parametrize("ending", [whole, serve, elsewhere])
def test_a_partial_file_is_continued_or_begun_again(server, target, ending, capfd):
    """Where the server goes on, where it sends the whole instead, and where it sends another range than asked for."""
    leave(target, CONTENT[:SENT])
    get([server.play("/a", ending, serve)], target)
    assert server.asked[0] == ("/a", f"bytes={SENT}-")
    assert [wanted for _, wanted in server.asked[1:]] == ([None] if ending is elsewhere else [])
    assert ("from byte" in capfd.readouterr().out) == (ending is serve)


def test_another_range_than_asked_for_is_not_appended(server, target):
    get([server.play("/a", truncate, elsewhere, serve)], target)
    assert [wanted for _, wanted in server.asked] == [None, f"bytes={SENT}-", None]


@pytest.mark.parametrize(
    "stale", [bytes(SENT), CONTENT + b"more", bytes(len(CONTENT))], ids=["other", "longer", "full"]
)
def test_a_stale_partial_file_is_dropped(server, target, stale):
    leave(target, stale)
    get([server.play("/a", serve)], target)
    assert [wanted for _, wanted in server.asked] == [f"bytes={len(stale)}-", None]


def test_a_whole_partial_file_needs_no_server(server, target):
    """A download killed between its last byte and its renaming."""
    leave(target, CONTENT)
    get([server.play("/a", status(404))], target)
    assert not server.asked


def test_a_file_that_is_there_is_verified_not_fetched(server, target):
    url = server.play("/a", serve)
    get([url], target)
    get([url], target)
    assert len(server.asked) == 1
    target.write_bytes(CONTENT[:-1] + b"x")
    get([url], target)
    assert len(server.asked) == 2


def test_a_copy_put_there_needs_no_writing(target):
    """Not even a lock, so that the folder may be read-only."""
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    fetch([], target, SHA256, ADVICE)
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("fault", [wrong, status(404), without_length])
def test_what_no_retry_mends_goes_to_the_next_address(server, target, fault):
    get([server.play("/a", fault), server.play("/b", serve)], target)
    assert server.asked == [("/a", None), ("/b", None)], "nothing of the wrong bytes is left"


def test_a_server_that_never_ends_is_given_up(server, target, monkeypatch):
    monkeypatch.setattr("cifar_report.data.downloads.LARGEST", 2 * len(CONTENT))
    with pytest.raises(InputError, match="/a: sent more than 600,000 bytes\n"):
        fetch([server.play("/a", endless)], target, SHA256, ADVICE)
    assert not target.with_name("archive.tar.gz.part").exists()
    get([server.play("/a", endless), server.play("/b", serve)], target)
    assert server.asked == [("/a", None), ("/a", None), ("/b", None)]


def test_another_address_continues_what_the_first_began(server, target):
    get([server.play("/a", truncate, status(503)), server.play("/b", serve)], target)
    assert server.asked[-1] == ("/b", f"bytes={SENT}-")


def test_redirects_are_followed(server, target):
    get([server.play("/a", redirect(server.play("/b", redirect(server.play("/c", serve)))))], target)
    assert [path for path, _ in server.asked] == ["/a", "/b", "/c"]


def test_a_gzip_file_sent_as_an_encoding_stays_as_it_is(server, target):
    get([server.play("/a", encoded)], target)


def test_the_wait_doubles(server, target, monkeypatch):
    waits = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)
    with pytest.raises(InputError):
        fetch([server.play("/a", status(503))], target, SHA256, ADVICE, attempts=8)
    assert waits == [1, 2, 4, 8, 16, 30, 30]


def test_the_message_names_every_address_and_what_to_do(server, target):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
        urls = [
            server.play("/missing", status(404)),
            server.play("/wrong", wrong),
            server.play("/busy", status(503)),
            server.play("/circle", redirect("/circle")),
            server.play("/file", redirect("file:///etc/passwd")),
            nobody,
            server.play("/short", truncate, refuse),
        ]
        with pytest.raises(InputError) as caught:
            fetch(urls, target, SHA256, ADVICE, attempts=2, first_wait=0.01)
    lines = str(caught.value).splitlines()
    reasons = (
        "the server answered 404 Not Found",
        f"expected SHA-256 {SHA256}, found {hashlib.sha256(bytes(len(CONTENT))).hexdigest()}",
        "the server answered 503 Service Unavailable",
        "Exceeded 30 redirects",
        "No connection adapters were found for 'file:///etc/passwd'",
        "Connection refused",
        "Connection reset by peer",
    )
    assert lines[0] == f"{target}: no address gave this file"
    for line, url, reason in zip(lines[1:-1], urls, reasons, strict=True):
        assert line.startswith(f"  {url}: {reason}"), line
    assert lines[-1].startswith(f"{ADVICE}; {target}.part keeps what came")
    assert not target.exists()
    paths = [path for path, _ in server.asked]
    assert (paths.count("/missing"), paths.count("/circle"), paths.count("/file")) == (1, 31, 1), "no retry mends these"
    get([server.play("/again", serve)], target)
    assert server.asked[-1] == ("/again", f"bytes={SENT}-")


def test_no_address_at_all(target):
    with pytest.raises(InputError, match=f"no address gave this file\n{ADVICE}"):
        fetch([], target, SHA256, ADVICE)


def test_two_at_once_fetch_once(server, target):
    def slowly(request):
        time.sleep(0.2)
        serve(request)

    url = server.play("/a", slowly)
    threads = [threading.Thread(target=fetch, args=([url], target, SHA256, ADVICE)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_a_write_that_fails_is_no_network_fault(server, target):
    """As on a full disk: the system refuses to write more than a limit."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SENT, limits[1]))
    try:
        with pytest.raises(InputError, match=rf"{target}.part: .*'File too large'; make room .*or {ADVICE}"):
            get([server.play("/a", serve)], target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(server.asked) == 1 and not target.exists()
    get([server.play("/a", serve)], target)
    assert server.asked[-1] == ("/a", f"bytes={SENT}-")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "resources").write_text("a file")
    with pytest.raises(InputError, match=r"resources: .*File exists.*give permission"):
        fetch([], tmp_path / "resources" / "archive", SHA256, ADVICE)
