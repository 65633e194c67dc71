"""What the supervisor itself has to say: to the error log through the logger, and to standard error until it serves.

Never blocks: what does not fit into the pipe is dropped, counted and reported.
"""

from __future__ import annotations

import json
import os
import traceback

LINE_LIMIT = 4000  # bytes of one line in the pipe; below PIPE_BUF, so that it is whole or absent


class Journal:
    """Owns the writing end of the supervisor's log pipe once it has one."""

    def __init__(self, stream: int) -> None:
        self._stream = stream
        self._pipe = -1
        self._dropped = 0
        self.echo = True  # to standard error as well
        self.pipe_too = True  # False while both ways would lead to the same terminal

    def use_pipe(self, number: int) -> None:
        os.set_blocking(number, False)
        self._pipe = number

    def error(self, text: str) -> None:
        self._say("error", text)

    def warning(self, text: str) -> None:
        self._say("warning", text)

    def notice(self, text: str) -> None:
        self._say("notice", text)

    def bug(self, error: BaseException) -> None:
        """A mistake of our own that was survived."""
        self._say("error", "bug: " + "".join(traceback.format_exception(error)).rstrip())

    def plain(self, text: str) -> None:
        """A line to whoever started us and nowhere else."""
        # Much of it was said by applications: nothing in it may steer a terminal.
        shown = "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in text)
        try:
            os.write(self._stream, (shown + "\n").encode("utf-8", "backslashreplace"))
        except OSError:
            pass

    def close(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    def _say(self, level: str, text: str) -> None:
        if self.echo or self._pipe < 0:
            self.plain(f"webserverd: {level}: {text}" if level != "notice" else f"webserverd: {text}")
            if not self.pipe_too:
                return
        if self._pipe < 0:
            return
        if self._dropped and self._write("warning", f"{self._dropped} lines of the supervisor were dropped"):
            self._dropped = 0
        if not self._write(level, text):
            self._dropped += 1

    def _write(self, level: str, text: str) -> bool:
        entry = {"level": level, "text": text}
        line = b"\x1e" + json.dumps(entry).encode() + b"\n"
        while len(line) > LINE_LIMIT and text:
            text = text[: len(text) * 3 // 4]
            line = b"\x1e" + json.dumps({**entry, "text": text + " [cut]"}).encode() + b"\n"
        try:
            os.write(self._pipe, line)
        except OSError:
            return False
        return True
