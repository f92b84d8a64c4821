"""Redis servers that fail: a fixed answer to every command, silence, and TLS in front of a real server."""

import asyncio
import shutil
import ssl
import subprocess

import pytest

from serving import serving


def answering(*answers):
    """Run a server that gives each answer once, in order, and the last one to all later commands."""
    left = list(answers)

    async def handle(reader, writer):
        while await reader.read(65_536):
            writer.write(left[0] if len(left) == 1 else left.pop(0))

    return serving(handle)


def silent():
    """Run a server that reads and never answers."""

    async def handle(reader, _writer):
        while await reader.read(65_536):
            pass

    return serving(handle)


def with_tls(port, certificate):
    """Run TLS, with a certificate and its key in one file, in front of a server without it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def handle(reader, writer):
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", port)

        async def copy(source, target):
            while data := await source.read(65_536):
                target.write(data)
            target.close()

        try:
            await asyncio.gather(copy(reader, behind_writer), copy(behind_reader, writer))
        finally:
            behind_writer.close()

    return serving(handle, ssl=context)


def make_certificate(folder, *, name="IP:127.0.0.1", days=2):
    """Create a self-signed certificate with its key in one file; with -1 days it has expired."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the program openssl")
    key, request, names, made = (folder / f"made.{end}" for end in ("key", "csr", "txt", "crt"))
    names.write_text(f"subjectAltName={name}\n")
    subject = ["-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, "-subj", "/CN=test"]
    signed = ["-in", request, "-signkey", key, "-days", str(days), "-extfile", names, "-out", made]
    for arguments in (["req", "-new", *subject], ["x509", "-req", *signed]):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
    file = folder / "both.pem"
    file.write_text(key.read_text() + made.read_text())
    return file
