"""pip needs this file for the compiled engine and for the conformance suite, which lies among the tests.

Everything else stands in setup.cfg.
"""

from setuptools import find_packages, setup

setup(
    cffi_modules=["webserver/engine/build.py:ffibuilder"],
    packages=[*find_packages(include=["webserver", "webserver.*"]), "webserver.conformance"],
    package_dir={"webserver.conformance": "tests/conformance"},
)
