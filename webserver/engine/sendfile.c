/*
 * X-Sendfile and X-Accel-Redirect: a group names a file, and the engine sends it as it sends any file.
 *
 *   X-Sendfile        the file's path, as the application has it: below one of the site's sendfile directories
 *   X-Accel-Redirect  a path below any of those directories, percent-encoded as in a URI; a query is not looked at
 *
 * The group is not believed: what it names is looked up under the site's rules about links and dot files, beneath a
 * directory that the site names, by the front end's user. The field never reaches the client, whatever becomes of it.
 * mod_xsendfile and Rack write a path as it is, others percent-encode it: it is tried both ways.
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "channel.h"
#include "dates.h"
#include "sendfile.h"
#include "static.h"

static const struct {
	struct engine_text name;
	enum sendfile_kind kind;
} names[] = {
	{TEXT("x-sendfile"), SENDFILE_PATH},
	{TEXT("x-accel-redirect"), SENDFILE_URI},
};

static bool is_named(const struct field *f, const char *lower, size_t size)
{
	return f->name.size == size && strncasecmp(f->name.data, lower, size) == 0;
}

bool sendfile_take(struct sendfile *wanted, const struct field *field)
{
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (is_named(field, names[i].name.data, names[i].name.size)) {
			*wanted = (struct sendfile){names[i].kind, names[i].name, field->value};
			return true;
		}
	return false;
}

/* ---- which file it is */

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Without escapes; what is none stays as it is. False: longer than any path. */
static bool decode(struct engine_text from, char *room, size_t most, struct engine_text *to)
{
	size_t out = 0;
	for (size_t i = 0; i < from.size; i++) {
		int high = from.data[i] == '%' && i + 2 < from.size ? hex(from.data[i + 1]) : -1;
		int low = high >= 0 ? hex(from.data[i + 2]) : -1;
		if (out == most)
			return false;
		room[out++] = low >= 0 ? (char)(high << 4 | low) : from.data[i];
		i += low >= 0 ? 2 : 0;
	}
	*to = (struct engine_text){room, out};
	return true;
}

static struct engine_text without_slashes(struct engine_text path)
{
	while (path.size > 0 && path.data[0] == '/') {
		path.data++;
		path.size--;
	}
	return path;
}

/* What is left of the path below the root; false: it is not below it. */
static bool below(const struct root *root, struct engine_text path, struct engine_text *rest)
{
	size_t size = strlen(root->path);
	if (path.size <= size || memcmp(path.data, root->path, size) != 0 || path.data[size] != '/')
		return false;
	*rest = without_slashes((struct engine_text){path.data + size, path.size - size});
	return true;
}

struct search {
	struct file *file; /* not NULL: found, with a reference */
	int status;	   /* 0: nothing was looked at */
	const char *why;
};

static void try_path(struct request *r, const struct sendfile *wanted, struct engine_text path, struct search *s)
{
	struct engine *e = request_engine(r);
	for (size_t i = 0; i < r->site->sendfile_count && s->file == NULL; i++) {
		struct engine_text rest = without_slashes(path);
		const struct root *root = root_use(e, r->site->sendfile[i]);
		if (root == NULL && s->status == 0) {
			s->status = 404;
			s->why = "a sendfile directory of the site is not there";
		}
		if (root == NULL || (wanted->kind == SENDFILE_PATH && !below(root, path, &rest)))
			continue;
		struct file *f = files_find(e, root, rest, false);
		if (f->kind == FILE_REGULAR) {
			s->file = file_ref(f);
			return;
		}
		const char *why;
		int status = file_trouble(root, f, rest, &why);
		/* Of several directories, one that has such a file says more than one that has none. */
		if (s->status == 0 || (s->status == 404 && status != 404)) {
			s->status = status;
			s->why = why;
		}
	}
}

static void search(struct request *r, const struct sendfile *wanted, struct search *s)
{
	char room[FILES_PATH];
	struct engine_text path = wanted->value, decoded;
	const char *query = wanted->kind == SENDFILE_URI ? memchr(path.data, '?', path.size) : NULL;
	if (query != NULL)
		path.size = (size_t)(query - path.data);
	if (path.size == 0 || path.data[0] != '/')
		return;
	if (wanted->kind == SENDFILE_PATH)
		try_path(r, wanted, path, s);
	if (s->file == NULL && (wanted->kind == SENDFILE_URI || memchr(path.data, '%', path.size) != NULL) &&
		decode(path, room, sizeof room, &decoded))
		try_path(r, wanted, decoded, s);
}

/* ---- the answer */

struct own {
	bool type, etag, modified;
};

/* The application's fields that go along, in place; what it says of the content itself counts. Returns how many. */
static size_t keep_own(
	struct request *r, struct field *fields, size_t count, struct representation *is, struct own *own)
{
	size_t kept = 0;
	for (size_t i = 0; i < count; i++) {
		const struct field *f = &fields[i];
		int64_t seconds;
		/* Which parts there are is for whoever sends them to say. */
		if (is_named(f, "accept-ranges", 13) || is_named(f, "content-range", 13))
			continue;
		if (is_named(f, "last-modified", 13)) {
			if (!date_parse(f->value.data, f->value.size, request_engine(r)->now_wall, &seconds))
				continue;
			own->modified = true;
			is->modified = seconds;
		} else if (is_named(f, "etag", 4)) {
			own->etag = true;
			is->etag = f->value;
		} else if (is_named(f, "content-type", 12)) {
			own->type = true;
			is->type = f->value;
		}
		fields[kept++] = *f;
	}
	return kept;
}

static void send_named(
	struct request *r, struct file *file, int status, struct engine_text reason, struct field *fields, size_t count)
{
	struct own own = {false, false, false};
	struct representation is = {
		.file = file,
		.status = status,
		.reason = reason,
		.type = file->fields[FILE_TYPE].value,
		.etag = file->etag,
		.modified = file->modified,
	};
	count = keep_own(r, fields, count, &is, &own);
	for (unsigned i = 0; i < FILE_FIELDS; i++) {
		const struct field *f = &file->fields[i];
		if ((own.type && i == FILE_TYPE) || (own.modified && is_named(f, "last-modified", 13)) ||
			(own.etag && is_named(f, "etag", 4)) || (status != 200 && is_named(f, "accept-ranges", 13)))
			continue;
		fields[count++] = *f;
	}
	is.fields = fields;
	is.count = count;
	represent(r, &is);
}

void sendfile_answer(struct request *r, const struct sendfile *wanted, int status, struct engine_text reason,
	struct field *fields, size_t count)
{
	char why[LOGGED + 400];
	struct search s = {.status = 0};
	if (r->site == NULL || r->site->sendfile_count == 0) {
		snprintf(why, sizeof why,
			"group \"%.64s\" names a file in %s, and site \"%.64s\" has no sendfile = ...", r->group_name,
			wanted->name.data, r->site == NULL ? "" : r->site->name);
		answer_status(r, 500, why, 0);
		return;
	}
	search(r, wanted, &s);
	if (s.file != NULL) {
		send_named(r, s.file, status, reason, fields, count);
		file_unref(s.file);
		return;
	}
	if (s.status == 0) {
		s.status = 403;
		s.why = wanted->kind == SENDFILE_PATH ? "it is below none of the site's sendfile directories"
						      : "it is no path that begins with \"/\"";
	}
	snprintf(why, sizeof why, "group \"%.64s\" names %s in %s: %s", r->group_name,
		logged(wanted->value.data, wanted->value.size).text, wanted->name.data, s.why);
	answer_status(r, s.status, why, s.status == 503 ? 1 : 0);
}
