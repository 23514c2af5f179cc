"""Methods: HEAD wherever there is GET, and `Allow` with every method of a path."""

from __future__ import annotations

from typing import cast

from litestar.datastructures import MutableScopeHeaders
from litestar.enums import HttpMethod, ScopeType
from litestar.types import HTTPScope, LifeSpanScope, Message, Scope


def as_get(scope: Scope | LifeSpanScope) -> Scope | LifeSpanScope:
    """Return the scope of the GET that a HEAD stands for. The server omits the body."""
    if scope["type"] == ScopeType.HTTP and (http := cast(HTTPScope, scope))["method"] == HttpMethod.HEAD:
        return cast(HTTPScope, {**http, "method": HttpMethod.GET.value})
    return scope


async def name_allowed_methods(message: Message, scope: Scope) -> None:
    """Complete `Allow`.

    Litestar's answer to OPTIONS lists the methods of one handler of a path, and no answer lists HEAD.
    """
    if message["type"] != "http.response.start":
        return
    headers = MutableScopeHeaders(message)
    if "allow" not in headers:
        return
    methods = {each.strip() for each in headers["allow"].split(",")}
    if cast(HTTPScope, scope)["method"] == HttpMethod.OPTIONS:
        methods |= _methods_of(scope)
    if "GET" in methods:
        methods.add("HEAD")
    headers["allow"] = ", ".join(sorted(methods))


def _methods_of(scope: Scope) -> set[str]:
    app, path = scope["litestar_app"], scope["path_template"]
    routes = [route for route in app.routes if route.path_format == path]
    return {method for route in routes for method in getattr(route, "methods", ())}
