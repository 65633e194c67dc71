# make run | test | test-long | test-pypi | bench | check | build | install-header | clean
#
# make run serves on http://127.0.0.1:8080/; PORT=9000 moves it, STATE=/some/where keeps its data there instead of in
# build/demo.
#
# Each target first installs what is missing (tools/setup), so that it works on a fresh Debian machine. Nothing outside
# this tree is changed but packages.

PORT ?= 8080
PREFIX ?= /usr/local
VENV := .venv
PYTHON := $(VENV)/bin/python
LIB := build/lib
WARN := -std=gnu11 -Wall -Wextra -Werror -fvisibility=hidden
CFLAGS ?= -O2 -g
INCLUDE := -Ilangplugins/include -Iwebserver/wire -Ilangplugins/host
PLUGINS := echo exec python php perl lua ruby
LLHTTP := /usr/share/llhttp

ENGINE := $(wildcard webserver/engine/*.c webserver/engine/*.h webserver/wire/*.c webserver/wire/*.h) webserver/engine/build.py
HOST := $(wildcard langplugins/host/*.c langplugins/host/*.h webserver/wire/*.c webserver/wire/*.h) \
	langplugins/include/langplugin.h

.PHONY: all build built run test test-long test-pypi bench check clean install-header setup-build setup-test setup-long \
	setup-pypi setup-demo setup-bench

all: build

# A static pattern: make looks for no implicit rule where a target is phony.
setup-build setup-test setup-long setup-pypi setup-demo setup-bench: setup-%:
	@tools/setup $*

# A second make, since what is missing for the build may have been installed by the first one's setup-build.
build: setup-build
	@$(MAKE) --no-print-directory built

# Its empty recipe keeps make from saying of each file that it is up to date.
built: $(VENV)/.made $(LIB)/libwebserver_host.so $(LIB)/warden $(PLUGINS:%=$(LIB)/%.so) build/.engine
	@:

$(VENV)/.made: setup.cfg setup.py pyproject.toml
	test -x $(PYTHON) || /usr/bin/python3 -m venv --system-site-packages $(VENV)
	tools/entry-points $(VENV)
	touch $@

build/.engine: $(ENGINE) $(VENV)/.made
	mkdir -p build
	$(PYTHON) webserver/engine/build.py
	touch $@

$(LIB)/libwebserver_host.so: $(HOST)
	mkdir -p $(LIB)
	$(CC) $(WARN) $(CFLAGS) -shared -fPIC -pthread $(INCLUDE) langplugins/host/*.c \
		webserver/wire/*.c -o $@.new -ldl && mv $@.new $@

# It runs in whatever root directory its companion has, and finds no libraries there. Sanitizers are libraries.
WHOLE = $(if $(findstring sanitize,$(CFLAGS)),,-static)
$(LIB)/warden: $(wildcard webserver/warden/*.c webserver/warden/*.h) langplugins/exec/sweep.c langplugins/exec/sweep.h
	mkdir -p $(LIB)
	$(CC) $(WARN) $(CFLAGS) $(WHOLE) webserver/warden/*.c langplugins/exec/sweep.c -o $@.new && mv $@.new $@

$(LIB)/echo.so: $(wildcard langplugins/echo/*.c) langplugins/include/langplugin.h
	mkdir -p $(LIB)
	$(CC) $(WARN) $(CFLAGS) -shared -fPIC $(INCLUDE) langplugins/echo/*.c -o $@.new && mv $@.new $@

# Strict as the engine's. What is llhttp's is not ours to mend.
$(LIB)/exec.so: $(wildcard langplugins/exec/*.c langplugins/exec/*.h) langplugins/include/langplugin.h
	mkdir -p $(LIB)/exec.d
	for part in api http llhttp; do $(CC) -std=gnu11 -fvisibility=hidden $(CFLAGS) -fPIC -DLLHTTP_STRICT_MODE=1 -w \
		-I/usr/share/include/llhttp -c $(LLHTTP)/$$part.c -o $(LIB)/exec.d/$$part.o || exit 1; done
	$(CC) $(WARN) $(CFLAGS) -shared -fPIC -pthread $(INCLUDE) -isystem /usr/share/include/llhttp -DLLHTTP_STRICT_MODE=1 \
		langplugins/exec/*.c $(LIB)/exec.d/*.o -o $@.new && mv $@.new $@

# The command that builds the plugin for other Pythons too.
$(LIB)/python.so: $(wildcard langplugins/python/*.c langplugins/python/*.h langplugins/python/*.py) \
		langplugins/include/langplugin.h webserver/cli/build_plugin.py | $(VENV)/.made
	mkdir -p $(LIB)
	CC="$(CC)" CFLAGS="-Werror $(CFLAGS)" $(VENV)/bin/webserver-build-plugin --interpreter /usr/bin/python3 --output $@

$(LIB)/php.so: $(wildcard langplugins/php/*.c langplugins/php/*.h) langplugins/include/langplugin.h
	mkdir -p $(LIB)
	$(CC) $(WARN) -D_GNU_SOURCE $(CFLAGS) -shared -fPIC $(INCLUDE) $$(php-config8.2 --includes | sed s:-I:-isystem:g) \
		langplugins/php/*.c -o $@.new -lphp8.2 && mv $@.new $@

# What ExtUtils::Embed says, but for -Wl,-E and what every program is linked with; perl's headers are not ours to mend.
$(LIB)/perl.so: $(wildcard langplugins/perl/*.c langplugins/perl/*.h) langplugins/perl/loader.pl langplugins/include/langplugin.h
	mkdir -p $(LIB)
	$(CC) $(WARN) $(CFLAGS) -shared -fPIC $(INCLUDE) \
		$$(perl -MExtUtils::Embed -e ccopts | sed 's:-I\(/[^ ]*/CORE\):-isystem \1:') langplugins/perl/*.c -o $@.new -lperl && mv $@.new $@

