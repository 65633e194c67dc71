/*
 * A call's answer. What respond() and small writes bring is held back until it is large enough, flushed or over, so
 * that an ordinary answer is one message. Body bytes leave only within the credit of the front end.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "worker.h"

int answer_open(struct answer *answer)
{
	memset(answer, 0, sizeof(*answer));
	answer->head_room = 4096;
	answer->head = malloc(answer->head_room);
	answer->own = malloc(GATHER);
	return answer->head && answer->own ? 0 : -1;
}

void answer_close(struct answer *answer)
{
	free(answer->head);
	free(answer->own);
	answer->head = answer->gathered = answer->own = NULL;
}

void answer_begin(struct langplugin_call *call)
{
	struct answer *answer = &call->answer;
	char *head = answer->head, *own = answer->own;
	size_t room = answer->head_room;

	memset(answer, 0, sizeof(*answer));
	answer->head = head;
	answer->gathered = answer->own = own;
	answer->loan = -1;
	answer->head_room = room;
	answer->length = -1;
	answer->limit = call->block.response_window;
}

int answer_respond(struct langplugin_call *call, int status, struct langplugin_text reason,
	const struct langplugin_field *fields, size_t count, int64_t content_length)
{
	struct answer *answer = &call->answer;
	bool tunnel = status == 101;

	if (answer->state != ANSWER_NONE || (status < 200 && !tunnel) || status > 999 ||
		(tunnel && !tunnel_offered(call, fields, count)))
		return LP_INVALID;
	int64_t length = content_length;
	int result = head_lay_out(call, WIRE_RESPONSE, status, reason, fields, count, &length);
	if (result != LP_OK || (tunnel && length >= 0))
		return result != LP_OK ? result : LP_INVALID;
	answer->state = ANSWER_HELD;
	answer->status = (uint16_t)status;
	answer->length = length;
	answer->no_body = (call->head.flags & WIRE_HEAD) != 0 || status == 204 || status == 304;
	if (tunnel)
		return tunnel_begin(call);
	return call_over(call) ? LP_GONE : LP_OK;
}

int answer_unrespond(struct langplugin_call *call)
{
	struct answer *answer = &call->answer;

	if (answer->state != ANSWER_HELD || answer->tunnel)
		return LP_INVALID;
	trailers_end(call);
	answer->state = ANSWER_NONE;
	answer->given = answer->gathered_size = 0;
	answer->length = -1;
	return LP_OK;
}

/* ---- its body */

int answer_ready(struct langplugin_call *call)
{
	struct answer *answer = &call->answer;

	if (answer->state == ANSWER_NONE || answer->state == ANSWER_ENDED || answer->aborted || answer->ending)
		return LP_INVALID;
	if (answer->gone || call_over(call)) {
		answer->gone = true;
		return LP_GONE;
	}
	return LP_OK;
}

/* Of size bytes, those that the declared length leaves room for. */
size_t answer_within_length(struct langplugin_call *call, size_t size)
{
	struct answer *answer = &call->answer;

	if (answer->length < 0 || answer->given + size <= (uint64_t)answer->length)
		return size;
	if (!answer->told_surplus && !answer->no_body)
		log_format(call, LP_ERROR, "the answer is longer than its Content-Length of %lld; the rest is cut off",
			(long long)answer->length);
	answer->told_surplus = true;
	return (size_t)((uint64_t)answer->length - answer->given);
}

/* size bytes behind what is gathered, as one message; or none of them has been taken. */
static int send_more(struct langplugin_call *call, const char *data, size_t size, int flags)
{
	struct answer *answer = &call->answer;

	if (!loan_gather(call, size))
		return part_send(call, data, size, 0, flags);
	size_t before = answer->gathered_size;
	memcpy(answer->gathered + before, data, size);
	answer->gathered_size += size;
	int result = part_send(call, NULL, 0, 0, flags);
	if (result != LP_OK)
		answer->gathered_size = before;
	return result;
}

int answer_write(struct langplugin_call *call, const void *data, size_t size, int flags)
{
	struct answer *answer = &call->answer;
	const char *at = data;
	int result = answer_ready(call);

	if (result != LP_OK)
		return result;
	size = answer_within_length(call, size);
	if (answer->no_body || size == 0) {
		answer->given += size;
		return LP_OK;
	}
	if (answer->gathered_size + size <= GATHER) {
		if (size >= LENT_FROM)
			loan_gather(call, size);
		memcpy(answer->gathered + answer->gathered_size, at, size);
		answer->gathered_size += size;
		answer->given += size;
		return LP_OK;
	}
	if (flags & LP_NOWAIT) {
		/* All or nothing. */
		if (answer->gathered_size + size > WIRE_PIECE)
			return LP_AGAIN;
		if ((result = part_wait(call, answer->gathered_size + size, flags)) != LP_OK)
			return result;
		result = send_more(call, at, size, flags);
		if (result == LP_OK)
			answer->given += size;
		return result;
	}
	answer->given += size;
	while (size > 0) {
		size_t part = WIRE_PIECE - answer->gathered_size;
		if (part > size)
			part = size;
		if ((result = part_wait(call, answer->gathered_size + part, flags)) != LP_OK ||
			(result = send_more(call, at, part, flags)) != LP_OK) {
			if (result == LP_AGAIN)
				answer->given -= size;
			return result;
		}
		at += part;
		size -= part;
		flags |= GOES_ON;
	}
	return LP_OK;
}

