"""Medians, ratios and verdicts; the Markdown beside the JSON.  Knows figures only, no processes.

A ratio is that of the medians; its range pairs figures of the same round.  "overlap" says that some round of one server
lies within the other's range: then the difference is not called one, whatever the ratio.
"""

from harness.peers import BY_NAME
from harness.store import Store, Summary
from harness.targets import TARGETS, Target

COMMAND = "tools/bench/run.py --only {row}"
COLUMNS = (  # metric, head, format
    ("rate", "requests/s", "{:,.0f}"),
    ("cpu_us", "CPU µs/request", "{:,.1f}"),
    ("p50_us", "p50 µs", "{:,.0f}"),
    ("p99_us", "p99 µs", "{:,.0f}"),
    ("switches", "switches/request", "{:.2f}"),
    ("foreign_cores", "other load, cores", "{:.2f}"),
)


def _ratio(target: Target, ours: float, theirs: float) -> float:
    if not target.against:
        return ours
    if target.sense == "-":
        return ours - theirs
    return ours / theirs if theirs else float("inf")


def _reaches(target: Target, value: float, limit: float) -> bool:
    return value >= limit if target.sense == ">=" else value <= limit


def _overlap(ours: Summary, theirs: Summary) -> bool:
    return ours.low <= theirs.high and theirs.low <= ours.high


def _round_range(store: Store, target: Target) -> tuple[float, float] | None:
    ours = store.figures[target.row][target.ours][target.metric]
    other = target.against or target.ours
    theirs = store.figures[target.other_row][other][target.metric] if target.against else ours
    values = [_ratio(target, a, b) for a, b in zip(ours, theirs, strict=False)]
    return (min(values), max(values)) if values else None


def judge(store: Store, target: Target, rows: set[str]) -> dict[str, object] | None:
    """One verdict, or None if its rows were not asked for."""
    if target.row not in rows or target.other_row not in rows:
        return None
    command = COMMAND.format(row=target.row if target.row == target.other_row else f"{target.row} {target.other_row}")
    verdict: dict[str, object] = {
        "text": target.text,
        "row": target.row,
        "metric": target.metric,
        "ours": target.ours,
        "against": target.against,
        "base_row": target.base_row,
        "sense": target.sense,
        "floor": target.floor,
        "goal": target.goal,
        "unit": target.unit,
        "command": command,
    }
    ours = store.summary(target.row, target.ours, target.metric)
    theirs = store.summary(target.other_row, target.against, target.metric) if target.against else None
    wrong = store.failed(target.row, target.ours) or (
        bool(target.against) and store.failed(target.other_row, target.against)
    )
    if ours is None or wrong or (target.against and theirs is None):
        return {**verdict, "verdict": "failed" if wrong else "no figure"}
    value = _ratio(target, ours.median, theirs.median if theirs else 0.0)
    reached = "below the floor"
    if _reaches(target, value, target.floor):
        reached = "floor" if target.goal is not None else "ok"
        if target.goal is not None and _reaches(target, value, target.goal):
            reached = "goal"
    return {
        **verdict,
        "ours_median": ours.median,
        "theirs_median": theirs.median if theirs else None,
        "value": round(value, 3),
        "range": _round_range(store, target),
        "rounds": ours.rounds,
        "overlap": bool(theirs and _overlap(ours, theirs)),
        "verdict": reached,
    }


def verdicts(store: Store, rows: set[str]) -> list[dict[str, object]]:
    return [found for target in TARGETS if (found := judge(store, target, rows))]


def _number(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _verdict_table(found: list[dict[str, object]]) -> list[str]:
    lines = ["| what | against | ours | theirs | ratio or value | rounds | floor | goal | verdict |"]
    lines.append("|---|---|--:|--:|--:|--:|--:|--:|---|")
    for one in found:
        limits = one.get("range")
        span = f" ({_number(limits[0])}-{_number(limits[1])})" if isinstance(limits, tuple) else ""
        against = one["base_row"] or one["against"] or ("itself" if one["unit"] == "x" else "")
        word = f"**{one['verdict']}**" if one["verdict"] in ("below the floor", "failed") else str(one["verdict"])
        if one.get("overlap"):
            word += ", rounds overlap"
        cells = [f"{one['text']} (`{one['row']}`)", str(against)]
        cells += [_number(one.get("ours_median")), _number(one.get("theirs_median"))]
        cells += [_number(one.get("value")) + str(one["unit"] if one.get("value") is not None else "") + span]
        cells += [str(one.get("rounds", "")), _number(one["floor"]), _number(one["goal"]), word]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _spread(found: Summary | None, form: str) -> str:
    if found is None:
        return ""
    if found.rounds == 1 or found.low == found.high:
        return form.format(found.median)
    return f"{form.format(found.median)} ({form.format(found.low)}-{form.format(found.high)})"


def _title(server: str) -> str:
    return BY_NAME[server].title if server in BY_NAME else server


def _row_table(store: Store, row: str) -> list[str]:
    servers = store.figures.get(row, {})
    names = [*servers, *(name for name in store.failures.get(row, {}) if name not in servers)]
    plain = any("rate" in metrics for metrics in servers.values())
    columns = (
        COLUMNS if plain else tuple((m, m, "{:,.3g}") for m in dict.fromkeys(m for s in servers.values() for m in s))
    )
    lines = ["", f"### {row}", "", "| server | " + " | ".join(head for _, head, _ in columns) + " |"]
    lines.append("|---|" + "--:|" * len(columns))
    for name in names:
        cells = []
        for metric, _, form in columns:
            found = store.summary(row, name, metric)
            cells.append(_spread(found, "{:,.0f}" if found and not plain and found.median >= 1000 else form))
        reasons = "; ".join(store.failures.get(row, {}).get(name, []))
        lines.append(f"| {_title(name)}{' **void: ' + reasons + '**' if reasons else ''} | " + " | ".join(cells) + " |")
    return lines


def markdown(head: dict[str, object], store: Store, found: list[dict[str, object]]) -> str:
    machine = head["machine"]
    assert isinstance(machine, dict)
    lines = ["# Benchmark", ""]
    lines.append(f"Commit {machine['commit']}{' with changes' if machine['tree_changed'] else ''}, {machine['date']}. ")
    lines.append(f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_mib']} MiB, {machine['system']},")
    lines.append(f"kernel {machine['kernel']}. {head['rounds']} rounds, {head['seconds']} s a cell.")
    lines.append("Medians (lowest-highest round). Two front ends and two workers each; ratios count, not figures.")
    lines += ["", "## Verdicts", "", *_verdict_table(found), "", "## Figures"]
    for row in dict.fromkeys([*store.figures, *store.failures]):
        lines += _row_table(store, row)
    if store.notes:
        lines += ["", "## Notes", "", *(f"* {note}" for note in dict.fromkeys(store.notes))]
    return "\n".join(lines) + "\n"
