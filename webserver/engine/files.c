/*
 * struct file, and the cache of what is known about each path.
 *
 * What is known is believed for a second, then the path is opened again, under the rules as they are, and compared: so
 * a file that was rewritten, replaced, removed or closed to us is served as it is within that second, and a hot path
 * costs no system call. Also that nothing is there is remembered: a front controller's URLs would cost one openat2
 * each.
 *
 * Three shelves, each with its own bound, so that a stranger who asks for many names that do not exist pushes out only
 * other such names: content in memory, descriptors, names.
 */
#define _GNU_SOURCE /* O_PATH */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dates.h"

enum { SHELF_MEMORY = 0, SHELF_DESCRIPTOR = 1, SHELF_NAME = 2 };

/* A file that changed this recently may change again without its time showing it: see unchanged(). */
#define YOUNG_NS INT64_C(2000000000)

/* ---- making and freeing */

int statics_make(engine *e)
{
	struct statics *s = calloc(1, sizeof *s);
	if (s == NULL)
		return -1;
	e->statics = s;
	for (int i = 0; i < 3; i++)
		list_init(&s->shelves[i]);
	if (hash_key_make(&s->key) == 0 && table_make(&s->files, 10, &s->key) == 0) {
		s->roots = roots_new();
		s->types = mime_new(&s->key);
	}
	if (s->roots != NULL && s->types != NULL)
		return 0;
	statics_free(e);
	return -1;
}

void statics_free(engine *e)
{
	struct statics *s = e->statics;
	if (s == NULL)
		return;
	files_clear(s);
	table_free(&s->files);
	roots_delete(s->roots);
	mime_delete(s->types);
	free(s);
	e->statics = NULL;
}

struct file *file_ref(struct file *f)
{
	f->references++;
	return f;
}

void file_unref(struct file *f)
{
	if (f == NULL || --f->references > 0)
		return;
	if (f->fd >= 0)
		close(f->fd);
	free(f->content);
	free(f);
}

int file_fd(const struct file *f)
{
	return f->fd;
}

struct engine_text file_content(const struct file *f)
{
	return (struct engine_text){f->content, f->content == NULL ? 0 : f->size};
}

static struct file *file_make(size_t texts)
{
	struct file *f = calloc(1, sizeof *f + texts);
	if (f == NULL)
		return NULL;
	f->references = 1;
	f->fd = -1;
	return f;
}

struct file *file_wrap(int fd)
{
	struct file *f = file_make(0);
	if (f != NULL)
		f->fd = fd;
	return f;
}

struct file *file_hold(const char *data, size_t size)
{
	struct file *f = file_make(0);
	char *content = malloc(size + 1); /* never a null pointer for no bytes */
	if (f == NULL || content == NULL) {
		free(f);
		free(content);
		return NULL;
	}
	if (size > 0)
		memcpy(content, data, size);
	f->content = content;
	f->size = size;
	return f;
}

/* ---- the shelves */

static void drop(struct statics *s, struct file *f)
{
	table_remove(&s->files, &f->node);
	list_remove(&f->order);
	s->counts[f->shelf]--;
	if (f->content != NULL)
		s->memory -= f->size;
	f->cached = false;
	file_unref(f);
}

static void drop_oldest(struct statics *s, int shelf)
{
	drop(s, list_entry(s->shelves[shelf].next, struct file, order));
}

void files_clear(struct statics *s)
{
	for (int shelf = 0; shelf < 3; shelf++)
		while (!list_empty(&s->shelves[shelf]))
			drop_oldest(s, shelf);
}

/* Room for one more file on the shelf. */
static void make_room(engine *e, int shelf, uint64_t bytes)
{
	struct statics *s = e->statics;
	size_t limit = shelf == SHELF_NAME ? FILES_NAMES : e->limits.files;
	while (s->counts[shelf] > 0 && s->counts[shelf] >= limit)
		drop_oldest(s, shelf);
	while (s->counts[SHELF_MEMORY] > 0 && s->memory + bytes > FILES_MEMORY)
		drop_oldest(s, SHELF_MEMORY);
}

