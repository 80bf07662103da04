import socket

import pytest


@pytest.fixture(autouse=True)
def network_off(monkeypatch):
    """Reading a corpus never goes out by itself."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("a test tried to open a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def folder(tmp_path):
    """Writes a corpus folder: ``folder({"eng_Latn.txt": "Hello.\\n"})``."""

    def write(files, name="corpus"):
        path = tmp_path / name
        path.mkdir()
        for file, content in files.items():
            data = content if isinstance(content, bytes) else content.encode("utf-8")
            (path / file).write_bytes(data)
        return path

    return write
