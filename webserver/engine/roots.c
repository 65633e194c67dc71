/*
 * The directories that sites serve from, by number.
 *
 * A root is held open, so that every path below it is found in the directory that was meant, also while its own path is
 * being moved. Once a second the path is looked at: a deployment that moves a new directory (or link) to the name is
 * then served from the new one.
 */
#define _GNU_SOURCE /* O_PATH */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files.h"

#define ROOT_IDS   1000000
#define ROOT_TEXTS 256 /* index names, and script extensions, of one root */

struct roots {
	struct root **by_id;
	uint32_t size;
	uint64_t opened;
};

struct roots *roots_new(void)
{
	return calloc(1, sizeof(struct roots));
}

static void root_free(struct root *root)
{
	if (root == NULL)
		return;
	if (root->fd >= 0)
		close(root->fd);
	free(root->path);
	free(root);
}

void roots_delete(struct roots *roots)
{
	if (roots == NULL)
		return;
	for (uint32_t i = 0; i < roots->size; i++)
		root_free(roots->by_id[i]);
	free(roots->by_id);
	free(roots);
}

/* Opens the root's path. What was open is replaced only by something that is there. */
static int root_open(engine *e, struct root *root)
{
	struct stat state;
	int fd = open(root->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0 && fstat(fd, &state) < 0) {
		close(fd);
		fd = -1;
	}
	if (fd < 0)
		return -1;
	if (root->fd >= 0)
		close(root->fd);
	root->fd = fd;
	root->device = state.st_dev;
	root->inode = state.st_ino;
	root->opened = ++e->statics->roots->opened;
	return 0;
}

/* Too few descriptors, or a disk that fails, say nothing about the directory: what is open stays. */
static bool is_gone(int error)
{
	return error == ENOENT || error == ENOTDIR || error == EACCES || error == ELOOP;
}

static void root_check(engine *e, struct root *root)
{
	struct stat state;
	root->checked_ns = e->now_ns;
	if (stat(root->path, &state) == 0 && root->fd >= 0 && state.st_dev == root->device &&
		state.st_ino == root->inode)
		return;
	int error = root_open(e, root) == 0 ? 0 : errno;
	if (error != 0 && error != root->error) /* told once, not once a second */
		log_entry(e, LOG_LEVEL_ERROR, NULL, "root %s: %s", root->path, strerror(error));
	root->error = error;
	if (root->fd >= 0 && is_gone(error)) {
		close(root->fd);
		root->fd = -1;
	}
}

struct root *root_use(engine *e, uint32_t id)
{
	struct roots *roots = e->statics->roots;
	struct root *root = id < roots->size ? roots->by_id[id] : NULL;
	if (root == NULL || root->path[0] == 0)
		return NULL;
	if (root->checked_ns == 0 || e->now_ns - root->checked_ns >= FILES_RECHECK_NS)
		root_check(e, root);
	return root->fd < 0 ? NULL : root;
}

bool root_runs(const struct root *root, struct engine_text name)
{
	for (size_t i = 0; i < root->script_count; i++) {
		struct engine_text x = root->scripts[i];
		if (x.size <= name.size && memcmp(name.data + name.size - x.size, x.data, x.size) == 0)
			return true;
	}
	return false;
}

static bool texts_ok(const struct engine_text *texts, size_t count)
{
	if (count > ROOT_TEXTS || (count > 0 && texts == NULL))
		return false;
	for (size_t i = 0; i < count; i++) {
		struct engine_text t = texts[i];
		if (t.data == NULL || t.size == 0 || t.size > 255 || t.data[0] == '/' ||
			memchr(t.data, 0, t.size) != NULL)
			return false;
	}
	return true;
}

static char *put_texts(struct engine_text *to, const struct engine_text *from, size_t count, char *at)
{
	for (size_t i = 0; i < count; i++) {
		memcpy(at, from[i].data, from[i].size);
		to[i] = (struct engine_text){at, from[i].size};
		at += from[i].size;
	}
	return at;
}

/* One block: the root, its texts' places, the texts. */
static struct root *root_make(uint32_t id, const char *path, uint32_t flags, const struct engine_text *index,
	size_t index_count, const struct engine_text *scripts, size_t script_count)
{
	size_t texts = 0;
	for (size_t i = 0; i < index_count; i++)
		texts += index[i].size;
	for (size_t i = 0; i < script_count; i++)
		texts += scripts[i].size;
	struct root *root = calloc(1, sizeof *root + (index_count + script_count) * sizeof *index + texts);
	if (root == NULL)
		return NULL;
	root->id = id;
	root->flags = flags;
	root->fd = -1;
	root->path = strdup(path);
	if (root->path == NULL) {
		free(root);
		return NULL;
	}
	root->index = (struct engine_text *)(root + 1);
	root->scripts = root->index + index_count;
	root->index_count = index_count;
	root->script_count = script_count;
	char *at = put_texts(root->index, index, index_count, (char *)(root->scripts + script_count));
	put_texts(root->scripts, scripts, script_count, at);
	return root;
}

static int make_room(struct roots *roots, uint32_t id)
{
	if (id < roots->size)
		return 0;
	uint32_t size = roots->size == 0 ? 16 : roots->size;
	while (size <= id)
		size *= 2;
	struct root **larger = realloc(roots->by_id, size * sizeof *larger);
	if (larger == NULL)
		return -1;
	memset(larger + roots->size, 0, (size - roots->size) * sizeof *larger);
	roots->by_id = larger;
	roots->size = size;
	return 0;
}

int root_set(engine *e, uint32_t id, const char *path, uint32_t flags, const struct engine_text *index,
	size_t index_count, const struct engine_text *scripts, size_t script_count)
{
	struct roots *roots = e->statics->roots;
	/* "" is the root of a site that serves no files. */
	if (id >= ROOT_IDS || path == NULL || (path[0] != 0 && path[0] != '/') ||
		(flags & ROOT_SYMLINKS) == ROOT_SYMLINKS)
		return ENGINE_INVALID;
	if (!texts_ok(index, index_count) || !texts_ok(scripts, script_count))
		return ENGINE_INVALID;
	if (make_room(roots, id) < 0)
		return ENGINE_SYSTEM;
	struct root *root = root_make(id, path, flags, index, index_count, scripts, script_count);
	if (root == NULL)
		return ENGINE_SYSTEM;
	root_free(roots->by_id[id]);
	roots->by_id[id] = root;
	root_use(e, id); /* one that is not there now is told of at once, and may come later */
	return ENGINE_OK;
}