static void keep(engine *e, struct file *f)
{
	struct statics *s = e->statics;
	f->shelf = f->content != NULL ? SHELF_MEMORY : f->fd >= 0 ? SHELF_DESCRIPTOR : SHELF_NAME;
	make_room(e, f->shelf, f->content != NULL ? f->size : 0);
	f->cached = true;
	s->counts[f->shelf]++;
	if (f->content != NULL)
		s->memory += f->size;
	table_insert(&s->files, &f->node);
	list_append(&s->shelves[f->shelf], &f->order);
}

/* ---- what a path turned out to be */

/* What an error of opening says about the path. Any that is not here says something about this moment only. */
static const struct {
	int error;
	enum file_kind kind;
} meanings[] = {
	{ENOENT, FILE_MISSING},
	{ENOTDIR, FILE_MISSING},
	{ENAMETOOLONG, FILE_MISSING},
	{ENXIO, FILE_MISSING},
	{NOT_SENT, FILE_MISSING},
	{EACCES, FILE_REFUSED},
	{EPERM, FILE_REFUSED},
	{ELOOP, FILE_REFUSED},
	{EXDEV, FILE_REFUSED},
};

static enum file_kind kind_of(const struct opened *o)
{
	if (o->fd >= 0)
		return S_ISREG(o->state.st_mode)   ? FILE_REGULAR
		       : S_ISDIR(o->state.st_mode) ? FILE_DIRECTORY
						   : FILE_MISSING;
	for (size_t i = 0; i < sizeof meanings / sizeof *meanings; i++)
		if (meanings[i].error == o->error)
			return meanings[i].kind;
	return FILE_FAILED;
}

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool same_state(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       a->st_mode == b->st_mode && same_time(a->st_mtim, b->st_mtim) && same_time(a->st_ctim, b->st_ctim);
}

/* Two writes within one tick of the file system's clock leave the same time: a file that was young is read again. */
static bool unchanged(const struct file *f, const struct opened *o, enum file_kind kind)
{
	if (f->kind != kind || kind == FILE_FAILED)
		return false;
	if (kind == FILE_MISSING || kind == FILE_REFUSED)
		return f->error == o->error;
	return !f->young && same_state(&f->state, &o->state);
}

/* Content that is read when it is sent may have been written to since: the answer's head would promise another size.
   One system call, where there will be a sendfile anyway. */
static bool as_described(const struct file *f)
{
	struct stat now;
	return f->fd < 0 || (fstat(f->fd, &now) == 0 && same_state(&f->state, &now));
}

/* ---- a regular file's answer fields and content */

