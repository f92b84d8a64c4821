"""Servers over TLS with certificates of an authority of their own, and a proxy that supports CONNECT, on loopback."""

import asyncio
import base64
import contextlib
import datetime as dt
import functools
import ipaddress
import ssl

import trustme
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from api_misdeeds import SERVER
from api_servers import OpenAIServer
from serving import serving, serving_app

#: Host of the service behind the proxy, which only the proxy resolves.
HOST = "embeddings.example.com"


@functools.cache
def authority():
    return trustme.CA()


def write_authority(path, ca=None):
    """Write the certificate of the authority to a file and return its path."""
    (ca or authority()).cert_pem.write_to_path(str(path))
    return path


@functools.cache
def _issued(kind):
    names = {"good": (HOST, "localhost", "127.0.0.1"), "other host": ("other.example.com",), "name only": (HOST,)}
    issuer = trustme.CA() if kind == "unknown" else authority()
    if kind == "expired":
        ended = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
        return issuer.issue_cert(HOST, "localhost", "127.0.0.1", not_before=ended - dt.timedelta(9), not_after=ended)
    return issuer.issue_cert(*names.get(kind, names["good"]))


def server_context(kind="good"):
    """Return TLS settings of a server with a certificate of a kind: `good`, `expired`, `unknown`, `self-signed`, …."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if kind == "self-signed":
        _use_self_signed(context)
    else:
        _issued(kind).configure_cert(context)
    return context


def _use_self_signed(context):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    names = [x509.DNSName(HOST), x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now, now + dt.timedelta(9)
    )
    made = builder.add_extension(x509.SubjectAlternativeName(names), critical=False).sign(key, hashes.SHA256())
    kept = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with trustme.Blob(kept + made.public_bytes(serialization.Encoding.PEM)).tempfile() as path:
        context.load_cert_chain(path)


@contextlib.asynccontextmanager
async def served(server, context):
    """Run one of the API's servers over TLS, or in plain http if the context is None; yield its port."""
    app = web.Application(client_max_size=64 * 2**20)
    app[SERVER] = server
    app.router.add_post(server.path, server.handle)
    async with serving_app(app, ssl_context=context) as port:
        yield port


class Gateway(OpenAIServer):
    width = 1536


class Proxy:
    """HTTP proxy: connects every host to one port of this machine, or answers with a status.

    With `user`, as `name:password`, it requires them. `asked` are the first lines of the requests, `headers` all lines.
    """

    def __init__(self, port=0, *, status=200, user="", answer=None):
        self.port, self.status, self.user, self.answer = port, status, user, answer
        self.asked, self.headers = [], []
        self.url = ""

    async def _serve(self, reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            request = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked.append(request.partition("\r\n")[0])
            self.headers.append(request)
            expected = f"Proxy-Authorization: Basic {base64.b64encode(self.user.encode()).decode()}"
            status = 407 if self.user and expected not in request.split("\r\n") else self.status
            if self.answer is not None:
                writer.write(self.answer)
                await writer.drain()
                return
            if status != 200:
                writer.write(f"HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n".encode())
                await writer.drain()
                return
            there, to = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await asyncio.gather(_copy(reader, to), _copy(there, writer))
            finally:
                to.close()
                with contextlib.suppress(OSError, asyncio.CancelledError):
                    await to.wait_closed()

    @contextlib.asynccontextmanager
    async def running(self, context=None):
        async with serving(self._serve, ssl=context) as port:
            self.url = f"{'https' if context else 'http'}://127.0.0.1:{port}"
            yield self


async def _copy(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
