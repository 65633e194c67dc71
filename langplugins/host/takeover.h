/* takeover.h - a connection that an application has taken over: shared by takeover.c and byhand.c. */
#ifndef WEBSERVER_HOST_TAKEOVER_H
#define WEBSERVER_HOST_TAKEOVER_H

#include "chunked.h"
#include "worker.h"
#include "written.h"

#define ROUNDS 16 /* pieces in one direction before the other's turn */

enum says { SAYS_HEAD = 0, SAYS_BODY, SAYS_CHUNKS, SAYS_LAST, /* all is here, some is not sent */ SAYS_NOTHING };

struct takeover {
	struct langplugin_call *call;
	pthread_t thread;
	int fd;
	uint8_t says;	/* the application */
	bool shutting;	/* it has ended its side of a tunnel, which is not told yet */
	bool hung;	/* its end is closed, or both sides are */
	bool in_over;	/* nothing more goes to it */
	bool over;	/* the answer has ended */
	bool unflushed; /* something was written that the client is not sent yet */
	struct chunked chunked;
	size_t at, end;	      /* in out: what it has said that is not taken */
	size_t in_at, in_end; /* in in: what it has not taken */
	char *trailers;
	size_t trailers_size;
	struct written head;
	char out[WRITTEN_MOST];
	char in[WRITTEN_MOST];
};

/* byhand.c: move on what the application has said. True if anything has moved. */
bool takeover_out(struct takeover *t);

#endif