static int64_t nanoseconds(struct timespec t)
{
	return (int64_t)((uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec);
}

static char *add_field(struct file *f, int number, struct engine_text name, char *at, const char *value)
{
	size_t size = strlen(value);
	memcpy(at, value, size);
	f->fields[number] = (struct field){name, {at, size}, 0};
	return at + size;
}

static void describe(engine *e, struct file *f, const char *type)
{
	char date[DATE_SIZE + 1], etag[48], *at = f->text + f->path_size;
	/* RFC 9110 section 8.8.2.1: never later than the answer's own date. */
	f->modified = f->state.st_mtim.tv_sec < e->now_wall ? f->state.st_mtim.tv_sec : e->now_wall;
	if (f->modified < 0)
		f->modified = 0;
	date_format(f->modified, date);
	snprintf(etag, sizeof etag, "\"%llx-%llx\"", (unsigned long long)nanoseconds(f->state.st_mtim),
		(unsigned long long)f->size);
	at = add_field(f, FILE_TYPE, TEXT("Content-Type"), at, type);
	at = add_field(f, 1, TEXT("Last-Modified"), at, date);
	at = add_field(f, 2, TEXT("ETag"), at, etag);
	f->etag = f->fields[2].value;
	add_field(f, 3, TEXT("Accept-Ranges"), at, "bytes");
}

/* Reads a small file into memory and closes it, if it is at rest meanwhile; else its descriptor is kept. */
static void load(struct file *f)
{
	struct stat after;
	size_t size = (size_t)f->size, have = 0;
	char *content = malloc(size + 1);
	if (content == NULL)
		return;
	while (have <= size) { /* one byte more than there should be, to see that there is none */
		ssize_t got = pread(f->fd, content + have, size + 1 - have, (off_t)have);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		have += (size_t)got;
	}
	if (have != size || fstat(f->fd, &after) < 0 || after.st_size != f->state.st_size ||
		!same_time(after.st_mtim, f->state.st_mtim)) {
		free(content);
		return;
	}
	f->content = content;
	close(f->fd);
	f->fd = -1;
}

/* Takes the opened descriptor. */
static struct file *make(engine *e, struct engine_text path, bool probe, struct opened *o, enum file_kind kind)
{
	bool readable = kind == FILE_REGULAR && !probe;
	const char *type = readable ? mime_find(e->statics->types, path) : "";
	struct file *f = file_make(path.size + (readable ? strlen(type) + DATE_SIZE + 48 + 5 : 0));
	if (f == NULL) {
		if (o->fd >= 0)
			close(o->fd);
		return NULL;
	}
	memcpy(f->text, path.data, path.size);
	f->path_size = path.size;
	f->probe = probe;
	f->kind = kind;
	f->error = o->error;
	if (o->fd < 0)
		return f;
	f->state = o->state;
	f->size = (uint64_t)o->state.st_size;
	f->young = (int64_t)e->now_wall_ns - nanoseconds(o->state.st_mtim) < YOUNG_NS;
	if (!readable) {
		close(o->fd);
		return f;
	}
	f->fd = o->fd;
	if (f->size <= FILES_SMALL)
		load(f);
	describe(e, f, type);
	return f;
}

/* ---- looking up */

static struct file *find(const struct statics *s, uint64_t root, struct engine_text path, bool probe, uint64_t hash)
{
	for (struct table_node *n = table_chain(&s->files, hash); n != NULL; n = n->next) {
		struct file *f = list_entry(n, struct file, node);
		if (n->hash == hash && f->root == root && f->probe == probe && text_is(path, f->text, f->path_size))
			return f;
	}
	return NULL;
}

static struct file *failure(engine *e, int error)
{
	struct file *f = &e->statics->failure;
	f->kind = FILE_FAILED;
	f->fd = -1;
	f->error = error;
	return f;
}

static struct file *look_again(
	engine *e, const struct root *root, struct engine_text path, bool probe, uint64_t hash, struct file *known)
{
	struct opened o = path_look(root, path, probe);
	enum file_kind kind = kind_of(&o);
	if (known != NULL && unchanged(known, &o, kind)) {
		if (o.fd >= 0)
			close(o.fd);
		known->checked_ns = e->now_ns;
		return known;
	}
	if (known != NULL)
		drop(e->statics, known);
	if (kind == FILE_FAILED)
		return failure(e, o.error);
	struct file *f = make(e, path, probe, &o, kind);
	if (f == NULL)
		return failure(e, ENOMEM);
	f->node.hash = hash;
	f->root = root->opened;
	f->checked_ns = e->now_ns;
	keep(e, f);
	return f;
}

struct file *files_find(engine *e, const struct root *root, struct engine_text path, bool probe)
{
	struct statics *s = e->statics;
	uint64_t hash = hash_bytes(&s->key, root->opened * 2 + probe, path.data, path.size);
	struct file *f = find(s, root->opened, path, probe, hash);
	if (f != NULL && e->now_ns - f->checked_ns < FILES_RECHECK_NS && as_described(f)) {
		e->stats.files_hit++;
		list_remove(&f->order);
		list_append(&s->shelves[f->shelf], &f->order);
		return f;
	}
	e->stats.files_missed++;
	return look_again(e, root, path, probe, hash, f);
}
