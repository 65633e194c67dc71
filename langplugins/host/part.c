/*
 * The messages that an answer leaves in: its head with the first bytes, pieces within the front end's credit, the last
 * one with what follows the body.
 */
#include "worker.h"

int part_message(
	struct langplugin_call *call, const struct iovec *parts, unsigned count, const struct tail *tail, int flags)
{
	struct slot *slot = call->slot;
	struct link *link = &slot->link;
	int result;

	while ((result = tail ? link_send_file(
					link, call->from, parts, count, tail->fd, tail->offset, tail->size, tail->torn)
			      : link_send(link, call->from, parts, count)) == LP_AGAIN) {
		if (call_over(call))
			result = LP_GONE;
		else if (flags & LP_NOWAIT || (!(flags & GOES_ON) && call_interrupted(call)))
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

int part_send_with(
	struct langplugin_call *call, const char *data, size_t size, const struct tail *tail, unsigned end, int flags)
{
	struct answer *answer = &call->answer;
	size_t body = answer->gathered_size + (tail ? tail->size : size);
	bool head = answer->state == ANSWER_HELD, lent = answer->loan >= 0 && answer->gathered_size > 0;
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
		piece = (struct wire_body){.head = {.kind = WIRE_BODY, .size = (uint32_t)(before + (lent ? 0 : body))}};
		piece.head.serial = call->head.serial;
		piece.head.request = call->head.request;
		piece.head.slot = (uint16_t)call->slot->number;
		piece.head.flags = (uint16_t)(end | (lent ? WIRE_LENT : 0));
		piece.offset = answer->sent;
		piece.data = (struct wire_span){(uint32_t)(lent ? answer->loan : (int)before), (uint32_t)body};
	}
	if (lent)
		loan_lend(call);
	int result = head && end & WIRE_LAST && !tail ? loan_post(call, parts, 3, before + body) : LP_AGAIN;
	if (result == LP_GONE)
		answer->gone = true;
	if (result == LP_AGAIN)
		result = part_message(call, parts, lent ? 1 : tail ? 2 : 3, tail, flags);
	if (result != LP_OK && lent)
		loan_keep(call);
	if (result != LP_OK)
		return result;
	if (lent)
		loan_gone(call);
	answer->sent += body;
	answer->gathered_size = 0;
	answer->state = end & WIRE_LAST ? ANSWER_ENDED : ANSWER_SENT;
	return LP_OK;
}

int part_send(struct langplugin_call *call, const char *data, size_t size, unsigned end, int flags)
{
	return part_send_with(call, data, size, NULL, end, flags);
}

int part_send_last(struct langplugin_call *call, int flags)
{
	struct answer *answer = &call->answer;
	const struct trailers *trailers = &call->trailers;
	int result;

	if (trailers->laid_count == 0)
		return part_send(call, NULL, 0, WIRE_LAST, flags);
	if ((answer->state == ANSWER_HELD || answer->gathered_size > 0) &&
		(result = part_send(call, NULL, 0, 0, flags)) != LP_OK)
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
	result = part_message(call, parts, 2, NULL, flags);
	if (result == LP_OK)
		answer->state = ANSWER_ENDED;
	return result;
}

int part_wait(struct langplugin_call *call, size_t size, int flags)
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
		if (flags & LP_NOWAIT || (!(flags & GOES_ON) && call_interrupted(call)))
			return LP_AGAIN;
		call_phase(call, WIRE_WRITING);
		slot_sleep(slot, -1);
		call_phase(call, WIRE_RUNNING);
	}
	return LP_OK;
}
