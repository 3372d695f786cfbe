"""Owns where the service listens and where it is asked: hosts, ports, sockets in files; knows no requests."""

import errno
import http.client
import os
import socket
from pathlib import Path

from service.errors import SettingsError

_UNIX = "unix:"
_BACKLOG = 2048
# Listening on every interface is no address to connect to.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def listen(host: str, port: int) -> socket.socket:
    """A listening socket for QA_HOST and QA_PORT: a name, an IPv4 or IPv6 address, or unix:PATH.

    Raises SettingsError, in one sentence, where that is not possible.
    """
    if host.startswith(_UNIX):
        return _listen_unix(unix_path(host))
    faults: list[OSError] = []
    for family, address in _resolve(host, port):
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            faults.append(error)
        else:
            return listener
    name = "QA_PORT" if faults[0].errno in (errno.EADDRINUSE, errno.EACCES) else "QA_HOST"
    raise SettingsError(
        f"The service cannot listen on QA_HOST {host!r}, QA_PORT {port}: {_reason(faults[0])}.", field=name
    )


def describe(host: str, port: int) -> str:
    """One word for an address, as `connect` reads it."""
    return host if host.startswith(_UNIX) else f"{host}:{port}"


def of(listener: socket.socket) -> str:
    """The address that a listening socket really has, as `connect` reads it."""
    name = listener.getsockname()
    if isinstance(name, str | bytes):  # bytes: an abstract address of Linux, without a file
        return _UNIX + os.fsdecode(name)
    return f"{name[0]}:{name[1]}"


def inherited(first: int, count: int) -> str:
    """The address of the first of `count` listening sockets that this process was started with.

    They are the descriptors from `first` on. Raises SettingsError for one that is no listening socket.
    """
    found = []
    for descriptor in range(first, first + count):
        try:
            with socket.socket(fileno=os.dup(descriptor)) as listener:
                if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    raise OSError(errno.EINVAL, "it does not listen for connections")
                found.append(of(listener))
        except OSError as error:
            raise SettingsError(
                f"LISTEN_FDS says that systemd passed {count} sockets, but descriptor {descriptor} is no "
                f"listening socket: {_reason(error)}.",
                field="LISTEN_FDS",
            ) from None
    return found[0]


def connect(address: str, timeout: float) -> http.client.HTTPConnection:
    """A connection for HTTP to a service that listens on `address`; raises OSError when it is used."""
    if address.startswith(_UNIX):
        return _UnixConnection(unix_path(address), timeout)
    host, _, port = address.rpartition(":")
    host = bare(host)
    return http.client.HTTPConnection(_EVERYWHERE.get(host, host), int(port), timeout=timeout)


def bare(host: str) -> str:
    """A host without the brackets that an IPv6 address has in a URL."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def unix_path(host: str) -> str:
    """The path in unix:PATH or unix://PATH."""
    return host.removeprefix(_UNIX).removeprefix("//")


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket in a file."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _resolve(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[object, ...]]]:
    """Families and addresses of a host, IPv4 first; at least one."""
    try:
        found = socket.getaddrinfo(bare(host), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise SettingsError(
            f"QA_HOST is {host!r}, which is no address of this machine: {_reason(error)}.", field="QA_HOST"
        ) from None
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return [(entry[0], entry[4]) for entry in found]


def _listen_unix(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0)  # as gunicorn's own: who may connect is up to the folder
    try:
        _remove_stale(path)
        listener.bind(path)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"The service cannot listen on QA_HOST {_UNIX + path!r}: {_reason(error)}.", field="QA_HOST"
        ) from None
    finally:
        os.umask(mask)
    return listener


def _remove_stale(path: str) -> None:
    """Remove the socket of a service that was killed; one that answers is left, and so met by `bind`."""
    if not Path(path).is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
