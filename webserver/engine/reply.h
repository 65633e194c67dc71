/* How the body of an answer is framed: struct request, framing. */
#ifndef WEBSERVER_ENGINE_REPLY_H
#define WEBSERVER_ENGINE_REPLY_H

#include <stdbool.h>

enum framing {
	FRAMING_NONE = 0,    /* no body follows the head */
	FRAMING_LENGTH = 1,  /* Content-Length */
	FRAMING_CHUNKED = 2, /* Transfer-Encoding: chunked */
	FRAMING_CLOSE = 3,   /* until the end of the connection */
	FRAMING_TUNNEL = 4   /* the same, in both directions */
};

struct request;
/* connection.c: the output has been written to its end. */
void reply_drained(struct request *r);

/* Between reply.c, which has the head and the end, and framing.c, which has the body. */
bool reply_goes_on(const struct request *r); /* its body is wanted */
int reply_no_memory(struct request *r);	     /* -1 */

#endif
