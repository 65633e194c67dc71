/*
 * Bytes on their way to one client: a chain of segments. Memory of ours, memory of somebody else with a reference to
 * its owner, a ZeroMQ message that was moved in, a piece that a worker has lent, or a range of a file. Only output.c
 * looks inside.
 */
#ifndef WEBSERVER_ENGINE_OUTPUT_H
#define WEBSERVER_ENGINE_OUTPUT_H

#include <stddef.h>
#include <stdint.h>

struct connection;
struct engine;
struct file;
struct loans;
struct segment;

struct output {
	struct segment *first, *last;
	bool moved;	 /* some of it was taken since the send timer was armed */
	uint64_t queued; /* bytes in the chain */
};

struct segments {
	struct segment *free;
	unsigned count;
};

/* Room for size more bytes at the end of the chain, contiguous; output_commit says how many were used. NULL: no
   memory. */
char *output_reserve(struct connection *c, size_t size);
void output_commit(struct connection *c, size_t size);
int output_copy(struct connection *c, const void *data, size_t size);
int output_borrow(struct connection *c, const void *data, size_t size, struct file *owner);
int output_message(struct connection *c, void *message, const char *data, size_t size);
/* The first size of so many bytes that were borrowed, and are returned once these are written or dropped; at once if
   they cannot be taken. */
int output_lent(struct connection *c, struct loans *loans, const char *data, size_t borrowed, size_t size);
int output_file(struct connection *c, struct file *file, uint64_t offset, uint64_t size);

enum output_result { OUTPUT_DONE = 0, OUTPUT_MORE = 1, OUTPUT_FAILED = -1 };
/* Write what the socket takes, at most OUTPUT_BURST bytes. */
enum output_result output_flush(struct connection *c);
/* Forget what was not written. */
void output_drop(struct connection *c);
void segments_free(struct engine *e);

#endif
