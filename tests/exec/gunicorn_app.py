"""A WSGI application for a published server: the body, and where the server in front says that it comes from."""


def application(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-For", environ.get("HTTP_X_FORWARDED_FOR", ""))])
    return [b"gunicorn ", body]
