"""Which companions wait for which: the circle that nobody could start in, and an order for those who can. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

After = Mapping[str, Collection[str]]  # name: those that must be ready first; names that are no keys count for nothing


def circle(after: After) -> tuple[str, ...]:
    """Names of which each waits for the next, and the last for the first; () where there is no such circle."""
    left = {name: [other for other in others if other in after] for name, others in after.items()}
    while left:
        free = [name for name, others in left.items() if not any(other in left for other in others)]
        if not free:
            break
        for name in free:
            del left[name]
    if not left:
        return ()
    # Everybody who is left waits for somebody who is left: walking on must come back.
    way = [min(left)]
    while True:
        following = min(other for other in left[way[-1]] if other in left)
        if following in way:
            return tuple(way[way.index(following) :])
        way.append(following)


def startable(after: After, pending: Iterable[str], ready: Collection[str]) -> list[str]:
    """Of those that are to start, the ones that need not wait any longer."""
    return [name for name in pending if all(other in ready for other in after[name] if other in after)]


def stoppable(after: After, alive: Collection[str]) -> list[str]:
    """Of those that are to end, the ones that none of the others stands on."""
    return [name for name in alive if not any(name in after[other] for other in alive if other != name)]


def needed(after: After, names: Iterable[str]) -> set[str]:
    """`names` and all that they wait for, as far as these are known."""
    found: set[str] = set()
    ways = [name for name in names if name in after]
    while ways:
        name = ways.pop()
        if name not in found:
            found.add(name)
            ways += [other for other in after[name] if other in after]
    return found
