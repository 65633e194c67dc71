"""Floors and goals, as data.  report.py judges them.

A target compares a metric of one of our servers with the same metric of another server (or of another row: `base_row`),
or judges it alone (against ""). sense ">=": more is better; "<=": less is better; "-": ours minus theirs, less is better.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    row: str
    metric: str
    ours: str
    against: str
    sense: str
    floor: float
    goal: float | None
    text: str
    base_row: str = ""
    unit: str = ""

    @property
    def other_row(self) -> str:
        return self.base_row or self.row


PY, PHP, UWSGI, FPM = "ours-python", "ours-php", "nginx-uwsgi", "nginx-fpm"
PERL, PSGI, STARMAN = "ours-perl", "nginx-uwsgi-psgi", "nginx-starman"
RUBY, PUMA, RUBY_8, PUMA_8 = "ours-ruby", "puma-2x1", "ours-ruby-2x8", "puma-2x8"
LUA = "ours-lua"
STATIC, CACHE = "ours-static", "nginx-static-cache"


def _static(name: str, text: str) -> Target:
    return Target(f"static-{name}", "rate", STATIC, CACHE, ">=", 0.85, 1.2, f"static {text}")


TARGETS = (
    Target("echo-64", "rate", "ours-echo", "nginx-return", ">=", 0.5, 0.7, "echo plugin"),
    Target("hello-python-64", "rate", PY, UWSGI, ">=", 1.5, 2.3, "Python hello"),
    Target("hello-python-512", "rate", PY, UWSGI, ">=", 1.5, 2.3, "Python hello, 512 connections"),
    Target("page-python-64", "rate", PY, UWSGI, ">=", 1.3, 1.8, "Python page"),
    Target("hello-php-64", "rate", PHP, FPM, ">=", 2.5, 4, "PHP hello"),
    Target("page-php-64", "rate", PHP, FPM, ">=", 2, 3, "PHP page"),
    Target("pinned-python-1", "p50_us", PY, UWSGI, "<=", 0.9, 0.7, "hello, 1 connection, one core, p50"),
    Target("hello-python-1", "p50_us", PY, UWSGI, "<=", 1.5, 1, "hello, 1 connection, unpinned, p50"),
    Target("sleeper-python", "rate_ratio", PY, "", ">=", 0.4, 0.5, "Python hello beside a sleeper, rate", unit="x"),
    Target("sleeper-python", "p99_ratio", PY, "", "<=", 6, 3, "Python hello beside a sleeper, p99", unit="x"),
    Target("stream-python-64", "rate", PY, UWSGI, ">=", 1.3, 2, "Python 10 MB streamed answer"),
    Target("upload-python-64", "rate", PY, UWSGI, ">=", 0.9, 1.3, "Python 1 MB upload"),
    Target("hello-perl-64", "rate", PERL, PSGI, ">=", 1.8, None, "Perl hello"),
    Target("page-perl-64", "rate", PERL, PSGI, ">=", 1.4, None, "Perl page"),
    Target("hello-ruby-64", "rate", RUBY, PUMA, ">=", 3.5, None, "Ruby hello"),
    Target("page-ruby-64", "rate", RUBY, PUMA, ">=", 1.5, None, "Ruby page"),
    Target("threads-ruby-64", "rate", RUBY_8, PUMA_8, ">=", 2, None, "Ruby hello, 2 x 8 threads"),
    Target("hello-lua-64", "rate", LUA, PERL, ">=", 1, None, "Lua hello"),
    Target("page-lua-64", "rate", LUA, PERL, ">=", 1, None, "Lua page"),
    *(
        Target(f"{kind}-{language}-64", "rate", ours, against, ">=", 0.9, 1.3, f"{text}, {language}")
        for kind, text in (("stream", "10 MB stream"), ("upload", "1 MB upload"))
        for language, ours, peers in (
            ("python", PY, ("gunicorn-sync", "gunicorn-gevent")),
            ("perl", PERL, (PSGI, STARMAN)),
            ("ruby", RUBY, (PUMA,)),
            ("php", PHP, (FPM,)),
        )
        for against in peers
    ),
    # 2 x 8 slots of 20 ms: 800 a second.
    Target("sleep20-python-64", "rate", "ours-python-2x8", "", ">=", 760, None, "20 ms handlers, Python", unit="/s"),
    Target("sleep20-ruby-64", "rate", RUBY_8, "", ">=", 760, None, "20 ms handlers, Ruby", unit="/s"),
    _static("1k-64", "1 KB"),
    _static("100k-64", "100 KB"),
    _static("10m-64", "10 MB"),
    _static("304-64", "304"),
    _static("range-64", "Range"),
    Target("idle-python", "front_bytes", PY, "", "<=", 4096, None, "idle connection, front-end memory", unit="B"),
    Target("idle-python", "p99_ratio", PY, "", "<=", 2, None, "hello p99 beside 10,000 idle ones", unit="x"),
    Target("bigstream-python", "growth_mib", PY, "", "<=", 8, None, "1 GB to a slow reader, growth", unit="MiB"),
    Target("bigupload-python", "growth_mib", PY, "", "<=", 8, None, "1 GB upload, growth", unit="MiB"),
    Target("memory", "pss_after_mib", PY, "", "<=", 90, None, "memory after the run (PSS)", unit="MiB"),
    Target("memory", "worker_private_after_mib", PHP, FPM, "-", 2, None, "PHP worker's private memory", unit="MiB"),
    Target("startup", "seconds", PY, "", "<=", 0.5, None, "start to first Python hello", unit="s"),
    Target("wakeups", "most_per_second", PY, "", "<=", 5, None, "idle wake-ups of the busiest process", unit="/s"),
    Target("wakeups", "most_per_second", PHP, "", "<=", 5, None, "the same, PHP", unit="/s"),
    Target("wakeups", "most_per_second", STATIC, "", "<=", 5, None, "the same, static", unit="/s"),
    Target("hello-python-64", "cpu_us", PY, UWSGI, "<=", 1, None, "CPU per request, hello"),
    Target("page-python-64", "cpu_us", PY, UWSGI, "<=", 1, None, "CPU per request, page"),
    Target("freshness", "rewrite_s", STATIC, "", "<=", 1, None, "rewritten file served new", unit="s"),
    Target("freshness", "rename_s", STATIC, "", "<=", 1, None, "file renamed over served new", unit="s"),
    Target(
        "hello-python-64",
        "rate",
        PY,
        PY,
        ">=",
        0.9,
        None,
        "10,000 paths against one, Python",
        "hello-onepath-python-64",
    ),
    Target("hello-php-64", "rate", PHP, PHP, ">=", 0.9, None, "10,000 paths against one, PHP", "hello-onepath-php-64"),
    Target(
        "static-10000paths-64", "rate", STATIC, STATIC, ">=", 0.9, None, "10,000 files against one", "static-onepath-64"
    ),
)
