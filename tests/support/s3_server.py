"""An object store on this machine, for tests: moto's server on loopback."""

import logging
import os
import threading
import urllib.request
import uuid

import pytest

__all__ = ["bucket", "server"]


@pytest.fixture(scope="module")
def server():
    """Run a server until the tests of a module are done; give its URL."""
    moto = pytest.importorskip("moto.moto_server.werkzeug_app")
    serving = pytest.importorskip("werkzeug.serving")
    pytest.importorskip("icechunk")
    log = logging.getLogger("werkzeug")
    before, log.level = log.level, logging.ERROR
    app = _one_at_a_time(moto.DomainDispatcherApplication(moto.create_backend_app))
    running = serving.make_server(
        "127.0.0.1", 0, app, threaded=True, request_handler=moto.MotoRequestHandler
    )
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}"
    finally:
        running.shutdown()
        thread.join()
        running.server_close()
        log.level = before


def _one_at_a_time(app):
    """Let a server answer one request after the other.

    moto looks whether a condition of a write holds, and then writes; two processes may both
    be told that they were the first. An object store makes one step of it.
    """
    lock = threading.Lock()

    def answer(environ, start_response):
        with lock:
            return [b"".join(app(environ, start_response))]

    return answer


@pytest.fixture
def bucket(server, monkeypatch):
    """Make an empty bucket, and an environment that leads to it; give its URL."""
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    name = f"lab-{uuid.uuid4().hex}"
    request = urllib.request.Request(f"{server}/{name}", method="PUT")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        assert answer.status == 200
    return f"s3://{name}"
