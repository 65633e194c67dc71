/* What the files that answer from files share. */
#ifndef WEBSERVER_ENGINE_STATIC_H
#define WEBSERVER_ENGINE_STATIC_H

#include <string.h>

#include "files.h"
#include "ranges.h"

#define LOGGED 512 /* bytes of a path that a line of the error log has */

struct logged {
	char text[LOGGED + 1];
};

static inline struct logged logged(const char *data, size_t size)
{
	struct logged l;
	size = size < LOGGED ? size : LOGGED;
	memcpy(l.text, data, size);
	l.text[size] = '\0';
	return l;
}

/* What is wrong with a file that is not FILE_REGULAR: the status for it and half a sentence for the error log. */
int file_trouble(const struct root *root, const struct file *f, struct engine_text path, const char **why);

/* ---- represent.c */
/* What a successful GET would bring: a file's content under these fields. */
struct representation {
	struct file *file;
	int status; /* with another one than 200 all of it is sent, whatever the request says about parts */
	struct engine_text reason;
	const struct field *fields; /* without Content-Length */
	size_t count;
	struct engine_text type; /* of Content-Type, for the parts of a multipart answer */
	struct engine_text etag; /* "": none */
	int64_t modified;	 /* seconds */
};
/* Answer GET, or HEAD, with it, as the request's conditions and ranges ask. The request has a backend. May end it. */
void represent(struct request *r, const struct representation *is);
/* Queue this much of the file; nothing for HEAD. As reply_file. */
int represent_bytes(struct request *r, struct file *f, uint64_t offset, uint64_t size);
/* The fields with another Content-Type, and room for one more; NULL: no memory, which has been answered. */
struct field *represent_fields(struct request *r, const struct representation *is, struct engine_text type);

/* parts.c: answer 206 with several ranges as multipart/byteranges. */
void parts_send(struct request *r, const struct representation *is, const struct range *ranges, size_t count);

#endif
