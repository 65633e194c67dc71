/* A variable of a request's by the name that CGI (RFC 3875) has for it. */
#include <string.h>

#include "worker.h"

#define AT(member) offsetof(struct langplugin_request, member)
#define ROW(name, member)                                                                                              \
	{                                                                                                              \
		name, sizeof(name) - 1, AT(member)                                                                     \
	}

static const struct {
	const char *name;
	size_t size, offset;
} fixed[] = {
	ROW("REQUEST_METHOD", method),
	ROW("PATH_INFO", path_info),
	ROW("QUERY_STRING", query),
	ROW("SCRIPT_NAME", script_name),
	ROW("REQUEST_URI", target),
	ROW("SERVER_NAME", server_name),
	ROW("SERVER_PORT", server_port),
	ROW("SERVER_PROTOCOL", protocol),
	ROW("SERVER_ADDR", server_addr),
	ROW("REMOTE_ADDR", remote_addr),
	ROW("REMOTE_PORT", remote_port),
	ROW("REQUEST_SCHEME", scheme),
	ROW("REQUEST_ID", request_id),
	ROW("DOCUMENT_ROOT", document_root),
	ROW("SCRIPT_FILENAME", script_filename),
	ROW("UPGRADE", upgrade),
};

const struct langplugin_text *request_variable(struct langplugin_call *call, const char *name, size_t size)
{
	static const struct langplugin_text on = {"on", 2};
	const struct langplugin_request *request = &call->block.request;

	for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++)
		if (fixed[i].size == size && memcmp(fixed[i].name, name, size) == 0)
			return (const void *)((const char *)request + fixed[i].offset);
	for (size_t i = 0; i < request->variable_count; i++)
		if (request->variables[i].name.size == size && memcmp(request->variables[i].name.data, name, size) == 0)
			return &request->variables[i].value;
	return size == 5 && memcmp(name, "HTTPS", size) == 0 && request->scheme.size == 5 ? &on : NULL;
}
