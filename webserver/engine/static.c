/*
 * Answers from files: which file a path means, what its conditions and ranges ask for, and the answer.
 *
 * What the file is comes from files.c, whether the request's conditions hold from conditions.c, which ranges it wants
 * from ranges.c; the multipart form of several ranges is in parts.c.
 */
#include "static.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "conditions.h"
#include "fields.h"
#include "fixed.h"

#define METHODS "GET, HEAD, OPTIONS"
#define LOGGED	512 /* bytes of a path that a line of the error log has */

struct logged {
	char text[LOGGED + 1];
};

static struct logged logged(const char *data, size_t size)
{
	struct logged l;
	size = size < LOGGED ? size : LOGGED;
	memcpy(l.text, data, size);
	l.text[size] = '\0';
	return l;
}

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

/* ---- the answer */

int static_send(struct request *r, struct file *f, uint64_t offset, uint64_t size)
{
	struct engine_text content = file_content(f);
	if (r->is_head || size == 0)
		return 0;
	if (content.data != NULL)
		return reply_static(r, content.data + offset, (size_t)size, f);
	return reply_file(r, f, offset, size);
}

static void send_whole(struct request *r, struct file *f)
{
	if (reply_begin(r, 200, TEXT(""), f->fields, FILE_FIELDS, f->size, 0) == 0 &&
		static_send(r, f, 0, f->size) == 0)
		reply_end(r);
}

/* An answer without content. */
static void send_head(struct request *r, int status, const struct field *fields, size_t count, uint64_t length)
{
	if (reply_begin(r, status, TEXT(""), fields, count, length, 0) == 0)
		reply_end(r);
}

static void send_range(struct request *r, struct file *f, struct range range)
{
	char text[80];
	struct field fields[FILE_FIELDS + 1];
	int size = snprintf(text, sizeof text, "bytes %llu-%llu/%llu", (unsigned long long)range.first,
		(unsigned long long)(range.first + range.size - 1), (unsigned long long)f->size);
	memcpy(fields, f->fields, sizeof f->fields);
	fields[FILE_FIELDS] = (struct field){TEXT("Content-Range"), {text, (size_t)size}, 0};
	if (reply_begin(r, 206, TEXT(""), fields, FILE_FIELDS + 1, range.size, 0) == 0 &&
		static_send(r, f, range.first, range.size) == 0)
		reply_end(r);
}

static void send_unsatisfiable(struct request *r, const struct file *f)
{
	char text[40];
	int size = snprintf(text, sizeof text, "bytes */%llu", (unsigned long long)f->size);
	struct field field = {TEXT("Content-Range"), {text, (size_t)size}, 0};
	log_entry(request_engine(r), LOG_LEVEL_NOTICE, r,
		"416: no range of the request lies within the %llu bytes of %s", (unsigned long long)f->size,
		logged(f->text, f->path_size).text);
	send_head(r, 416, &field, 1, 0);
}

/* ---- what the request asks of the file */

struct asked {
	bool conditional; /* any precondition is there: most requests have none */
	struct conditions conditions;
	struct engine_text range;
	unsigned ranges;
};

static void collect_line(struct engine_text *lines, size_t *count, struct engine_text line)
{
	if (*count < CONDITION_LINES)
		lines[*count] = line;
	++*count;
}

/* A field that must stand alone but comes twice says nothing. */
static void collect_single(struct engine_text *single, unsigned *count, struct engine_text value)
{
	*single = (*count)++ == 0 ? value : (struct engine_text){NULL, 0};
}

/* One pass over the fields. */
static void collect(const struct request *r, struct asked *a)
{
	unsigned modified = 0, unmodified = 0, if_range = 0;
	struct conditions *c = &a->conditions;
	a->conditional = false;
	a->range.data = c->if_range.data = c->if_modified_since.data = c->if_unmodified_since.data = NULL;
	a->ranges = 0;
	c->if_match_count = c->if_none_match_count = 0;
	for (uint32_t i = 0; i < r->field_count; i++) {
		struct engine_text value = r->fields[i].value;
		switch (r->fields[i].known) {
		case WIRE_FIELD_IF_MATCH:
			collect_line(c->if_match, &c->if_match_count, value);
			break;
		case WIRE_FIELD_IF_NONE_MATCH:
			collect_line(c->if_none_match, &c->if_none_match_count, value);
			break;
		case WIRE_FIELD_IF_MODIFIED_SINCE:
			collect_single(&c->if_modified_since, &modified, value);
			break;
		case WIRE_FIELD_IF_UNMODIFIED_SINCE:
			collect_single(&c->if_unmodified_since, &unmodified, value);
			break;
		case WIRE_FIELD_IF_RANGE:
			collect_single(&c->if_range, &if_range, value);
			break;
		case WIRE_FIELD_RANGE:
			collect_single(&a->range, &a->ranges, value);
			continue;
		default:
			continue;
		}
		a->conditional = true;
	}
}

