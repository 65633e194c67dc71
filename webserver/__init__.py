"""A web server that hosts applications of every language in processes of their own."""

__version__ = "0.1.0"
