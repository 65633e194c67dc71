/* A call's request body: the bytes that came with its head, then pieces within the window that is granted here. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "worker.h"

void body_begin(struct langplugin_call *call, struct entry *entry)
{
	struct body *body = &call->body;

	memset(body, 0, sizeof(*body));
	body->data = call->message->data + call->block.first_body.at;
	body->left = body->received = call->block.first_body.size;
	body->whole = (call->head.flags & WIRE_LAST) != 0;
	body->granted = call->head.flags & WIRE_EXPECT ? 0 : WIRE_BODY_WINDOW;
	for (struct piece *piece = entry->first; piece; piece = piece->next) {
		body->received += piece->data.size;
		body->whole |= piece->last;
	}
	body->first = entry->first;
	body->final = entry->final;
}

struct piece *body_piece(struct message *message, uint64_t expected)
{
	struct wire_body head;
	struct piece *piece = NULL;

	if (message->size >= sizeof(head)) {
		memcpy(&head, message->data, sizeof(head));
		if (wire_span_ok(head.data, message->size) && head.offset == expected &&
			wire_fields_ok(message->data, message->size, head.fields, head.field_count))
			piece = malloc(sizeof(*piece));
	}
	if (!piece) {
		message_free(message);
		return NULL;
	}
	piece->message = message;
	piece->next = NULL;
	piece->data = head.data;
	piece->last = (head.head.flags & WIRE_LAST) != 0;
	piece->trailers = head.fields;
	piece->trailer_count = piece->last ? head.field_count : 0;
	return piece;
}

void body_take(struct langplugin_call *call, struct message *message)
{
	struct body *body = &call->body;
	struct piece *piece = body_piece(message, body->received);

	if (!piece) {
		/* A gap would be filled with nothing: better no request than a wrong one. */
		atomic_store(&call->cancelled, 1);
		call->slot->worker->page->protocol_errors++;
		return;
	}
	body->received += piece->data.size;
	body->whole |= piece->last;
	piece_add(&body->first, &body->final, piece);
}

/* Make the next piece the current part. */
static bool advance(struct body *body)
{
	while (body->left == 0) {
		struct piece *piece = body->first;
		if (body->spare) {
			message_free(body->spare->message);
			free(body->spare);
			body->spare = NULL;
		}
		if (!piece)
			return false;
		body->first = piece->next;
		if (!body->first)
			body->final = NULL;
		if (piece->trailer_count > 0)
			body->tail = piece;
		else
			body->spare = piece; /* its bytes are being read */
		piece->next = NULL;
		body->data = piece->message->data + piece->data.at;
		body->left = piece->data.size;
	}
	return true;
}

static void grant(struct langplugin_call *call)
{
	struct body *body = &call->body;
	struct wire_credit credit = {.head = {.kind = WIRE_CREDIT, .size = sizeof(credit)}};

	/* What lets the rest come has been said already, where its length is known. */
	if (body->whole || body->granted >= body->consumed + WIRE_BODY_WINDOW / 2 ||
		(call->block.request.content_length >= 0 && !call->answer.tunnel &&
			body->granted >= (uint64_t)call->block.request.content_length))
		return;
	credit.head.serial = call->head.serial;
	credit.head.request = call->head.request;
	credit.head.slot = (uint16_t)call->slot->number;
	credit.limit = body->consumed + WIRE_BODY_WINDOW;
	call->spoke = true;
	if (link_say(&call->slot->link, call->from, &credit, sizeof(credit)) == LP_OK)
		body->granted = credit.limit;
}

ssize_t body_read(struct langplugin_call *call, void *buffer, size_t size, int flags)
{
	struct body *body = &call->body;
	struct slot *slot = call->slot;

	if (call->answer.state == ANSWER_ENDED || call->answer.ending)
		return LP_INVALID;
	if (size == 0)
		return 0;
	while (!advance(body)) {
		if (body->whole)
			return 0;
		if (call_over(call))
			return LP_GONE;
		grant(call);
		slot->wants_body = true;
		slot_drain(slot);
		slot->wants_body = false;
		if (body->first)
			continue;
		if (body->whole)
			return 0;
		if (flags & LP_NOWAIT || call_interrupted(call))
			return LP_AGAIN;
		/* Again: what has just been taken in may have been the cancel, and with it what would end the sleep. */
		if (call_over(call))
			return LP_GONE;
		call_phase(call, WIRE_READING);
		slot->wants_body = true;
		slot_sleep(slot, -1);
		slot->wants_body = false;
		call_phase(call, WIRE_RUNNING);
	}
	if (size > body->left)
		size = body->left;
	memcpy(buffer, body->data, size);
	body->data += size;
	body->left -= size;
	body->consumed += size;
	grant(call);
	return (ssize_t)size;
}

void body_end(struct langplugin_call *call)
{
	pieces_free(call->body.first);
	pieces_free(call->body.spare);
	pieces_free(call->body.tail);
	call->body.first = call->body.final = call->body.spare = call->body.tail = NULL;
}

void body_tunnel(struct langplugin_call *call)
{
	body_end(call);
	memset(&call->body, 0, sizeof(call->body));
	call->body.granted = WIRE_BODY_WINDOW;
}
