"""Requests of the REST API: bodies and query parameters that the OpenAPI document does not describe are refused."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from litestar import Request
from litestar.exceptions import ValidationException

from billingwatch.errors import InputInvalid

BODY_LIMIT = 64 * 1024  # bytes of a request body; a mute, the largest valid one, has 2,600 characters

_WHERE = re.compile(r" - at `\$\.?(?P<key>.*)`$")


class ApiRequest(Request[Any, Any, Any]):
    """Decodes a body strictly: Litestar converts numbers to booleans and instants."""

    async def json(self) -> Any:  # noqa: ANN401 - as Litestar declares it
        body = await self.body()
        wanted = self.route_handler.parsed_fn_signature.parameters["data"].annotation
        try:
            return msgspec.json.decode(body, type=wanted)
        except RecursionError:
            raise InputInvalid(reason="the body is nested too deeply") from None
        except msgspec.ValidationError as error:
            message = str(error)
            where = _WHERE.search(message)
            fault = {"message": message[: where.start()] if where else message, "source": "body"}
            if where and where["key"]:
                fault["key"] = where["key"]
            raise ValidationException("the body is not as documented", extra=[fault]) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputInvalid(reason=f"the body is not JSON: {error}") from error


def refuse_unknown_parameters(request: Request[Any, Any, Any]) -> None:
    """Raise InputInvalid for a query parameter that the operation does not document, or that occurs twice."""
    where = request.scope["path_template"], request.method
    documented: frozenset[str] = request.app.state.query_parameters[where]
    given = [name for name, _ in request.query_params.multi_items()]
    for number, name in enumerate(given):
        if name not in documented:
            known = ", ".join(f"`{each}`" for each in sorted(documented))
            choice = f"choose from {known}" if known else "this call has none"
            raise InputInvalid(reason=f"unknown query parameter `{name[:64]}`; {choice}")
        if name in given[:number]:
            raise InputInvalid(reason=f"query parameter `{name}` is given twice")
