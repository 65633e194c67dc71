/* A request that has become a tunnel: its two bodies are what each side says. See wire.h. */
#include "http.h"
#include "worker.h"

/* The one protocol that an answer changes to; a NULL pointer if it does not say one. */
static struct langplugin_text protocol_of(const struct langplugin_field *fields, size_t count)
{
	struct langplugin_text found = {NULL, 0};

	for (size_t i = 0; i < count; i++) {
		if (!wire_is_word(fields[i].name.data, fields[i].name.size, "upgrade"))
			continue;
		if (found.data)
			return (struct langplugin_text){NULL, 0};
		found = fields[i].value;
	}
	return found;
}

bool tunnel_offered(const struct langplugin_call *call, const struct langplugin_field *fields, size_t count)
{
	struct langplugin_text offered = call->block.request.upgrade, protocol = protocol_of(fields, count);

	return offered.size > 0 && call->body.whole && call->body.received == 0 && protocol.data &&
	       wire_offers_protocol(offered.data, offered.size, protocol.data, protocol.size);
}

int tunnel_begin(struct langplugin_call *call)
{
	call->answer.tunnel = true;
	body_tunnel(call);
	/* It may last as long as it likes. */
	__atomic_store_n(&call->block.deadline_ns, 0, __ATOMIC_RELAXED);
	call_phase(call, WIRE_TUNNEL);
	/* An event loop's goes when there is room: see tunnel_waits. */
	int result = answer_flush(call, call->slot->nowait);
	return result == LP_AGAIN ? LP_OK : result;
}