int answer_flush(struct langplugin_call *call, int flags)
{
	int result = answer_ready(call);

	if (result != LP_OK)
		return result;
	if (call->answer.state == ANSWER_SENT && call->answer.gathered_size == 0)
		return LP_OK;
	if ((result = part_wait(call, call->answer.gathered_size, flags)) != LP_OK)
		return result;
	return part_send(call, NULL, 0, 0, flags);
}

int answer_send_piece(struct langplugin_call *call, int fd, int64_t offset, size_t size, bool *torn)
{
	const struct tail tail = {fd, offset, size, torn};
	int result = part_wait(call, call->answer.gathered_size + size, GOES_ON);

	return result == LP_OK ? part_send_with(call, NULL, 0, &tail, 0, GOES_ON) : result;
}

int answer_inform(struct langplugin_call *call, int status, const struct langplugin_field *fields, size_t count)
{
	struct answer *answer = &call->answer;
	static const struct langplugin_text none = {"", 0};

	if (answer->state != ANSWER_NONE || status < 102 || status > 199)
		return LP_INVALID;
	if (call_over(call))
		return LP_GONE;
	int result = head_lay_out(call, WIRE_INFORM, status, none, fields, count, NULL);
	if (result != LP_OK)
		return result;
	((struct wire_response *)(void *)answer->head)->head.size = (uint32_t)answer->head_size;
	call->spoke = true;
	return part_message(call, &(struct iovec){answer->head, answer->head_size}, 1, NULL, call->slot->nowait);
}

int answer_shut(struct langplugin_call *call, int flags)
{
	int result = answer_ready(call);

	if (result == LP_OK)
		result = part_wait(call, call->answer.gathered_size, flags);
	return result == LP_OK ? part_send(call, NULL, 0, WIRE_SHUT, flags) : result;
}

static void send_abort(struct langplugin_call *call)
{
	link_say_head(&call->slot->link, call->from, WIRE_ABORT, call->head.serial, call->head.request,
		call->slot->number, 0);
	call->answer.state = ANSWER_ENDED;
}

void answer_abort(struct langplugin_call *call)
{
	if (call->answer.state == ANSWER_ENDED)
		return;
	call->answer.aborted = true;
	send_abort(call);
}

void answer_fail(struct langplugin_call *call, int status)
{
	static const struct langplugin_field type = {{"Content-Type", 12}, {"text/plain; charset=utf-8", 25}};
	const char *text = status == 403 ? "Forbidden\n" : status == 404 ? "Not Found\n" : "Internal Server Error\n";
	size_t size = strlen(text);

	if (call->answer.state != ANSWER_NONE && answer_unrespond(call) != LP_OK) {
		answer_abort(call);
		return;
	}
	answer_respond(call, status, (struct langplugin_text){"", 0}, &type, 1, (int64_t)size);
	answer_write(call, text, size, 0);
}

/* All that is left. LP_OK too where an event loop's thread has to leave some of it for later. */
static int send_end(struct langplugin_call *call)
{
	struct answer *answer = &call->answer;
	const int flags = call->slot->nowait | GOES_ON;
	int result = part_wait(call, answer->gathered_size, flags);

	if (result == LP_OK)
		result = part_send_last(call, flags);
	answer->ending = result == LP_AGAIN;
	if (answer->ending)
		return LP_OK;
	if (result != LP_OK && answer->state != ANSWER_ENDED)
		send_abort(call);
	return result;
}

int answer_end(struct langplugin_call *call)
{
	struct answer *answer = &call->answer;

	if (answer->state == ANSWER_ENDED || answer->ending)
		return LP_INVALID;
	if (answer->state == ANSWER_NONE && !call_over(call)) {
		log_format(call, LP_ERROR, "the application ended the request without an answer");
		answer_fail(call, 500);
	}
	if (answer->gone || call_over(call)) {
		/* The front end wants to know when the slot is free; nobody reads the answer. */
		send_abort(call);
		return LP_GONE;
	}
	if (answer->length >= 0 && answer->given < (uint64_t)answer->length && !answer->no_body) {
		log_format(call, LP_ERROR, "the answer ended after %llu of the %lld bytes of its Content-Length",
			(unsigned long long)answer->given, (long long)answer->length);
		answer->aborted = true;
		send_abort(call);
		return LP_INVALID;
	}
	return send_end(call);
}

void answer_go_on(struct langplugin_call *call)
{
	if (call->answer.ending)
		send_end(call);
	else if (tunnel_waits(call))
		answer_flush(call, LP_NOWAIT);
}

void answer_conclude(struct langplugin_call *call)
{
	if (call->answer.state != ANSWER_ENDED)
		answer_end(call);
}
