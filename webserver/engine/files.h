/*
 * Files as the server sees them: roots, safe opening, the open-file cache, MIME types.
 *
 *   roots.c   directories that sites serve from, by number
 *   sources.c names of programs, whose text is not for clients
 *   paths.c   from a root and a path to a descriptor, under the root's rules about links and dot files
 *   files.c   struct file, and the cache of what is known about each path
 *   mime.c    types by file-name extension
 */
#ifndef WEBSERVER_ENGINE_FILES_H
#define WEBSERVER_ENGINE_FILES_H

#include <sys/stat.h>

#include "engine.h"
#include "table.h"

#define FILES_RECHECK_NS UINT64_C(800000000)  /* believed of a path so long: new within a second, also when busy */
#define FILES_SMALL	 16384		      /* content up to this size is kept in memory, without a descriptor */
#define FILES_MEMORY	 (UINT64_C(16) << 20) /* all of it together */
#define FILES_NAMES	 8192		      /* paths known to hold no file: missing, directory, refused */
#define FILES_PATH	 4096		      /* bytes, PATH_MAX */

/* ---- roots.c */
struct root {
	uint32_t id, flags;
	int fd;	   /* O_PATH; -1: it could not be opened */
	int error; /* why not, as last told */
	dev_t device;
	ino_t inode;
	uint64_t checked_ns; /* when path was last seen to be this directory; 0: never */
	uint64_t opened;     /* counts openings over all roots, so that old cache entries match none */
	char *path;
	struct engine_text *index, *scripts;
	size_t index_count, script_count;
};
struct roots;
struct roots *roots_new(void);
void roots_delete(struct roots *roots);
int root_set(engine *e, uint32_t id, const char *path, uint32_t flags, const struct engine_text *index,
	size_t index_count, const struct engine_text *scripts, size_t script_count);
/* The root, looked after at most once a second; NULL: not known, or not there now. */
struct root *root_use(engine *e, uint32_t id);
bool root_runs(const struct root *root, struct engine_text name); /* ends in one of its script extensions */

/* ---- sources.c */
/* Whether a file of this name is a program's text, or a copy of it. */
bool root_holds_source(const struct root *root, struct engine_text path);
/* The same, by the name that an open file really has: links lead to it from other names. */
bool root_holds_source_at(const struct root *root, int fd);
#define NOT_SENT ENOEXEC /* error of a file that is there and is a program's text */

/* ---- paths.c */
struct opened {
	int fd;	     /* -1: error says why */
	int error;   /* errno */
	bool linked; /* symbolic links may lie between the path and the file */
	struct stat state;
};
/* path: below root_fd, without a leading "/", NUL-terminated. flags: O_RDONLY or O_PATH. Never blocks on what is not a
   file, never follows what the rules forbid. */
struct opened path_open(int root_fd, uint32_t rules, const char *path, int flags);
/* What the path below the root is, or NOT_SENT. probe: only whether something is there. */
struct opened path_look(const struct root *root, struct engine_text path, bool probe);
/* The walk that path_open falls back to, where every link is looked at. */
struct opened path_walk(int root_fd, uint32_t rules, const char *path, int flags);
/* No "..", no NUL, no dot file unless the rules allow it. */
bool path_allowed(struct engine_text path, uint32_t rules);

/* ---- files.c */
enum file_kind {
	FILE_PRIVATE = 0, /* not in the cache: spooled, or held for a fixed answer */
	FILE_REGULAR = 1,
	FILE_DIRECTORY = 2,
	FILE_MISSING = 3,
	FILE_REFUSED = 4, /* error says why */
	FILE_FAILED = 5	  /* error; about this moment: never remembered, never referred to */
};
enum { FILE_FIELDS = 4, FILE_TYPE = 0 /* Content-Type comes first */ };

struct file {
	struct table_node node;
	struct list order;
	uint32_t references;
	int fd;	       /* -1: none */
	uint8_t kind;  /* enum file_kind */
	uint8_t shelf; /* which list it is in: files.c */
	bool cached, probe, young;
	int error;
	uint64_t root; /* struct root's opened */
	uint64_t checked_ns;
	struct stat state;
	uint64_t size;
	int64_t modified; /* seconds; the Last-Modified value */
	char *content;	  /* NULL: read from fd */
	struct engine_text etag;
	struct field fields[FILE_FIELDS];
	size_t path_size;
	char text[]; /* path, then the fields' texts */
};

struct statics {
	struct hash_key key;
	struct roots *roots;
	struct mime_types *types;
	struct table files;
	struct list shelves[3]; /* oldest first */
	size_t counts[3];
	uint64_t memory;     /* bytes of content */
	struct file failure; /* what files_find returns for FILE_FAILED; must be last */
};

/* What the path is now, known or found out. probe: only whether it is there; such a one cannot be read. Borrowed: take
   a reference before the next call. */
struct file *files_find(engine *e, const struct root *root, struct engine_text path, bool probe);
void files_clear(struct statics *s);
/* A file without a descriptor that holds a copy of these bytes. NULL: no memory. */
struct file *file_hold(const char *data, size_t size);
struct engine_text file_content(const struct file *f); /* data NULL: read from file_fd */

/* ---- mime.c */
struct mime_types;
struct mime_types *mime_new(const struct hash_key *key);
void mime_delete(struct mime_types *types);
int mime_set(struct mime_types *types, const char *extension, const char *type);
/* By the last extension of the path's last segment; never NULL, valid until that extension is set again. */
const char *mime_find(const struct mime_types *types, struct engine_text path);

#endif