static void send_ranges(struct request *r, struct file *f, struct engine_text value)
{
	struct range ranges[RANGES_MAX];
	size_t count;
	switch (ranges_parse(value.data, value.size, f->size, ranges, &count)) {
	case RANGES_WHOLE:
		send_whole(r, f);
		return;
	case RANGES_UNSATISFIABLE:
		send_unsatisfiable(r, f);
		return;
	case RANGES_PARTS:
		if (count == 1)
			send_range(r, f, ranges[0]);
		else
			parts_send(r, f, ranges, count);
	}
}

/* GET or HEAD of a file that is there. */
static void send_file(struct request *r, struct file *f)
{
	struct asked a;
	char why[LOGGED + 128];
	enum condition_result result = CONDITION_PROCEED;
	collect(r, &a);
	if (a.conditional) {
		struct validators v = {f->etag, f->modified, request_engine(r)->now_wall};
		result = conditions_check(&a.conditions, &v);
	}
	switch (result) {
	case CONDITION_NOT_MODIFIED:
		send_head(r, 304, f->fields + 1, 2, UINT64_MAX); /* Last-Modified, ETag */
		return;
	case CONDITION_FAILED:
		snprintf(why, sizeof why, "%s is not as the request's If-Match or If-Unmodified-Since wants it",
			logged(f->text, f->path_size).text);
		answer_status(r, 412, why, 0);
		return;
	case CONDITION_WHOLE:
	case CONDITION_PROCEED:
		/* Range is defined for GET only (RFC 9110 section 14.2). */
		if (result == CONDITION_WHOLE || a.range.data == NULL || r->is_head)
			send_whole(r, f);
		else
			send_ranges(r, f, a.range);
	}
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
	if (r->is_head || text_is(r->method, "GET", 3))
		send_file(r, f);
	else if (text_is(r->method, "OPTIONS", 7))
		send_head(r, 204, allow, 1, UINT64_MAX);
	else
		answer_method(r, f);
}

/* ---- which file the path means */

static void answer_refused(struct request *r, const struct root *root, const struct file *f, struct engine_text path)
{
	static const char *const rules[] = {
		[ROOT_SYMLINKS_DENY] = "a symbolic link, and symlinks = deny",
		[ROOT_SYMLINKS_OWNER] = "a symbolic link whose owner is not that of its target, and symlinks = owner",
		[ROOT_SYMLINKS_ALLOW] = "too many symbolic links",
	};
	char why[1024];
	bool link = f->error == ELOOP || f->error == EXDEV;
	snprintf(why, sizeof why, "%.256s/%s: %s", root->path, logged(path.data, path.size).text,
		link ? rules[root->flags & ROOT_SYMLINKS] : "the front end's user may not read it");
	answer_status(r, 403, why, 0);
}

static void answer_failed(struct request *r, const struct root *root, const struct file *f, struct engine_text path)
{
	/* The disk's errors are the disk's; anything else is a shortage that passes. */
	int status = f->error == EIO ? 500 : 503;
	char why[1024];
	snprintf(why, sizeof why, "%.256s/%s: %s", root->path, logged(path.data, path.size).text, strerror(f->error));
	answer_status(r, status, why, status == 503 ? 1 : 0);
}

/* Why there is nothing to send: what the client is not told. */
static const char *absence(const struct root *root, const struct file *f, struct engine_text path)
{
	if (!path_allowed(path, root->flags))
		return "a name that begins with a dot, and dotfiles = deny";
	switch (f->error) {
	case 0:
	case ENXIO: /* a socket */
		return "neither a file nor a directory";
	case ENAMETOOLONG:
		return "the name is too long";
	case ENOTDIR:
		return "a part of the path is not a directory";
	default:
		return "no such file";
	}
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
			answer_refused(r, root, f, whole);
			return;
		case FILE_FAILED:
			answer_failed(r, root, f, whole);
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
	struct file *f = files_find(e, root, rest, false);
	switch (f->kind) {
	case FILE_REGULAR:
		answer_file(r, f);
		return;
	case FILE_DIRECTORY:
		answer_directory(r);
		return;
	case FILE_REFUSED:
		answer_refused(r, root, f, rest);
		return;
	case FILE_FAILED:
		answer_failed(r, root, f, rest);
		return;
	default:
		answer_missing(r, root, absence(root, f, rest), rest);
	}
}
