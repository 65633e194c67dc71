/* Answers: their heads and what their frames bring (answers.c), their bodies and credit for the workers (absorb.c). */
#ifndef WEBSERVER_ENGINE_ANSWERS_H
#define WEBSERVER_ENGINE_ANSWERS_H

#include "channel.h"

/* ---- answers.c. Each may end the request; the caller has pinned x. False: the frame breaks a rule. */
bool answer_response(struct exchange *x, zmq_msg_t *message, const char *data, size_t size);
bool answer_inform(struct exchange *x, const char *data, size_t size);
bool answer_body(struct exchange *x, zmq_msg_t *message, const char *data, size_t size);
void answer_unwanted(struct exchange *x, const char *data, size_t size); /* a piece for nobody */
/* The worker has nothing more for it: the slot is free. x stays, for its client. */
void answer_over(struct exchange *x);

/* ---- absorb.c */
int absorb_make(struct channel *c);
/* Bytes of an answer's body. */
struct piece {
	const char *data;
	size_t size;
	zmq_msg_t *message;  /* that data lies in, or */
	struct loans *loans; /* that it was borrowed of; neither: it is copied */
};
/* 0, or -1: the client is gone. A loan is returned, now or when it has been written. */
int absorb(struct exchange *x, const struct piece *piece);
void answer_credit(struct exchange *x, uint64_t queued);

#endif
