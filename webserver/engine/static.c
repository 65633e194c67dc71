/*
 * Answers from files: which file a path means. What the file is comes from files.c; what a request's conditions and
 * ranges make of it is in represent.c.
 */
#include "static.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fields.h"
#include "fixed.h"

#define METHODS "GET, HEAD, OPTIONS"

int engine_root(engine *e, uint32_t id, const char *path, uint32_t flags, const struct engine_text *index,
	size_t index_count, const struct engine_text *scripts, size_t script_count)
{
	return root_set(e, id, path, flags, index, index_count, scripts, script_count);
}

int engine_mime(engine *e, const char *extension, const char *type)
{
	int result = mime_set(e->statics->types, extension, type);
	files_clear(e->statics); /* files that are known carry their types */
	return result;
}

struct engine_text file_path(const struct file *f)
{
	return (struct engine_text){f->text, f->path_size};
}

static void answer_method(struct request *r, const struct file *f)
{
	char why[2 * LOGGED + 64];
	snprintf(why, sizeof why, "%s is a file, and the method is %s", logged(f->text, f->path_size).text,
		logged(r->method.data, r->method.size).text);
	answer_status(r, 405, why, 0);
}

static void answer_file(struct request *r, struct file *f)
{
	static const struct field allow[] = {{TEXT("Allow"), TEXT(METHODS), 0}};
	if (!request_take(r, &whole_backend, NULL))
		return;
	if (r->is_head || text_is(r->method, "GET", 3)) {
		struct representation is = {
			.file = f,
			.status = 200,
			.fields = f->fields,
			.count = FILE_FIELDS,
			.type = f->fields[FILE_TYPE].value,
			.etag = f->etag,
			.modified = f->modified,
		};
		represent(r, &is);
	} else if (text_is(r->method, "OPTIONS", 7)) {
		if (reply_begin(r, 204, TEXT(""), allow, 1, UINT64_MAX, 0) == 0)
			reply_end(r);
	} else {
		answer_method(r, f);
	}
}

/* ---- which file the path means */

int file_trouble(const struct root *root, const struct file *f, struct engine_text path, const char **why)
{
	static const char *const rules[] = {
		[ROOT_SYMLINKS_DENY] = "a symbolic link, and symlinks = deny",
		[ROOT_SYMLINKS_OWNER] = "a symbolic link whose owner is not that of its target, and symlinks = owner",
		[ROOT_SYMLINKS_ALLOW] = "too many symbolic links",
	};
	bool link = f->error == ELOOP || f->error == EXDEV;
	if (f->kind == FILE_REFUSED) {
		*why = link ? rules[root->flags & ROOT_SYMLINKS] : "the front end's user may not read it";
		return 403;
	}
	if (f->kind == FILE_FAILED) {
		/* The disk's errors are the disk's; anything else is a shortage that passes. */
		*why = strerror(f->error);
		return f->error == EIO ? 500 : 503;
	}
	*why = "no such file";
	if (path.size == 0)
		*why = "a directory";
	else if (!path_allowed(path, root->flags))
		*why = "a name that begins with a dot, and dotfiles = deny";
	else if (f->kind == FILE_DIRECTORY)
		*why = "a directory";
	else if (f->error == NOT_SENT)
		*why = "a program, a link to one or a copy: a route such as .php = group:NAME runs it, .php = files "
		       "sends it";
	else if (f->error == 0 || f->error == ENXIO) /* ENXIO: a socket */
		*why = "neither a file nor a directory";
	else if (f->error == ENAMETOOLONG)
		*why = "the name is too long";
	else if (f->error == ENOTDIR)
		*why = "a part of the path is not a directory";
	return 404;
}

/* It is there, and cannot be sent. */
static void answer_trouble(struct request *r, const struct root *root, const struct file *f, struct engine_text path)
{
	char sentence[1024];
	const char *why;
	int status = file_trouble(root, f, path, &why);
	snprintf(sentence, sizeof sentence, "%.256s/%s: %s", root->path, logged(path.data, path.size).text, why);
	answer_status(r, status, sentence, status == 503 ? 1 : 0);
}

static void answer_missing(struct request *r, const struct root *root, const char *absence, struct engine_text path)
{
	char why[1024] = "";
	if (route_is_last(r))
		snprintf(why, sizeof why, "%.256s/%s: %s", root->path, logged(path.data, path.size).text, absence);
	route_next(r, why);
}

static void answer_directory(struct request *r)
{
	char *path = request_alloc(r, r->path.size + 1);
	if (path == NULL) {
		answer_status(r, 503, "no memory for a redirect", 1);
		return;
	}
	memcpy(path, r->path.data, r->path.size);
	path[r->path.size] = '/';
	answer_redirect(r, 301, (struct engine_text){path, r->path.size + 1});
}

/* A directory's index file that is a script is routed as if it had been asked for. */
static void run_index(struct request *r, struct engine_text name)
{
	char *path = request_alloc(r, r->path.size + name.size);
	if (path == NULL) {
		answer_status(r, 503, "no memory for an index file's path", 1);
		return;
	}
	memcpy(path, r->path.data, r->path.size);
	memcpy(path + r->path.size, name.data, name.size);
	route_internal(r, (struct engine_text){path, r->path.size + name.size});
}

/* The first index name that is there. The directory itself is never opened: its names may be private. */
static void answer_index(struct request *r, struct root *root, struct engine_text rest)
{
	engine *e = request_engine(r);
	char path[FILES_PATH];
	for (size_t i = 0; i < root->index_count; i++) {
		struct engine_text name = root->index[i];
		if (rest.size + name.size >= sizeof path)
			continue;
		if (rest.size > 0)
			memcpy(path, rest.data, rest.size);
		memcpy(path + rest.size, name.data, name.size);
		struct engine_text whole = {path, rest.size + name.size};
		bool script = root_runs(root, name);
		struct file *f = files_find(e, root, whole, script); /* a script need not be readable to us */
		switch (f->kind) {
		case FILE_REGULAR:
			if (script)
				run_index(r, name);
			else
				answer_file(r, f);
			return;
		case FILE_REFUSED:
		case FILE_FAILED:
			answer_trouble(r, root, f, whole);
			return;
		default:
			break;
		}
	}
	answer_missing(r, root,
		path_allowed(rest, root->flags) || rest.size == 0
			? "no such directory, or none of the site's index files in it"
			: "a name that begins with a dot, and dotfiles = deny",
		rest);
}

static bool ends_in_slash(struct engine_text path)
{
	return path.size > 0 && path.data[path.size - 1] == '/';
}

void static_start(struct request *r, uint32_t id, struct engine_text rest)
{
	engine *e = request_engine(r);
	struct root *root = root_use(e, id);
	if (root == NULL) {
		route_next(r, "the site's root is not there"); /* root_use has told more, once */
		return;
	}
	while (rest.size > 0 && rest.data[0] == '/') {
		rest.data++;
		rest.size--;
	}
	if (rest.size == 0 && !ends_in_slash(r->path)) {
		answer_directory(r);
		return;
	}
	if (rest.size == 0 || ends_in_slash(rest)) {
		answer_index(r, root, rest);
		return;
	}
	const char *why;
	struct file *f = files_find(e, root, rest, false);
	switch (f->kind) {
	case FILE_REGULAR:
		answer_file(r, f);
		return;
	case FILE_DIRECTORY:
		answer_directory(r);
		return;
	case FILE_REFUSED:
	case FILE_FAILED:
		answer_trouble(r, root, f, rest);
		return;
	default:
		file_trouble(root, f, rest, &why);
		answer_missing(r, root, why, rest);
	}
}
