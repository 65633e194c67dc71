"""Counts the lines of an instance's access logs, to show that the row with access logs had them on."""

from pathlib import Path

PIECE = 1 << 20


def lines(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                while piece := file.read(PIECE):
                    total += piece.count(b"\n")
    return total
