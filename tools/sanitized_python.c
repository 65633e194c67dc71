/* Python's program for the sanitized build (tools/variant sanitized): the same interpreter, linked to the sanitizers'
   run time. LD_PRELOAD would not do: the server makes its children's environment from nothing.

   A report goes into a file of its own in the tree's `reports` folder, which tests look into after each test. Standard
   error would not do: it is a log pipe in most processes, which may be full, dropped, or read by a double. */
#define _GNU_SOURCE
#include <Python.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FOLDER	  "/reports/"
#define UP	  2 /* bin/python */
#define KIND_ROOM 16

/* Called before the sanitizer is ready: no function that it intercepts. */
static const char *options(char *text, const char *fixed, const char *kind)
{
	size_t at = 0;
	while (*fixed)
		text[at++] = *fixed++;
	long size = syscall(SYS_readlinkat, AT_FDCWD, "/proc/self/exe", text + at, (size_t)PATH_MAX);
	if (size <= 0)
		return "";
	at += (size_t)size;
	for (int up = 0; up < UP; up++)
		while (at > 0 && text[--at] != '/')
			;
	for (const char *c = FOLDER; *c; c++)
		text[at++] = *c;
	while (*kind)
		text[at++] = *kind++;
	text[at] = 0;
	return text;
}

/* CPython, PHP and their libraries keep memory for their whole life on purpose; leaks of ours show where memory is
   measured. A small quarantine: some tests measure it under these builds too. */
const char *__asan_default_options(void)
{
	static char text[2 * PATH_MAX];
	return options(text,
		"detect_leaks=0:abort_on_error=0:exitcode=99:allocator_may_return_null=1:quarantine_size_mb=16:"
		"detect_odr_violation=0:log_path=",
		"address");
}

const char *__ubsan_default_options(void)
{
	return "print_stacktrace=1:exitcode=99";
}

/* Each run time has a report file of its own, but the two share the name of the function that sets it, so that
   log_path in the options of one would only move the other's. */
static void report_undefined(void)
{
	static char path[PATH_MAX + KIND_ROOM];
	void *library = dlopen("libubsan.so.1", RTLD_NOW | RTLD_NOLOAD);
	void (*set)(const char *) = NULL;
	if (library)
		*(void **)&set = dlsym(library, "__sanitizer_set_report_path");
	if (!set || !*options(path, "", "undefined"))
		Py_FatalError("the undefined-behaviour sanitizer is not where it should be");
	set(path);
}

/* PHP opens its extensions with RTLD_DEEPBIND, which would give them another malloc than ours; the run time refuses. */
__attribute__((visibility("default"))) void *dlopen(const char *name, int flags)
{
	void *(*next)(const char *, int);

	*(void **)&next = dlsym(RTLD_NEXT, "dlopen");
	return next(name, flags & ~RTLD_DEEPBIND);
}

int main(int argc, char **argv)
{
	report_undefined();
	/* Every object is a block of its own, so that the sanitizer sees what a plugin does with one that is gone. */
	PyPreConfig before;
	PyPreConfig_InitPythonConfig(&before);
	before.allocator = PYMEM_ALLOCATOR_MALLOC;
	PyStatus status = Py_PreInitializeFromBytesArgs(&before, argc, argv);
	if (PyStatus_Exception(status))
		Py_ExitStatusException(status);
	return Py_BytesMain(argc, argv);
}
