/* How the body of an answer is framed: struct request, framing. */
#ifndef WEBSERVER_ENGINE_REPLY_H
#define WEBSERVER_ENGINE_REPLY_H

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

#endif