$(LIB)/ruby.so: $(wildcard langplugins/ruby/*.c langplugins/ruby/*.h langplugins/ruby/*.rb) langplugins/include/langplugin.h
	mkdir -p $(LIB)
	$(CC) $(WARN) -D_GNU_SOURCE $(CFLAGS) -shared -fPIC $(INCLUDE) \
		$$(pkg-config --cflags-only-I ruby-3.1 | sed s:-I:-isystem:g) langplugins/ruby/*.c \
		-o $@.new $$(pkg-config --libs-only-l ruby-3.1) && mv $@.new $@

# langplugin.h is all of this tree that it includes.
$(LIB)/lua.so: $(wildcard langplugins/lua/*.c langplugins/lua/*.h) langplugins/lua/serve.lua langplugins/include/langplugin.h
	mkdir -p $(LIB)
	$(CC) $(WARN) $(CFLAGS) -shared -fPIC -Ilangplugins/include $$(pkg-config --cflags lua5.4) -Wa,-Ilangplugins/lua \
		langplugins/lua/*.c -o $@.new $$(pkg-config --libs lua5.4) && mv $@.new $@

# What the author of a plugin needs: #include "langplugin.h" with -I$(PREFIX)/include/webserver
install-header:
	install -D -m 644 langplugins/include/langplugin.h $(DESTDIR)$(PREFIX)/include/webserver/langplugin.h

run: setup-demo build
	@exec tools/demo --port "$(PORT)" $(if $(STATE),--state "$(STATE)")

test: setup-test build
	@exec tools/test

test-long: setup-long build
	@exec tools/test --long

test-pypi: setup-pypi build
	@exec tools/test --pypi

bench: setup-bench build
	@exec $(PYTHON) tools/bench/run.py

check: setup-test build
	@exec tools/check

clean:
	rm -rf build .venv .mypy_cache .ruff_cache .hypothesis .pytest_cache webserver/engine/_engine.c
	find webserver tests tools -name __pycache__ -prune -exec rm -rf {} +
	find webserver -name '*.so' -delete
