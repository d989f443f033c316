"""Mail through an SMTP server, with one deadline over the whole exchange."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage

from heap_assets.errors import DeliveryError, HostNotAllowedError
from heap_assets.http_client import AllowedHosts

_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class MailServer:
    """Where mail is handed in; `login` is user and password."""

    host: str
    port: int
    starttls: bool = True
    login: tuple[str, str] | None = None


def send_mail(
    server: MailServer, mail: EmailMessage, allowed: AllowedHosts, subject: str, seconds: float = _TIMEOUT_SECONDS
) -> None:
    """Hand in one mail.

    Parameters
    ----------
    subject
        What messages call the mail: `alert channel ops`.
    seconds
        Longest time for all of it.

    Raises
    ------
    DeliveryError
        If it was not accepted: the text has `subject` and the kind of error, never an address.
    """
    try:
        allowed.check(server.host, server.port)
        with smtplib.SMTP(timeout=_TIMEOUT_SECONDS) as connection, _ending(connection, seconds):
            connection.connect(server.host, server.port)
            if server.starttls:
                connection.starttls(context=ssl.create_default_context())
            if server.login:
                connection.login(*server.login)
            refused = connection.send_message(mail)
    except HostNotAllowedError as error:
        raise DeliveryError(f"{subject}: {error}") from None
    except (OSError, smtplib.SMTPException, ValueError) as error:  # UnicodeError: a host that cannot be one
        raise DeliveryError(f"{subject} did not take the mail ({type(error).__name__})") from None
    if refused:
        raise DeliveryError(f"{subject} refused {len(refused)} of the recipients")


@contextmanager
def _ending(connection: smtplib.SMTP, seconds: float) -> Iterator[None]:
    """Close the connection after the limit: the timeout of smtplib is per line, and a slow server may send many."""
    over = threading.Event()

    def watch() -> None:
        waited = seconds
        # repeated, because STARTTLS replaces the socket
        while not over.wait(waited):
            waited = 0.2
            with contextlib.suppress(OSError, AttributeError):
                connection.sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]

    watcher = threading.Thread(target=watch, name="mail-deadline", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
