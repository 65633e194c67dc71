"""pip needs this file for the compiled engine and for the conformance suite, which lies among the tests.

Everything else stands in setup.cfg.
"""

import runpy

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ENGINE = "webserver/engine/build.py"


class BuildEngine(build_ext):
    """With the parser's sources, which are no files of this project."""

    def build_extension(self, ext: Extension) -> None:
        ext.sources += runpy.run_path(ENGINE)["PARSER"]
        super().build_extension(ext)


setup(
    cffi_modules=[f"{ENGINE}:ffibuilder"],
    cmdclass={"build_ext": BuildEngine},
    packages=[*find_packages(include=["webserver", "webserver.*"]), "webserver.conformance"],
    package_dir={"webserver.conformance": "tests/conformance"},
)
