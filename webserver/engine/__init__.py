"""The front end's native half; see engine.h for its map. `_engine` is built by build.py."""
