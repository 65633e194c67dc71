"""Which servers there are, as data.  instance.py turns a record into a running server.

In argv and templates @NAME@ is replaced; a template line that begins with @flag@ stays only when the flag is set (see
instance.flags).  The processes of every record are started in order.
"""

from dataclasses import dataclass

OURS = "ours"


@dataclass(frozen=True)
class Server:
    """A server to measure.

    speaks: echo, static or a language: which application (and so which rows) it can serve.
    templates: files of peers/ rendered into the instance's directory.
    commands: argv of each process.  flags: switches of the templates.
    front, worker: what the title of a front end's (or worker's) process contains; "" if there is no such kind.
    """

    name: str
    title: str
    speaks: str
    templates: tuple[str, ...]
    commands: tuple[tuple[str, ...], ...]
    flags: tuple[str, ...] = ()
    front: str = ""
    worker: str = ""
    unprivileged: tuple[int, ...] = ()  # numbers of commands that start as www-data when we are root


_NGINX = ("nginx-common.conf", "nginx-http.conf")
_NGINX_FRONT = "nginx: worker process"


def _nginx(config: str) -> tuple[str, ...]:
    return ("/usr/sbin/nginx", "-p", "@DIR@/", "-e", "@DIR@/error.log", "-c", f"@DIR@/{config}")


def _ours(speaks: str, threads: int = 1) -> Server:
    group = () if speaks == "static" else ("group", "one" if threads == 1 else "eight")
    return Server(
        name=f"{OURS}-{speaks}" + ("" if threads == 1 else f"-2x{threads}"),
        title=f"ours ({speaks})" if threads == 1 else f"ours ({speaks}), 2 workers x {threads} threads",
        speaks=speaks,
        templates=("ours.conf",),
        commands=(("@WEBSERVERD@", "--config", "@DIR@/ours.conf", "--foreground"),),
        flags=(speaks, *group),
        front="webserver: front end",
        worker="" if speaks == "static" else "webserver: worker",
    )


def _gunicorn(kind: str) -> Server:
    return Server(
        name=f"gunicorn-{kind}",
        title=f"gunicorn {kind}, 2 workers",
        speaks="python",
        templates=("gunicorn.conf.py",),
        commands=(("/usr/bin/gunicorn", "-c", "@DIR@/gunicorn.conf.py", "-k", kind, "app:application"),),
        front="gunicorn",
    )


def _uwsgi(name: str, title: str, speaks: str, *flags: str) -> Server:
    return Server(
        name=name,
        title=title,
        speaks=speaks,
        templates=("uwsgi.ini", "nginx-uwsgi.conf", *_NGINX),
        commands=(("/usr/bin/uwsgi", "--ini", "@DIR@/uwsgi.ini"), _nginx("nginx-uwsgi.conf")),
        flags=(speaks, *flags),
        front=_NGINX_FRONT,
        worker="uwsgi",
        unprivileged=(0,),
    )


def _puma(threads: int) -> Server:
    return Server(
        name=f"puma-2x{threads}",
        title=f"Puma, 2 workers x {threads} thread{'s' if threads > 1 else ''}",
        speaks="ruby",
        templates=("puma.rb",),
        commands=(("/usr/bin/puma", "-C", "@DIR@/puma.rb"),),
        flags=("one" if threads == 1 else "eight",),
        front="puma: cluster worker",
        unprivileged=(0,),
    )


_STARMAN = (
    *("/usr/bin/starman", "--listen", "@DIR@/starman.sock", "--workers", "2", "--backlog", "4096"),
    *("--max-requests", "1000000000", "--disable-keepalive", "--preload-app", "--env", "deployment", "@APPS@/app.psgi"),
)

SERVERS = (
    _ours("echo"),
    _ours("python"),
    _ours("python", 8),
    _ours("php"),
    _ours("perl"),
    _ours("ruby"),
    _ours("ruby", 8),
    _ours("lua"),
    _ours("static"),
    Server(
        name="nginx-return",
        title="nginx `return 200`, 2 workers",
        speaks="echo",
        templates=("nginx-return.conf", *_NGINX),
        commands=(_nginx("nginx-return.conf"),),
        front=_NGINX_FRONT,
    ),
    Server(
        name="nginx-static",
        title="nginx static, 2 workers",
        speaks="static",
        templates=("nginx-static.conf", *_NGINX),
        commands=(_nginx("nginx-static.conf"),),
        front=_NGINX_FRONT,
    ),
    Server(
        name="nginx-static-cache",
        title="nginx static with open_file_cache, 2 workers",
        speaks="static",
        templates=("nginx-static.conf", *_NGINX),
        commands=(_nginx("nginx-static.conf"),),
        flags=("cache",),
        front=_NGINX_FRONT,
    ),
    _uwsgi("nginx-uwsgi", "nginx (2 workers) + uWSGI (2 processes x 1 thread), unix socket", "python"),
    _uwsgi(
        "nginx-uwsgi-nospool",
        "nginx + uWSGI with larger buffers and no temporary file (a slow client holds the worker)",
        "python",
        "nospool",
    ),
    _uwsgi("nginx-uwsgi-psgi", "nginx (2 workers) + uWSGI's PSGI (2 processes x 1 thread), unix socket", "perl"),
    Server(
        name="nginx-starman",
        title="nginx (2 workers) + Starman (2 workers), unix socket",
        speaks="perl",
        templates=("nginx-starman.conf", *_NGINX),
        commands=(_STARMAN, _nginx("nginx-starman.conf")),
        front=_NGINX_FRONT,
        worker="starman worker",
        unprivileged=(0,),
    ),
    _puma(1),
    _puma(8),
    _gunicorn("sync"),
    _gunicorn("gevent"),
    Server(
        name="mod_wsgi",
        title="Apache (event) + mod_wsgi daemon, 2 processes x 1 thread",
        speaks="python",
        templates=("apache.conf",),
        commands=(("/usr/sbin/apache2", "-f", "@DIR@/apache.conf", "-DFOREGROUND"),),
        front="apache2",
    ),
    Server(
        name="nginx-fpm",
        title="nginx (2 workers) + php-fpm (2 children), unix socket",
        speaks="php",
        templates=("php-fpm.conf", "nginx-fpm.conf", *_NGINX),
        commands=(("/usr/sbin/php-fpm8.2", "--nodaemonize", "-y", "@DIR@/php-fpm.conf"), _nginx("nginx-fpm.conf")),
        front=_NGINX_FRONT,
        worker="php-fpm: pool",
    ),
    Server(
        name="nginx-fpm-keepalive",
        title="nginx + php-fpm with FastCGI keep-alive (starves connections, see README)",
        speaks="php",
        templates=("php-fpm.conf", "nginx-fpm.conf", *_NGINX),
        commands=(("/usr/sbin/php-fpm8.2", "--nodaemonize", "-y", "@DIR@/php-fpm.conf"), _nginx("nginx-fpm.conf")),
        flags=("keepalive",),
        front=_NGINX_FRONT,
        worker="php-fpm: pool",
    ),
    Server(
        name="nginx-fpm-nospool",
        title="nginx + php-fpm with larger buffers and no temporary file (a slow client holds the worker)",
        speaks="php",
        templates=("php-fpm.conf", "nginx-fpm.conf", *_NGINX),
        commands=(("/usr/sbin/php-fpm8.2", "--nodaemonize", "-y", "@DIR@/php-fpm.conf"), _nginx("nginx-fpm.conf")),
        flags=("nospool",),
        front=_NGINX_FRONT,
        worker="php-fpm: pool",
    ),
)

BY_NAME = {server.name: server for server in SERVERS}
