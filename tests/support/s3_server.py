"""An object store on this machine, for tests: moto's server on loopback."""

import logging
import os
import urllib.request
import uuid

import pytest

__all__ = ["bucket", "server"]


@pytest.fixture(scope="module")
def server():
    """Run a server until the tests of a module are done; give its URL."""
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("icechunk")
    log = logging.getLogger("werkzeug")
    before, log.level = log.level, logging.ERROR
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        running.stop()
        log.level = before


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
