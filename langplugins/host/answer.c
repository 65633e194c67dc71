/*
 * A call's answer. What respond() and small writes bring is held back until it is large enough, flushed or over, so
 * that an ordinary answer is one message. Body bytes leave only within the credit of the front end.
 */
#include <errno.h>
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
	answer->gathered = malloc(GATHER);
	return answer->head && answer->gathered ? 0 : -1;
}

void answer_close(struct answer *answer)
{
	free(answer->head);
	free(answer->gathered);
	answer->head = answer->gathered = NULL;
}

void answer_begin(struct langplugin_call *call)
{
	struct answer *answer = &call->answer;
	char *head = answer->head, *gathered = answer->gathered;
	size_t room = answer->head_room;

	memset(answer, 0, sizeof(*answer));
	answer->head = head;
	answer->gathered = gathered;
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

/* ---- sending */

/* One message, once the front end has taken what was sent before. */
static int send_message(struct langplugin_call *call, const struct iovec *parts, unsigned count, int flags)
{
	struct slot *slot = call->slot;
	int result;

	while ((result = link_send(&slot->link, call->from, parts, count)) == LP_AGAIN) {
		if (call_over(call))
			result = LP_GONE;
		else if (flags & LP_NOWAIT)
			break;
		if (result == LP_GONE)
			break;
		slot_sleep(slot, -1);
	}
	if (result == LP_GONE)
		call->answer.gone = true;
	return result;
}

/* The head says which trailers will follow, if that is known by now. */
static int announce(struct langplugin_call *call)
{
	const struct wire_response *head = (const struct wire_response *)(const void *)call->answer.head;

	if (!call->trailers.names || head->head.flags & WIRE_TRAILERS)
		return LP_OK;
	return head_announce(&call->answer, call->trailers.names, call->trailers.names_size);
}

/* Send what is gathered and `size` bytes more as one message; credit has been seen to. end: 0, WIRE_LAST, WIRE_SHUT. */
static int send_part(struct langplugin_call *call, const char *data, size_t size, unsigned end, int flags)
{
	struct answer *answer = &call->answer;
	size_t body = answer->gathered_size + size;
	bool head = answer->state == ANSWER_HELD;
	if (head && announce(call) != LP_OK)
		return LP_FAILED;
	size_t before = head ? answer->head_size : sizeof(struct wire_body);
	struct wire_body piece;
	struct iovec parts[] = {
		{head ? (void *)answer->head : (void *)&piece, before},
		{answer->gathered, answer->gathered_size},
		{(void *)(uintptr_t)data, size},
	};

	if (head) {
		struct wire_response *response = (struct wire_response *)(void *)answer->head;
		response->head.size = (uint32_t)(before + body);
		response->head.flags = (uint16_t)(end | (answer->tunnel ? WIRE_UPGRADE : 0) |
						  (call->trailers.names ? WIRE_TRAILERS : 0));
		response->body = (struct wire_span){(uint32_t)before, (uint32_t)body};
	} else {
		piece = (struct wire_body){.head = {.kind = WIRE_BODY, .size = (uint32_t)(before + body)}};
		piece.head.serial = call->head.serial;
		piece.head.request = call->head.request;
		piece.head.slot = (uint16_t)call->slot->number;
		piece.head.flags = (uint16_t)end;
		piece.offset = answer->sent;
		piece.data = (struct wire_span){(uint32_t)before, (uint32_t)body};
	}
	int result = send_message(call, parts, 3, flags);
	if (result != LP_OK)
		return result;
	answer->sent += body;
	answer->gathered_size = 0;
	answer->state = end & WIRE_LAST ? ANSWER_ENDED : ANSWER_SENT;
	return LP_OK;
}

/* The answer's last message. */
static int send_last(struct langplugin_call *call, int flags)
{
	struct answer *answer = &call->answer;
	const struct trailers *trailers = &call->trailers;
	int result;

	if (trailers->laid_count == 0)
		return send_part(call, NULL, 0, WIRE_LAST, flags);
	if ((answer->state == ANSWER_HELD || answer->gathered_size > 0) &&
		(result = send_part(call, NULL, 0, 0, flags)) != LP_OK)
		return result;
	size_t size = sizeof(struct wire_body) + trailers->laid_size;
	const struct wire_body piece = {
		.head = {.kind = WIRE_BODY,
			.size = (uint32_t)size,
			.serial = call->head.serial,
			.request = call->head.request,
			.slot = (uint16_t)call->slot->number,
			.flags = WIRE_LAST},
		.offset = answer->sent,
		.data = {(uint32_t)size, 0},
		.fields = sizeof(piece),
		.field_count = trailers->laid_count,
	};
	const struct iovec parts[] = {
		{(void *)(uintptr_t)&piece, sizeof(piece)}, {trailers->laid, trailers->laid_size}};
	result = send_message(call, parts, 2, flags);
	if (result == LP_OK)
		answer->state = ANSWER_ENDED;
	return result;
}

/* Wait until at least `size` more body bytes may leave. */
static int wait_for_credit(struct langplugin_call *call, size_t size, int flags)
{
	struct answer *answer = &call->answer;
	struct slot *slot = call->slot;

	if (answer->limit - answer->sent >= size)
		return LP_OK;
	slot_drain(slot);
	while (answer->limit - answer->sent < size) {
		if (call_over(call)) {
			answer->gone = true;
			return LP_GONE;
		}
		if (flags & LP_NOWAIT)
			return LP_AGAIN;
		call_phase(call, WIRE_WRITING);
		slot_sleep(slot, -1);
		call_phase(call, WIRE_RUNNING);
	}
	return LP_OK;
}

static int ready(struct langplugin_call *call)
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
static size_t within_length(struct langplugin_call *call, size_t size)
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

int answer_write(struct langplugin_call *call, const void *data, size_t size, int flags)
{
	struct answer *answer = &call->answer;
	const char *at = data;
	int result = ready(call);

	if (result != LP_OK)
		return result;
	size = within_length(call, size);
	if (answer->no_body || size == 0) {
		answer->given += size;
		return LP_OK;
	}
	if (answer->gathered_size + size <= GATHER) {
		memcpy(answer->gathered + answer->gathered_size, at, size);
		answer->gathered_size += size;
		answer->given += size;
		return LP_OK;
	}
	if (flags & LP_NOWAIT) {
		/* All or nothing. */
		if (answer->gathered_size + size > WIRE_PIECE)
			return LP_AGAIN;
		if ((result = wait_for_credit(call, answer->gathered_size + size, flags)) != LP_OK)
			return result;
		result = send_part(call, at, size, 0, flags);
		if (result == LP_OK)
			answer->given += size;
		return result;
	}
	answer->given += size;
	while (size > 0) {
		size_t part = WIRE_PIECE - answer->gathered_size;
		if (part > size)
			part = size;
		if ((result = wait_for_credit(call, answer->gathered_size + part, flags)) != LP_OK ||
			(result = send_part(call, at, part, 0, flags)) != LP_OK)
			return result;
		at += part;
		size -= part;
	}
	return LP_OK;
}

int answer_flush(struct langplugin_call *call, int flags)
{
	int result = ready(call);

	if (result != LP_OK)
		return result;
	if (call->answer.state == ANSWER_SENT && call->answer.gathered_size == 0)
		return LP_OK;
	if ((result = wait_for_credit(call, call->answer.gathered_size, flags)) != LP_OK)
		return result;
	return send_part(call, NULL, 0, 0, flags);
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
	return send_message(call, &(struct iovec){answer->head, answer->head_size}, 1, call->slot->nowait);
}

int answer_shut(struct langplugin_call *call, int flags)
{
	int result = ready(call);

	if (result == LP_OK)
		result = wait_for_credit(call, call->answer.gathered_size, flags);
	return result == LP_OK ? send_part(call, NULL, 0, WIRE_SHUT, flags) : result;
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

static void answer_nothing(struct langplugin_call *call)
{
	static const char text[] = "Internal Server Error\n";
	static const struct langplugin_field type = {{"Content-Type", 12}, {"text/plain", 10}};

	log_format(call, LP_ERROR, "the application ended the request without an answer");
	answer_respond(call, 500, (struct langplugin_text){"", 0}, &type, 1, (int64_t)sizeof(text) - 1);
	answer_write(call, text, sizeof(text) - 1, 0);
}

/* All that is left. LP_OK too where an event loop's thread has to leave some of it for later. */
static int send_end(struct langplugin_call *call)
{
	struct answer *answer = &call->answer;
	const int flags = call->slot->nowait;
	int result = wait_for_credit(call, answer->gathered_size, flags);

	if (result == LP_OK)
		result = send_last(call, flags);
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
	if (answer->state == ANSWER_NONE && !call_over(call))
		answer_nothing(call);
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
