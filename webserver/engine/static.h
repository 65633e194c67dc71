/* What the files that answer from files share. */
#ifndef WEBSERVER_ENGINE_STATIC_H
#define WEBSERVER_ENGINE_STATIC_H

#include "files.h"
#include "ranges.h"

/* Queue this much of the file; nothing for HEAD. As reply_file. */
int static_send(struct request *r, struct file *f, uint64_t offset, uint64_t size);
/* parts.c: answer 206 with several ranges as multipart/byteranges. */
void parts_send(struct request *r, struct file *f, const struct range *ranges, size_t count);

#endif
