"""Applications as people write them in Flask and Django: log-in, form, upload, download, stream, from one preloaded
group each, and once more with wsgiref.validate around the whole of them, which must find nothing to say.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator

import pytest
from browser import Browser, forms
from serving import Server, directory, wait_until

FLASK = """
import os
from flask import Flask, Response, redirect, request, send_from_directory, session, url_for
from werkzeug.utils import secure_filename

LOADED_BY = os.getpid()
app = Flask(__name__)
app.secret_key = "not a secret"
FILES = os.path.join(os.path.dirname(__file__), "files")

@app.route("/")
def index():
    return "hello, " + session.get("name", "stranger")

@app.route("/login/", methods=["GET", "POST"])
def login():
    if request.method == "POST":
        if request.form["password"] != "open sesame":
            return "no", 403
        session["name"] = request.form["name"]
        return redirect(url_for("index"))
    return '<form method="post"><input name="name"><input name="password" type="password"></form>'

@app.route("/upload/", methods=["GET", "POST"])
def upload():
    if "name" not in session:
        return redirect(url_for("login"))
    if request.method == "POST":
        file = request.files["file"]
        file.save(os.path.join(FILES, secure_filename(file.filename)))
        return redirect(url_for("download", name=secure_filename(file.filename)))
    return '<form method="post" enctype="multipart/form-data"><input name="file" type="file"></form>'

@app.route("/files/<name>")
def download(name):
    return send_from_directory(FILES, name, as_attachment=True)

@app.route("/stream/")
def stream():
    return Response(("line %d\\n" % number for number in range(2000)), mimetype="text/plain")

@app.route("/feed/")
def feed():
    # The second part is not there before somebody has asked for it.
    def parts():
        yield "first\\n"
        while not os.path.exists(os.path.join(FILES, "go")):
            import time
            time.sleep(0.01)
        yield "second\\n"
    return Response(parts(), mimetype="text/event-stream")

@app.route("/who/")
def who():
    return {"loaded": LOADED_BY, "manager": os.getppid()}

@app.route("/wrong/")
def wrong():
    raise RuntimeError("a mistake of the application")

application = app
"""

DJANGO = """
import os
import django
from django.conf import settings

HERE = os.path.dirname(os.path.abspath(__file__))
LOADED_BY = os.getpid()
settings.configure(
    SECRET_KEY="not a secret", ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF=__name__, USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.path.join(HERE, "files/django.db")}},
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware", "django.middleware.csrf.CsrfViewMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware"],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates",
                "OPTIONS": {"context_processors": ["django.template.context_processors.request"]}}],
    FILE_UPLOAD_MAX_MEMORY_SIZE=100000, LOGIN_URL="/login/",
    LOGGING={"version": 1, "disable_existing_loggers": False, "root": {"handlers": ["console"], "level": "WARNING"},
             "handlers": {"console": {"class": "logging.StreamHandler"}}},
)
django.setup()

from django.contrib.auth import authenticate, login as log_in
from django.contrib.auth.decorators import login_required
from django.core.files.storage import FileSystemStorage
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.db import connections
from django.http import FileResponse, HttpResponse, HttpResponseForbidden, HttpResponseRedirect, JsonResponse
from django.http import StreamingHttpResponse
from django.template import Context, RequestContext, engines
from django.urls import path

call_command("migrate", verbosity=0)
from django.contrib.auth.models import User
if not User.objects.filter(username="ada").exists():
    User.objects.create_user("ada", password="open sesame")
connections.close_all()  # or all workers would have one connection to the database
storage = FileSystemStorage(os.path.join(HERE, "files"))

def page(request, fields, kind=""):
    text = '<form method="post" %s>{%% csrf_token %%}%s</form>' % (kind, fields)
    return HttpResponse(engines["django"].from_string(text).render({}, request))

def index(request):
    return HttpResponse("hello, " + (request.user.username or "stranger"))

def login(request):
    if request.method == "POST":
        user = authenticate(request, username=request.POST["name"], password=request.POST["password"])
        if user is None:
            return HttpResponseForbidden("no")
        log_in(request, user)
        return HttpResponseRedirect("/")
    return page(request, '<input name="name"><input name="password" type="password">')

@login_required
def upload(request):
    if request.method == "POST":
        return HttpResponseRedirect("/files/" + storage.save(request.FILES["file"].name, request.FILES["file"]))
    return page(request, '<input name="file" type="file">', 'enctype="multipart/form-data"')

