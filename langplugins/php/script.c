/*
 * The script of a request: whether it may run, and its directory as the working directory, which programs expect.
 *
 * php-fpm and PHP itself look at the file, ask for the working directory, change it, and change it back: 3.7 of the 24
 * microseconds that a short request took here. So what was seen holds for a second for the same path, which is the age
 * that any file of a site may have. A script that calls chdir() gives the next request a look of its own. Nothing is
 * changed back: shutdown functions and destructors run where their script ran.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "plugin.h"

#define HOLDS_NS 1000000000u

static zif_handler php_chdir;

/* PHP's functions are given no pointer of ours: see sapi_plugin(). */
static void moving_chdir(INTERNAL_FUNCTION_PARAMETERS)
{
	sapi_plugin()->script.seen_ns = 0;
	php_chdir(INTERNAL_FUNCTION_PARAM_PASSTHRU);
}

void script_watch(void)
{
	/* NULL when php.ini disables it; then nobody moves. */
	zend_function *function = zend_hash_str_find_ptr(CG(function_table), "chdir", sizeof("chdir") - 1);

	if (function && function->type == ZEND_INTERNAL_FUNCTION) {
		php_chdir = function->internal_function.handler;
		function->internal_function.handler = moving_chdir;
	}
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int look(const char *path)
{
	struct stat st;

	if (stat(path, &st))
		return errno == EACCES ? 403 : 404;
	/* A directory that is named like a script is not one. */
	if (!S_ISREG(st.st_mode))
		return 404;
	return access(path, R_OK) ? 403 : 0;
}

/* False: too long, or the directory cannot be entered. */
static bool enter(const char *path)
{
	char directory[MAXPATHLEN];
	const char *slash = strrchr(path, '/');
	size_t size = slash ? (size_t)(slash - path) : 0;

	if (!slash || size + 1 >= sizeof(directory))
		return false;
	memcpy(directory, path, size);
	directory[size] = 0;
	return chdir(size ? directory : "/") == 0;
}

int script_ready(struct plugin *plugin, const char *path)
{
	struct script *script = &plugin->script;
	uint64_t now = now_ns();
	size_t size = strlen(path);

	if (script->seen_ns && now - script->seen_ns < HOLDS_NS && script->size == size &&
		memcmp(script->path, path, size) == 0)
		return 0;
	script->seen_ns = 0;
	if (size == 0 || size >= sizeof(script->path))
		return 404;
	int status = look(path);
	if (status)
		return status;
	if (!enter(path))
		return 403;
	memcpy(script->path, path, size + 1);
	script->size = size;
	script->seen_ns = now;
	return 0;
}
