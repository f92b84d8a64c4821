"""Messages for redirects. Requests with keys and texts follow none, so the message says where base_url should point."""

from __future__ import annotations

from urllib.parse import SplitResult, urljoin, urlsplit

#: Segments of a path that are shown; others could repeat the request.
_SEGMENTS = frozenset({"v1", "v2", "v3", "v4", "v1beta", "api", "openai", "embed", "embeddings", "rerank", "inference"})
_LOGIN = frozenset({"login", "signin", "sign-in", "sso", "auth", "oauth", "oauth2", "saml", "accounts", "authorize"})


def redirect_message(location: str, base_url: str, path: str) -> str:
    """Return the message for the header `Location` of an answer to `base_url` + `path`.

    It contains the settings' own host, and known words of paths; of a location nothing else, because it may repeat keys
    and texts.
    """
    ours = urlsplit(base_url + path)
    try:
        theirs = urlsplit(urljoin(ours.geturl(), location.strip()))
        elsewhere = _elsewhere(ours, theirs) if location.strip() else "without an address; check base_url"
    except ValueError:
        elsewhere = "to an invalid address; check base_url"
    return f"the service redirects {elsewhere or _to_path(ours, theirs.path, path.partition('?')[0])}"


def _elsewhere(ours: SplitResult, theirs: SplitResult) -> str:
    """Return the description of a login page, or of another scheme, host or port; empty for another path."""
    if {segment.lower() for segment in theirs.path.split("/")} & _LOGIN:
        return "to a login page; check base_url and the proxies on the way"
    if theirs.hostname != ours.hostname:
        return "to another host, where keys and texts are not sent; check base_url"
    if (ours.scheme, theirs.scheme) == ("http", "https"):
        return f"to https; start base_url with https://{ours.hostname}"
    if (theirs.scheme, theirs.port) != (ours.scheme, ours.port):
        return "to another port or scheme of its host; check base_url"
    return ""


def _to_path(ours: SplitResult, path: str, endpoint: str) -> str:
    segments = [segment for segment in path.split("/") if segment]
    known = _SEGMENTS | set(endpoint.split("/"))
    shown = "/" + "/".join(segment if segment in known else "…" for segment in segments)
    base = shown.removesuffix(endpoint)
    if base == shown or path.rstrip("/") == ours.path:
        return f"to the path {shown}{'/' * path.endswith('/')}; check base_url, and the server or proxy behind it"
    return f"to the path {shown}; base_url must end in {base}" if base else f"to the path {shown}; check base_url"
