/* block.h - a request's flat block, checked and laid out as the plugin sees it. Pure: no descriptor. */
#ifndef WEBSERVER_HOST_BLOCK_H
#define WEBSERVER_HOST_BLOCK_H

#include <stdbool.h>

#include "fields.h"
#include "host.h"

struct block {
	struct langplugin_request request;
	struct wire_span first_body; /* within the message */
	uint32_t trailers;	     /* struct wire_field[trailer_count] within the message, checked */
	uint32_t trailer_count;
	uint64_t response_window;
	uint64_t deadline_ns;
	char *memory; /* what the texts, fields and variables lie in; kept from request to request */
	size_t capacity;
};

/* CGI names by enum wire_known. */
extern const struct langplugin_text block_known[WIRE_KNOWN_COUNT];

/* False: the message breaks a rule of wire.h, or there is no memory. message is 8-aligned. */
bool block_read(struct block *block, const void *message, size_t size);
void block_free(struct block *block);

#endif
