"""The admin API of a running gateway, as the subcommands use it."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import quote

from gateway.config import places
from gateway.config.address import Address, parse_address
from gateway.config.schema import Config
from gateway.process.sockets import reachable
from gateway.process.state import Holder, holder

SECONDS = 15.0


class NoGateway(OSError):
    """Nobody answers; the message says where."""


class Refused(OSError):
    """The admin API said no; the message is its own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Admin:
    """No proxy of the environment is asked: the address is one of this machine or of its operator."""

    def __init__(self, address: Address, token: str | None, seconds: float = SECONDS) -> None:
        self.address = reachable(address)
        self._token = token
        self._seconds = seconds

    def healthy(self) -> bool:
        try:
            self.ask("GET", "/healthz")
        except OSError:
            return False
        return True

    def ready(self) -> bool:
        try:
            return bool(self.ask("GET", "/readyz")["ready"])
        except OSError:
            return False

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The JSON of a good answer. Raises NoGateway or Refused."""
        headers = {"authorization": f"Bearer {self._token}"} if self._token else {}
        data = None
        if body is not None:
            headers["content-type"] = "application/json"
            data = json.dumps(body)
        connection = http.client.HTTPConnection(self.address.host, self.address.port, timeout=self._seconds)
        try:
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            status, text = answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise NoGateway(f"no gateway answers at {self.address}: {error or type(error).__name__}") from None
        finally:
            connection.close()
        try:
            value = json.loads(text)
        except ValueError:
            raise NoGateway(f"what answers at {self.address} is no gateway") from None
        if status >= 400:
            raise Refused(status, str(value.get("detail", value)) if isinstance(value, dict) else str(value))
        return value


def admin_of(config: Config, found: Holder | None = None) -> Admin:
    """Where the gateway of this state directory says that it is, else where it is configured to be."""
    found = found or holder(places.state(config))
    return Admin(parse_address(found.admin if found is not None and found.admin else config.admin), config.admin_token)


def run_path(run_id: str, rest: str = "") -> str:
    return f"/api/runs/{quote(run_id, safe='')}{rest}"
