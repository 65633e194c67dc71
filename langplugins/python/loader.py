"""Finding and loading applications. Compiled into the plugin; runs in the group's own interpreter."""

import _thread
import errno
import gc
import importlib
import os
import signal
import stat
import sys
import time
import traceback
import types

_NAMES = ("application",)  # of a callable that is not named
_scripts = {}  # of requested files, by path: what the file was, its application, its text while it is young
_turns = {}
_YOUNG_NS = 2_000_000_000
_looked_in = 0  # entries of sys.path that are the group's
_preloaded = {}  # the application, by the group's word for it, if it was loaded before the fork


def begin(directory, python_path, arguments, application, watch):
    """The module path and command line that the application sees. `watch`: where names of loaded files go, or -1."""
    global _looked_in
    if watch >= 0:
        sys.meta_path.insert(0, _Watched(watch))
    # "/" is where a group is that has no directory of its own; nobody's modules are there.
    for entry in reversed([*python_path, *([directory] if directory and directory != "/" else [])]):
        if entry not in sys.path:
            sys.path.insert(0, entry)
            _looked_in += 1
    sys.argv[:] = [application or "webserver", *arguments]
    if sys.version_info < (3, 12):
        os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_forking.clear)
    # It is a pipe to the log: without this a line would be there when some eight thousand characters are.
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure:
        reconfigure(line_buffering=True)


class _Watched:
    """A finder that finds what the others do, and tells the manager which file it is, for `watch`."""

    def __init__(self, descriptor):
        self._descriptor = descriptor
        self._told = set()
        self._library = os.path.dirname(os.__file__) + "/"

    def find_spec(self, name, path=None, target=None):
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find and finder is not self else None
            if spec is not None:
                if spec.has_location:
                    self.tell(spec.origin)
                return spec
        return None

    def invalidate_caches(self):
        """Has none."""

    def tell(self, file):
        # What came with Python does not change under an application.
        own = file.startswith(self._library) and "-packages/" not in file
        if file not in self._told and not own:
            self._told.add(file)
            try:
                os.write(self._descriptor, os.fsencode(os.path.abspath(file)) + b"\0")
            except OSError:
                pass  # the manager does not read, or the application has closed what it did not know


def script(path, source=None):
    """The callable `application` of a file, which is run as a module of its own."""
    return _checked(*_unnamed(_run(path, source)), path)


def _run(path, source=None):
    # The same in each process and after each start: what is pickled names its module.
    name = "_webserver_" + "".join(c if c.isalnum() else "_%x_" % ord(c) for c in path)
    if source is None:
        with open(path, "rb") as file:
            source = file.read()
    module = types.ModuleType(name)
    module.__file__ = path
    sys.modules[name] = module
    try:
        exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _unnamed(module):
    """The callable of a module whose name nobody has said, and its name."""
    for name in _NAMES:
        value = getattr(module, name, None)
        if value is not None:
            return value, name
    return None, _NAMES[0]


def _checked(value, name, where):
    _callable(value, where, name)
    _check(value, "%s of %s" % (name, where))
    return value


def _callable(value, where, name):
    if value is None:
        raise ImportError("%s has no %s" % (where, name))
    if not callable(value):
        raise TypeError("%s of %s is not callable" % (name, where))
    return value


def _check(application, where):
    """That it is not of the other interface; asgi.py has its own."""
    called = application if hasattr(application, "__code__") else type(application).__call__
    code = getattr(getattr(called, "__func__", called), "__code__", None)
    if getattr(code, "co_flags", 0) & 0x80:  # CO_COROUTINE
        raise TypeError("%s is asynchronous, as ASGI has it: interface = asgi" % where)


def load(application):
    """The application that the group names: a file, or module:callable, or module:factory()."""
    if application in _preloaded:
        return _preloaded[application]
    if application.startswith("/"):
        return script(application)
    module_name, _, name = application.partition(":")
    try:
        value = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise  # a module that the application wants itself
        raise ImportError(
            "there is no module %s for application = %s; directory and python_path say where it is looked for: %s"
            % (error.name, application, ", ".join(sys.path[:_looked_in]) or "nowhere but Python's own")
        ) from None
    if not name:
        return _checked(*_unnamed(value), module_name)
    calls = name.endswith("()")
    for part in (name[:-2] if calls else name).split("."):
        value = getattr(value, part, None)
        _callable(value if value is None else len, module_name, name)
    return _checked(value() if calls else value, name, module_name)


def requested(path):
    """The application of a requested file, loaded again when the file has changed; or 404 or 403, and why."""
    try:
        mark = _mark(os.stat(path))
        known = _scripts.get(path)
        if known is not None and known[0] == mark and known[2] is None:
            return known[1]
        with _turns.setdefault(path, _thread.RLock()):  # two threads that ask at once run it once
            return _current(path)
    except _Absent as absent:
        _scripts.pop(path, None)
        return absent.args
    except OSError as error:
        # Of the file itself: what its own code raises comes as it is, in _Broken.
        _scripts.pop(path, None)
        if isinstance(error, PermissionError):
            return 403, error.strerror
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO):
            return 404, error.strerror
        raise
    except _Broken as broken:
        error = broken.error
    # What was there before must not go on answering: its author would look for the mistake elsewhere.
    _scripts.pop(path, None)
    raise error


