"""pip needs this file for the compiled engine; everything else stands in setup.cfg."""

from setuptools import setup

setup(cffi_modules=["webserver/engine/build.py:ffibuilder"])
