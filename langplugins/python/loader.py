"""Finding and loading applications. Compiled into the plugin; runs in the group's own interpreter."""

import _thread
import importlib
import os
import sys
import traceback
import types

_NAMES = ("application",)  # of a callable that is not named
_scripts = {}
_loading = _thread.RLock()
_looked_in = 0  # entries of sys.path that are the group's
_preloaded = {}  # the application, by the group's word for it, if it was loaded before the fork


def begin(directory, python_path, arguments, application):
    """The module path and command line that the application sees."""
    global _looked_in
    # "/" is where a group is that has no directory of its own; nobody's modules are there.
    for entry in reversed([*python_path, *([directory] if directory and directory != "/" else [])]):
        if entry not in sys.path:
            sys.path.insert(0, entry)
            _looked_in += 1
    sys.argv[:] = [application or "webserver", *arguments]
    # It is a pipe to the log: without this a line would be there when some eight thousand characters are.
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure:
        reconfigure(line_buffering=True)


def script(path):
    """The callable `application` of a file, which is run as a module of its own."""
    return _checked(*_unnamed(_run(path)), path)


def _run(path):
    # The same in each process and after each start: what is pickled names its module.
    name = "_webserver_" + "".join(c if c.isalnum() else "_%x_" % ord(c) for c in path)
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
    """The application of a requested file; loaded again when the file has changed."""
    mark = _mark(path)
    known = _scripts.get(path)
    if known is None or known[0] != mark:
        with _loading:  # two threads that ask at once run it once
            known = _scripts.get(path)
            if known is None or known[0] != mark:
                known = _scripts[path] = (mark, script(path))
    return known[1]


def _mark(path):
    """What tells that a file has changed."""
    state = os.stat(path)
    return state.st_mtime_ns, state.st_size, state.st_ino


def preload(names, application):
    """Load what workers are to share: modules, files, and the application itself where its own name is given."""
    for name in names:
        if name == application:
            _preloaded[name] = load(name)
        elif name.startswith("/"):
            mark = _mark(name)
            value, _ = _unnamed(_run(name))
            if callable(value):
                _scripts[name] = mark, value
        else:
            importlib.import_module(name)


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
