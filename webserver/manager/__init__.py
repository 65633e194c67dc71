"""A group's manager: started as the group's user, it alone loads the language and forks the workers.

Standard library and the worker host's shared object only, so that any CPython from 3.9 on runs it. No threads, no
ZeroMQ, no gevent.
"""
