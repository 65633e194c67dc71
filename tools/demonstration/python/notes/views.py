import os
import time
from collections.abc import Iterator

from django.http import HttpRequest, StreamingHttpResponse
from django.views.generic import ListView

from .models import Note


class NoteList(ListView):
    model = Note


def count(request: HttpRequest) -> StreamingHttpResponse:
    """Ten lines in ten seconds, each sent when it is there: time enough to restart or kill the worker meanwhile."""

    def lines() -> Iterator[str]:
        yield f"worker {os.getpid()} counts to 10\n"
        for number in range(1, 11):
            time.sleep(1)
            yield f"{number}\n"

    return StreamingHttpResponse(lines(), content_type="text/plain; charset=utf-8")