class _Absent(Exception):
    pass


class _Broken(Exception):
    def __init__(self, error):
        self.error = error


def _mark(state):
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _read(path):
    """A script's text, what its file was while it was read, and whether it may change without that showing."""
    for _ in range(10):
        # Not waiting for whoever writes into a pipe of this name.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                raise _Absent(404, "Not a regular file")
            with open(fd, "rb", closefd=False) as file:
                source = file.read()
            mark = _mark(os.fstat(fd))
        finally:
            os.close(fd)
        if mark == _mark(before):
            return source, mark, time.time_ns() - before.st_mtime_ns < _YOUNG_NS
    return source, None, True  # somebody goes on writing: this is what it is now


def _current(path):
    source, mark, young = _read(path)
    known = _scripts.get(path)
    replaced = known is not None and (known[0] != mark or known[2] not in (None, source))
    if known is None or replaced:
        try:
            known = mark, script(path, source), source
        except BaseException as error:
            raise _Broken(error) from None
    # Two writes within one tick of the file system's clock leave the same times: a young file's text is compared.
    _scripts[path] = known[0], known[1], source if young else None
    if replaced:
        gc.collect()  # a module and its functions hold each other; Python might look for them much later
    return known[1]


def preload(names, application):
    """Load what workers are to share: modules, files, and the application itself where its own name is given."""
    for name in names:
        if name == application:
            _preloaded[name] = load(name)
        elif name.startswith("/"):
            source, mark, young = _read(name)
            value, _ = _unnamed(_run(name, source))
            if callable(value):
                _scripts[name] = mark, value, source if young else None
        else:
            importlib.import_module(name)


_forking = {}  # by thread: what threading knows it as


def _before_fork():
    """The application forks: before 3.12, a thread of ours that `threading` has heard of would be the child's main
    thread without the lock of one, and the child would fail at its end, in silence. An unknown one becomes a real one.
    """
    threading = sys.modules.get("threading")
    known = threading and threading._active.get(_thread.get_ident())
    if threading and isinstance(known, threading._DummyThread):
        _forking[_thread.get_ident()] = threading._active.pop(_thread.get_ident())


def _after_fork_in_parent():
    known = _forking.pop(_thread.get_ident(), None)
    if known is not None:
        sys.modules["threading"]._active[_thread.get_ident()] = known


def forked(taken):
    """In a new worker, before the manager's descriptors are closed. The host has taken Python's handlers of signals.

    An application that was preloaded handles some of these in Python, and then getsignal() has its handler.
    """
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in taken:
        handler = signal.getsignal(number)
        if callable(handler):
            signal.signal(number, handler)


def after_fork():
    """In a new worker. The hooks of os.register_at_fork have been run by the fork; multiprocessing has its own list.

    What was preloaded may have made queues, managers or child processes with it. Their locks and threads are renewed
    here, and the manager's children are not this worker's to end.
    """
    process = sys.modules.get("multiprocessing.process")
    if process is not None and hasattr(process, "_children"):
        process._children = set()
    util = sys.modules.get("multiprocessing.util")
    if util is not None and hasattr(util, "_run_after_forkers"):
        util._finalizer_registry.clear()
        util._run_after_forkers()


def report(error):
    """(the whole traceback, its last line with file and line)."""
    whole = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    # What lies between here and the application's own code says nothing to its author, nor does the importer's.
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((__file__, "<frozen "))]
    importer = importlib.__file__
    while frames and frames[0].filename == importer:
        del frames[0]
    where = ""
    if isinstance(error, SyntaxError) and error.filename:
        where = "%s:%s: " % (error.filename, error.lineno)
    elif frames:
        where = "%s:%s: " % (frames[-1].filename, frames[-1].lineno)
    last = traceback.format_exception_only(type(error), error)[-1].strip()
    return whole.rstrip(), where + last


class RequestTimeout(BaseException):
    """What a request is ended with that has run for longer than request_timeout."""

    def __str__(self):
        return "the request has run for longer than its request_timeout"


def stacks():
    """Every thread but the one that asks, in the words of faulthandler."""
    threading = sys.modules.get("threading")
    known = dict(threading._active) if threading else {}
    lines = []
    for identity, frame in sys._current_frames().items():
        if identity == _thread.get_ident():
            continue
        name = getattr(known.get(identity), "name", None)
        lines.append("Thread 0x%016x%s (most recent call first):" % (identity, " [%s]" % name if name else ""))
        for _ in range(100):
            if frame is None:
                break
            code = frame.f_code
            if code.co_filename.endswith("/webserver/manager/host.py"):
                break  # what lies below is the server's
            if not code.co_filename.startswith(__file__):
                lines.append('  File "%s", line %d in %s' % (code.co_filename, frame.f_lineno or 0, code.co_name))
            frame = frame.f_back
    return "".join(line + "\n" for line in lines)


def end():
    """What an interpreter does at its end for threads and atexit; the process itself ends without it."""
    import atexit
    import threading

    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass
