"""Lua scripts that read and replace all keys of a part on a server, each in one step for everyone.

KEYS are the keys that there always are. ARGV: the most bytes, the most keys, the prefix of the ledger's keys or
nothing; for `PUT` also the digest of the content that is replaced, and the new content as JSON.
"""

from embedway.files import read_package_text

_READ, _TAKE, _PUT = (read_package_text("embedway.state", f"lua/{name}.lua") for name in ("read", "take", "put"))
TAKE, PUT = _READ + _TAKE, _READ + _PUT
