"""A loopback server that answers with given bytes."""

import asyncio
import contextlib

from embedway.providers.http import JsonHttp
from serving import serving


class RawServer:
    """Answers each POST with the bytes that `answer` returns for its body, and closes the connection."""

    def __init__(self, answer):
        self._answer = answer
        self.requests = []

    async def _serve(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        body = await reader.readexactly(int(length.partition(b":")[2]))
        self.requests.append((head, body))
        writer.write(self._answer(body))
        await writer.drain()

    @contextlib.asynccontextmanager
    async def running(self):
        """Run the server, and yield its URL."""
        async with serving(self._serve) as port:
            yield f"http://127.0.0.1:{port}"


def answer(content, *headers, status=200, length=True, content_type="application/json"):
    """Return the bytes of an answer, with its length unless `length` is false, or the length given there."""
    lines = [f"HTTP/1.1 {status} Some", f"Content-Type: {content_type}", "Connection: close", *headers]
    if length:
        lines.append(f"Content-Length: {len(content) if length is True else length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content


def post(raw, *, path="/embeddings", prefix="/v1", body=None, key="sk-key-of-the-test", **more):
    """Return the reply of `JsonHttp` to an answer of these bytes."""

    async def main():
        server = RawServer(lambda _: raw)
        async with server.running() as url:
            http = JsonHttp(url + prefix, route="r", headers={"authorization": f"Bearer {key}"}, timeout_s=20)
            try:
                return await http.post(path, body or {"input": ["alpha one"]}, **more)
            finally:
                await http.aclose()

    return asyncio.run(main())
