"""The `status` target: this front end's counters as JSON. Answered by a green thread."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from .green import Exchange, Handler


def status_handler(collect: Callable[[], Mapping[str, object]]) -> Handler:
    """A handler that answers with what `collect` returns."""

    def answer(exchange: Exchange) -> None:
        body = json.dumps(collect(), indent=1, sort_keys=True).encode() + b"\n"
        fields = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
        exchange.respond(200, fields, len(body))
        exchange.write(body)
        exchange.finish()

    return answer
