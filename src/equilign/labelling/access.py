"""Who may talk to the page's server: the right host, the right page, the right token."""

import hmac
import ipaddress
import os
import secrets
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import urlsplit

from equilign.errors import ConfigError


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def split_host(value: str) -> tuple[str, int | None] | None:
    """Name and port of a ``Host`` header; None if it is malformed."""
    try:
        parts = urlsplit(f"//{value}")
        name, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not name or parts.netloc != value or "@" in value or parts.path or parts.query:
        return None
    return name.lower(), port


def kept_token(database: Path, *, new: bool = False) -> str:
    """The token of a file of answers, beside it and for its owner's eyes only.

    It is kept, so that the address people were given works after a restart.

    Args:
        database: the file of answers.
        new: make another one; the old address works no more.

    Raises:
        ConfigError: the token cannot be read or written.
    """
    path = database.with_name(database.name + ".token")
    try:
        if not new and path.exists() and (token := path.read_text(encoding="ascii").strip()):
            return token
        token = secrets.token_urlsafe(24)
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
            handle.write(token + "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot keep the token in {path}: {error}") from error
    return token


@dataclass(frozen=True)
class Access:
    """What a request must carry.

    A page on another site may make a browser send requests here, and a hostile name server may
    make its name point here (DNS rebinding). So the ``Host`` must be one of ours, and the
    ``Origin``, where a browser sends one, must be that very host.

    Attributes:
        loopback: listening on this machine only.
        names: host names that are ours, lower case; addresses are always names of ours where the
            server is not on loopback, since no name server can point at an address.
        token: what every request must carry; None asks for none.
        cookie: name of the cookie with the token.
    """

    loopback: bool
    names: frozenset[str]
    token: str | None
    cookie: str = "equilign-label"

    @classmethod
    def of(cls, host: str, token: str | None, extra: Iterable[str] = ()) -> "Access":
        """For a server that listens on ``host``; ``extra`` names are ours, too."""
        loopback = is_loopback(host)
        names = {"localhost"} if loopback else {host, socket.gethostname(), socket.getfqdn()}
        return cls(loopback, frozenset(n.lower() for n in (*names, *extra) if n), token)

    def host_is_ours(self, value: str | None) -> bool:
        """Whether a ``Host`` header names this server."""
        found = split_host(value or "")
        if found is None:
            return False
        name = found[0]
        if name in self.names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self.loopback

    def origin_is_ours(self, headers: Mapping[str, str]) -> bool:
        """Whether a request comes from our own page, or from no page at all."""
        if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            return False
        origin = headers.get("Origin")
        if origin is None:
            return True
        scheme, _, host = origin.partition("://")
        return scheme in ("http", "https") and host.lower() == headers.get("Host", "").lower()

    def token_is_right(self, headers: Mapping[str, str], given: str | None = None) -> bool:
        """Whether the token is there: in the cookie, as a bearer, or ``given`` in the URL."""
        if self.token is None:
            return True
        found = [given or ""]
        kind, _, value = headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer":
            found.append(value.strip())
        try:
            jar = SimpleCookie(headers.get("Cookie", ""))
        except CookieError:
            jar = SimpleCookie()
        if self.cookie in jar:
            found.append(jar[self.cookie].value)
        right = self.token.encode()
        # All are compared, in constant time each: neither content nor place is given away.
        return any([hmac.compare_digest(f.encode("utf-8", "replace"), right) for f in found])
