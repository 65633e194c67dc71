/* What an application writes on a connection that it took over: an answer, or its side of a tunnel. See takeover.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "takeover.h"

static int give_up(struct takeover *t, const char *why)
{
	static const char text[] = "Internal Server Error\n";
	static const struct langplugin_field type = {{"Content-Type", 12}, {"text/plain", 10}};
	struct langplugin_call *call = t->call;

	log_format(call, LP_ERROR, "the application's answer on the connection that it took over: %s", why);
	if (call->answer.state == ANSWER_NONE) {
		answer_respond(call, 500, (struct langplugin_text){"", 0}, &type, 1, (int64_t)sizeof(text) - 1);
		answer_write(call, text, sizeof(text) - 1, 0);
		answer_end(call);
	} else {
		answer_abort(call);
	}
	t->over = true;
	return LP_OK;
}

static int conclude(struct takeover *t)
{
	struct langplugin_call *call = t->call;

	if (t->trailers && written_fields(&t->head, t->trailers, t->trailers_size) &&
		answer_trailers(call, t->head.field, t->head.count) == LP_INVALID)
		log_format(call, LP_WARNING, "trailers that may not be sent as such are left out");
	answer_end(call);
	t->over = true;
	return LP_OK;
}

/* What is in out is chunked: make it content. */
static int unchunk(struct takeover *t)
{
	struct chunked_piece piece;
	char *data = t->out + t->at;

	if (!chunked_decode(&t->chunked, data, t->end - t->at, WRITTEN_MOST, &piece))
		return give_up(t, "its chunks are not framed as they should be");
	if (piece.trailers_size > 0) {
		char *grown = realloc(t->trailers, t->trailers_size + piece.trailers_size);
		if (!grown)
			return give_up(t, "no memory");
		memcpy(grown + t->trailers_size, data + piece.trailers, piece.trailers_size);
		t->trailers = grown;
		t->trailers_size += piece.trailers_size;
	}
	t->end = t->at + piece.size;
	if (piece.last)
		t->says = SAYS_LAST;
	return LP_OK;
}

static int take_answer(struct takeover *t, const struct written *head)
{
	struct langplugin_call *call = t->call;
	int result = answer_respond(call, head->status, head->reason, head->field, head->count, head->length);

	if (result == LP_INVALID)
		return give_up(t, head->status == 101 ? "its 101 is not to what the client asked for"
						      : "its head breaks a rule of HTTP");
	t->unflushed = true;
	t->says = head->chunked ? SAYS_CHUNKS : SAYS_BODY;
	if (call->answer.no_body || head->length == 0)
		t->says = SAYS_LAST;
	else if (head->chunked)
		return unchunk(t);
	return result;
}

static int take_head(struct takeover *t)
{
	struct written *head = &t->head;
	const char *why;

	switch (written_head(head, t->out + t->at, t->end - t->at, &why)) {
	case WRITTEN_WRONG:
		return give_up(t, why);
	case WRITTEN_PARTLY:
		if (t->at > 0)
			memmove(t->out, t->out + t->at, t->end - t->at);
		t->end -= t->at;
		t->at = 0;
		return LP_AGAIN;
	case WRITTEN_WHOLE:
		break;
	}
	t->at += head->size;
	if (head->status >= 200 || head->status == 101)
		return take_answer(t, head);
	/* 100 is said by the front end when it is due. */
	if (head->status != 100 && answer_inform(t->call, head->status, head->field, head->count) == LP_INVALID)
		return give_up(t, "an interim answer breaks a rule of HTTP");
	return LP_OK;
}

/* Of content, as much as is here. */
static int take_content(struct takeover *t)
{
	struct answer *answer = &t->call->answer;
	size_t size = t->end - t->at;

	if (size > 0) {
		int result = answer_write(t->call, t->out + t->at, size, LP_NOWAIT);
		if (result == LP_AGAIN)
			return answer_flush(t->call, LP_NOWAIT) == LP_OK ? LP_OK : LP_AGAIN;
		if (result != LP_OK)
			return result;
	}
	t->at = t->end = 0;
	t->unflushed = true;
	if (t->says == SAYS_LAST || (answer->length >= 0 && answer->given >= (uint64_t)answer->length))
		return conclude(t);
	return LP_OK;
}

/* The end of what it says. */
static int take_end(struct takeover *t)
{
	if (t->says == SAYS_HEAD)
		return give_up(t, t->end > 0 ? "it ended before its head did" : "it was closed before there was any");
	if (t->says == SAYS_CHUNKS)
		return give_up(t, "it ended before its last chunk");
	if (!t->call->answer.tunnel)
		return conclude(t);
	t->says = SAYS_NOTHING;
	t->shutting = true;
	return LP_OK;
}

/* A closed end tells of itself, also where only one side was read to its end. */
static bool has_hung_up(const struct takeover *t)
{
	struct pollfd look = {t->fd, 0, 0};

	return poll(&look, 1, 0) > 0 && (look.revents & (POLLHUP | POLLERR));
}

/* Its side of a tunnel is over; what goes to it may not be. LP_AGAIN: told later. */
static int tell_shut(struct takeover *t)
{
	t->hung = t->hung || has_hung_up(t);
	if (t->hung)
		t->in_over = true;
	int result = t->in_over ? LP_OK : answer_shut(t->call, LP_NOWAIT);
	if (result != LP_AGAIN)
		t->shutting = t->unflushed = false;
	return result;
}

/* Read more of it: LP_OK; LP_AGAIN: nothing is there. */
static int hear(struct takeover *t)
{
	if (t->at == t->end)
		t->at = t->end = 0;
	ssize_t got = recv(t->fd, t->out + t->end, sizeof(t->out) - t->end, MSG_DONTWAIT);

	if (got < 0)
		return errno == EINTR ? LP_OK : errno == EAGAIN ? LP_AGAIN : take_end(t);
	if (got == 0)
		return take_end(t);
	t->end += (size_t)got;
	return t->says == SAYS_CHUNKS ? unchunk(t) : LP_OK;
}

bool takeover_out(struct takeover *t)
{
	bool moved = false;

	for (unsigned round = 0; round < ROUNDS && !t->over && t->says != SAYS_NOTHING; round++) {
		int result = LP_AGAIN;
		if (t->says == SAYS_HEAD && t->end > t->at)
			result = take_head(t);
		else if (t->says == SAYS_LAST || t->end > t->at)
			result = take_content(t);
		bool wants = t->says == SAYS_HEAD || t->end == t->at;
		if (result == LP_AGAIN && wants && !t->over)
			result = hear(t);
		if (result == LP_AGAIN)
			break;
		moved = true;
		if (result == LP_GONE)
			break;
	}
	if (t->shutting && !t->over && tell_shut(t) != LP_AGAIN)
		moved = true;
	if (!t->over && t->unflushed) {
		int result = answer_flush(t->call, LP_NOWAIT);
		if (result == LP_FAILED)
			give_up(t, "no memory");
		t->unflushed = result == LP_AGAIN;
		moved |= result == LP_OK;
	}
	return moved;
}