def download(request, name):
    return FileResponse(storage.open(name), as_attachment=True)

def stream(request):
    return StreamingHttpResponse(("line %d\\n" % number for number in range(2000)), content_type="text/plain")

def feed(request):
    def parts():
        yield "first\\n"
        while not storage.exists("go"):
            import time
            time.sleep(0.01)
        yield "second\\n"
    return StreamingHttpResponse(parts(), content_type="text/event-stream")

def who(request):
    return JsonResponse({"loaded": LOADED_BY, "manager": os.getppid()})

def wrong(request):
    raise RuntimeError("a mistake of the application")

urlpatterns = [path("", index), path("login/", login), path("upload/", upload), path("files/<name>", download),
               path("stream/", stream), path("feed/", feed), path("who/", who), path("wrong/", wrong)]
application = get_wsgi_application()
"""

VALID = """

from warnings import filterwarnings
from wsgiref.validate import WSGIWarning, validator
filterwarnings("error", category=WSGIWarning)
application = validator(application)
"""

CONFIG = """
[groups]
[[app]]
language = python
application = app.wsgi
preload = app.wsgi
processes = 2
threads = 2
[sites]
[[all]]
hosts = *
[[[routes]]]
/ = group:app
"""


@pytest.fixture(scope="module", params=["flask", "django", "flask-validated", "django-validated"])
def app(request: pytest.FixtureRequest) -> Iterator[Server]:
    with directory() as path:
        one = Server(path)
        name, _, valid = request.param.partition("-")
        one.file("app.wsgi", {"flask": FLASK, "django": DJANGO}[name] + (VALID if valid else ""))
        (path / "files").mkdir()
        (path / "files").chmod(0o777)
        one.write(CONFIG)
        try:
            one.start()
            yield one
        finally:
            one.stop()


def test_log_in_form_upload_and_download(app: Server) -> None:
    person, stranger = Browser(app), Browser(app)
    assert person.get("/").text == "hello, stranger"
    (form,) = forms(person.get("/upload/"))  # which asks to log in first
    assert person.at.startswith("/login/")
    assert person.post(person.at, {**form.values, "name": "ada", "password": "wrong"}).status == 403
    assert person.post("/login/", {**form.values, "name": "ada", "password": "open sesame"}).text == "hello, ada"
    # Whichever worker answers.
    assert {person.get("/").text for _ in range(8)} == {"hello, ada"}
    assert stranger.get("/").text == "hello, stranger"
    (form,) = forms(person.get("/upload/"))
    for size in (0, 5, 700_000):
        content = os.urandom(size)
        answer = person.upload("/upload/", form.values, {"file": (f"of-{size}.bin", content)})
        assert (answer.status, hashlib.sha256(answer.body).digest()) == (200, hashlib.sha256(content).digest())
        assert answer.field("Content-Length") == str(size)
        assert "attachment" in (answer.field("Content-Disposition") or "")
        again = stranger.get(f"/files/of-{size}.bin")
        assert again.body == content


def test_streams(app: Server) -> None:
    assert app.get("/stream/").body == b"".join(b"line %d\n" % number for number in range(2000))
    go = app.directory / "files/go"
    with app.connect() as sock:
        sock.sendall(f"GET /feed/ HTTP/1.1\r\nHost: 127.0.0.1:{app.port}\r\nConnection: close\r\n\r\n".encode())
        told = until(sock, b"first\n")
        assert b"second" not in told
        go.touch()
        try:
            until(sock, b"second\n")
        finally:
            go.unlink()


def until(sock: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        piece = sock.recv(65536)
        assert piece, data
        data += piece
    return data


def test_a_mistake_is_500_with_a_traceback_in_the_log_only(app: Server) -> None:
    app.allow("Traceback", "error", "ERROR in app")
    answer = app.get("/wrong/")
    assert answer.status == 500
    assert "a mistake of the application" not in answer.text
    wait_until(lambda: "RuntimeError: a mistake of the application" in app.log(), "no traceback in the log")


def test_it_was_loaded_once_by_the_manager(app: Server) -> None:
    for manager in app.pids("manager", "app"):
        assert app.get("/who/").text.replace(" ", "").strip() == f'{{"loaded":{manager},"manager":{manager}}}'
    # And what was loaded shares no connection: nothing is named in the log.
    assert "preloading left" not in app.log()
