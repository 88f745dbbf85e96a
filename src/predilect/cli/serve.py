"""`predilect serve`."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from predilect.cli.show import console
from predilect.errors import ServingError

if TYPE_CHECKING:
    from predilect.serving.predictor import Views

__all__ = ["TOKEN_VARIABLE", "serve_command"]

TOKEN_VARIABLE = "PREDILECT_TOKEN"  # noqa: S105 (the name of one)

_SHORTEST_TOKEN = 16
_LOOPBACK_NAMES = ("127.0.0.1", "[::1]", "localhost")


def serve_command(
    bundle: Path,
    /,
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(validator=Number(gte=0, lte=65535))] = 8000,
    tta: Literal["center", "ten-crop"] | None = None,
    runtime: str = "torch",
    no_token: Annotated[bool, Parameter(name="--no-token", negative="", show_default=False)] = False,
) -> None:
    """Answer for a bundle over HTTP, with a web page for people and an API for programs, until Ctrl-C.

    Photographs stay in memory while they are looked at: none is written to a disk, none is sent on. A token in the environment
    variable PREDILECT_TOKEN must then be named by whoever asks (Authorization: Bearer TOKEN); beyond this machine the server does
    not go without one. Traffic is not encrypted: beyond this machine put a proxy with TLS before it. Needs `pip install
    'predilect[serve]'`. docs/serving.md shows what may be asked.

    Example: `predilect serve runs/clinic/bundle`

    Args:
        bundle: The bundle folder.
        host: The address to listen at; 127.0.0.1 is reached from this machine alone, 0.0.0.0 from all that can reach it.
        port: The port; 0 takes one that is free.
        tta: What is looked at of a photograph; by default what the bundle was calibrated with. Ten crops cost the network ten times as much as the centre.
        runtime: What computes: torch, onnx with the model that `predilect export BUNDLE` made, or onnx=FILE with one elsewhere.
        no_token: Ask for no token, though the server may be reached from elsewhere.
    """
    token = None if no_token else _token()
    listening, loopback = _listen(host, port)
    with listening:
        if token is None and not loopback and not no_token:
            raise ServingError(
                f"{host} may be reached from other machines: put a token of at least {_SHORTEST_TOKEN} letters and digits into the "
                f"environment variable {TOKEN_VARIABLE}, or say --no-token"
            )
        _serve(bundle, token, listening, runtime=runtime, views=tta, host=host, loopback=loopback)


def _serve(
    bundle: Path, token: str | None, listening: socket.socket, *, runtime: str, views: Views | None, host: str, loopback: bool
) -> None:
    try:
        from predilect.serving.api import make_app
        from predilect.serving.connections import make_server
    except ModuleNotFoundError as error:
        raise ServingError(f"the server needs the package {error.name}: pip install 'predilect[serve]'") from error
    from predilect.bundle import Bundle
    from predilect.serving.predictor import Predictor
    from predilect.serving.settings import Settings

    names = frozenset({*_LOOPBACK_NAMES, _written(host)})
    if not loopback and token is None:
        own = socket.gethostname().lower()
        names |= {own, f"{own.partition('.')[0]}.local"}
    # With a token no name of a page's own helps it; without one only names and addresses that no page can have are answered to.
    hosts = names if loopback or token is None else None
    settings = Settings(token=token, hosts=hosts, any_address=not loopback)
    app = make_app(Predictor.open(Bundle.open(bundle), runtime=runtime, views=views), settings)
    console.print(f"serving   http://{_written(host)}:{listening.getsockname()[1]}/")
    console.print(f"token     {'none is asked for' if token is None else f'asked for, as {TOKEN_VARIABLE} has it'}")
    console.print("use       Not a medical device: for research and development only.")
    make_server(app, settings).run(sockets=[listening])


def _token() -> str | None:
    token = os.environ.get(TOKEN_VARIABLE)
    if token is None:
        return None
    if len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        fault = "a blank or a letter that is not of ASCII" if len(token) >= _SHORTEST_TOKEN else f"{len(token)} characters"
        raise ServingError(
            f"the environment variable {TOKEN_VARIABLE} holds {fault}; a token has at least {_SHORTEST_TOKEN} characters: "
            f"letters, digits and signs of ASCII without blanks"
        )
    return token


def _listen(host: str, port: int) -> tuple[socket.socket, bool]:
    """A socket that listens at an address, and whether only this machine can reach it."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as error:
        raise ServingError(f"there is no address {host!r} to listen at ({error.strerror})") from error
    except UnicodeError as error:  # a part of it is empty, or longer than names may have
        raise ServingError(f"there is no address {host!r} to listen at (no name is like that)") from error
    try:
        listening = socket.create_server((str(address[0]), port), family=family, backlog=2048)
        # Connections inherit it. An event loop sets it only where a socket names its protocol, and without it a body waits 40 ms for
        # the client to acknowledge the headers.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ServingError(f"port {port} of {host} is in use; choose another by --port") from error
        reason = error.strerror if error.errno is None else os.strerror(error.errno)  # Python adds to what the system says
        raise ServingError(f"port {port} of {host} cannot be listened at ({reason}); choose another by --port") from error
    return listening, ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback


def _written(host: str) -> str:
    """As it stands in an address and in a Host header."""
    return f"[{host}]" if ":" in host else host.lower()
