/*
 * The PSGI environment. Keys are made once, with their hashes. A value that the last request had as well is one string
 * with it: perl copies it when somebody changes it.
 */
#include "plugin.h"

static enum manner manner_of(const char *name)
{
	/* Fields that a client, or all of them, say alike each time. */
	static const char *const steady[] = {"HTTP_HOST", "HTTP_USER_AGENT", "HTTP_ACCEPT", "HTTP_ACCEPT_ENCODING",
		"HTTP_ACCEPT_LANGUAGE", "HTTP_CONNECTION"};

	for (size_t i = 0; i < C_ARRAY_LENGTH(steady); i++)
		if (strcmp(name, steady[i]) == 0)
			return MANNER_STEADY;
	/* The body is given without its chunks: who saw this field would look for them. */
	return strcmp(name, "HTTP_TRANSFER_ENCODING") == 0 ? MANNER_DROPPED : MANNER_PLAIN;
}

static SV *shared(pTHX_ const char *text, size_t size)
{
	return newSVpvn_share(text, (I32)size, 0);
}

int environ_make(struct plugin *plugin)
{
	static const struct langplugin_text keys[KEY_COUNT] = {
#define X(name, text) {text, sizeof(text) - 1},
		PERL_KEYS(X)
#undef X
	};
	dTHXa(plugin->perl);
	const struct langplugin_host *host = plugin->host;

	for (int i = 0; i < KEY_COUNT; i++)
		plugin->keys[i] = shared(aTHX_ keys[i].data, keys[i].size);
	plugin->names = calloc(host->known_count + 1, sizeof(plugin->names[0]));
	plugin->last = calloc(REMEMBER_FIELDS + host->known_count + 1, sizeof(plugin->last[0]));
	plugin->manner = calloc(host->known_count + 1, sizeof(plugin->manner[0]));
	if (!plugin->names || !plugin->last || !plugin->manner)
		return -1;
	for (unsigned i = 1; i < host->known_count; i++) {
		plugin->names[i] = shared(aTHX_ host->known[i].data, host->known[i].size);
		plugin->manner[i] = (unsigned char)manner_of(host->known[i].data);
	}
	plugin->software = newSVpvs_share("webserver");
	plugin->empty = newSVpvs_share("");
	plugin->version = newAV();
	for (int i = 0; i < 2; i++) {
		SV *number = newSViv(1);
		SvREADONLY_on(number);
		av_push(plugin->version, number);
	}
	SvREADONLY_on((SV *)plugin->version);
	return 0;
}

static void put(pTHX_ HV *environ, SV *key, SV *value)
{
	if (!hv_store_ent(environ, key, value, SvSHARED_HASH(key)))
		SvREFCNT_dec(value);
}

static SV *same(pTHX_ SV *text)
{
	return newSVhek(SvSHARED_HEK_FROM_PV(SvPVX_const(text)));
}

static SV *text_of(pTHX_ const struct plugin *plugin, struct langplugin_text text)
{
	return text.size ? newSVpvn(text.data, text.size) : same(aTHX_ plugin->empty);
}

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10 : -1;
}

/* The target's path, decoded; with `once`, of slashes that follow each other there is one. Bytes written. */
static size_t decode(struct langplugin_text target, char *to, bool once)
{
	size_t size = 0;

	for (size_t i = 0; i < target.size && target.data[i] != '?' && target.data[i] != '#'; i++) {
		char c = target.data[i];
		if (c == '%' && i + 2 < target.size && digit(target.data[i + 1]) >= 0 &&
			digit(target.data[i + 2]) >= 0) {
			c = (char)(digit(target.data[i + 1]) << 4 | digit(target.data[i + 2]));
			i += 2;
		}
		if (!(once && c == '/' && size > 0 && to[size - 1] == '/'))
			to[size++] = c;
	}
	return size;
}

/*
 * Slashes that follow each other are one where requests are routed. PSGI applications see them as they came, unless the
 * path would then not be the one that was routed.
 */
static SV *path_info(pTHX_ const struct plugin *plugin, const struct langplugin_request *about)
{
	const struct langplugin_text target = about->target, path = about->path, script = about->script_name;

	if (target.size == 0 || target.data[0] != '/' || !memmem(target.data, target.size, "//", 2))
		return text_of(aTHX_ plugin, about->path_info);
	SV *whole = newSV(target.size + 1);
	char *at = SvPVX(whole);
	bool same_path = decode(target, at, true) == path.size && memcmp(at, path.data, path.size) == 0;
	size_t size = decode(target, at, false);
	if (!same_path || size < script.size || memcmp(at, script.data, script.size) != 0) {
		SvREFCNT_dec(whole);
		return text_of(aTHX_ plugin, about->path_info);
	}
	SV *rest = newSVpvn(at + script.size, size - script.size);
	SvREFCNT_dec(whole);
	return rest;
}

static SV *remembered(pTHX_ const struct plugin *plugin, unsigned which, struct langplugin_text text)
{
	SV *last = plugin->last[which];

	if (last && SvCUR(last) == text.size && memcmp(SvPVX_const(last), text.data, text.size) == 0)
		return same(aTHX_ last);
	SvREFCNT_dec(last);
	plugin->last[which] = shared(aTHX_ text.data, text.size);
	return same(aTHX_ plugin->last[which]);
}

static void put_fields(pTHX_ const struct plugin *plugin, HV *environ, const struct langplugin_request *about)
{
	for (size_t i = 0; i < about->variable_count; i++) {
		const struct langplugin_variable *variable = &about->variables[i];
		bool known = variable->known && variable->known < plugin->host->known_count;
		enum manner manner = known ? plugin->manner[variable->known] : MANNER_PLAIN;
		if (manner == MANNER_DROPPED)
			continue;
		SV *value = manner == MANNER_STEADY
				    ? remembered(aTHX_ plugin, REMEMBER_FIELDS + variable->known, variable->value)
				    : text_of(aTHX_ plugin, variable->value);
		if (known)
			put(aTHX_ environ, plugin->names[variable->known], value);
		else if (!hv_store(environ, variable->name.data, (I32)variable->name.size, value, 0))
			SvREFCNT_dec(value);
	}
}

static void put_request(pTHX_ const struct plugin *plugin, HV *environ, const struct langplugin_request *about)
{
	static const struct langplugin_text here = {"localhost", 9};
	enum { SERVER_NAME };
	struct {
		enum key key;
		enum remembered as;
		const struct langplugin_text *text;
	} steady[] = {
		[SERVER_NAME] = {KEY_SERVER_NAME, REMEMBER_SERVER_NAME, &about->server_name},
		{KEY_REQUEST_METHOD, REMEMBER_METHOD, &about->method},
		{KEY_SERVER_PROTOCOL, REMEMBER_PROTOCOL, &about->protocol},
		{KEY_URL_SCHEME, REMEMBER_SCHEME, &about->scheme},
		{KEY_SERVER_PORT, REMEMBER_SERVER_PORT, &about->server_port},
		{KEY_SERVER_ADDR, REMEMBER_SERVER_ADDR, &about->server_addr},
		{KEY_REMOTE_ADDR, REMEMBER_REMOTE_ADDR, &about->remote_addr},
		{KEY_SCRIPT_NAME, REMEMBER_SCRIPT_NAME, &about->script_name},
		{KEY_DOCUMENT_ROOT, REMEMBER_DOCUMENT_ROOT, &about->document_root},
	};
	SV *const *keys = plugin->keys;

	/* PSGI: never empty, not even for a client that has not said whom it wants. */
	if (about->server_name.size == 0)
		steady[SERVER_NAME].text = about->server_addr.size ? &about->server_addr : &here;
	for (size_t i = 0; i < C_ARRAY_LENGTH(steady); i++)
		put(aTHX_ environ, keys[steady[i].key], remembered(aTHX_ plugin, steady[i].as, *steady[i].text));
	put(aTHX_ environ, keys[KEY_REQUEST_URI], text_of(aTHX_ plugin, about->target));
	put(aTHX_ environ, keys[KEY_PATH_INFO], path_info(aTHX_ plugin, about));
	put(aTHX_ environ, keys[KEY_QUERY_STRING], text_of(aTHX_ plugin, about->query));
	put(aTHX_ environ, keys[KEY_REMOTE_PORT], text_of(aTHX_ plugin, about->remote_port));
	put(aTHX_ environ, keys[KEY_SERVER_SOFTWARE], same(aTHX_ plugin->software));
	put(aTHX_ environ, keys[KEY_REQUEST_ID], text_of(aTHX_ plugin, about->request_id));
	if (about->script_filename.size)
		put(aTHX_ environ, keys[KEY_SCRIPT_FILENAME], text_of(aTHX_ plugin, about->script_filename));
	if (about->scheme.size == 5)
		put(aTHX_ environ, keys[KEY_HTTPS], newSVpvs("on"));
}

/* CONTENT_LENGTH of a body whose length the client has not said. */
static void put_length(pTHX_ struct request *request, HV *environ)
{
	const struct langplugin_request *about = request->about;
	SV *key = request->plugin->keys[KEY_CONTENT_LENGTH];

	if (about->content_length < 0)
		put(aTHX_ environ, key, input_length(aTHX_ request));
	else if (about->content_length > 0 && !hv_exists_ent(environ, key, SvSHARED_HASH(key)))
		put(aTHX_ environ, key, newSViv((IV)about->content_length));
}

static SV *code(pTHX_ CV *function)
{
	return newRV_inc((SV *)function);
}

HV *environ_of(pTHX_ struct request *request)
{
	struct plugin *plugin = request->plugin;
	const struct langplugin_host *host = plugin->host;
	const struct langplugin_request *about = request->about;
	SV *const *keys = plugin->keys;
	HV *environ = newHV();
	uint64_t deadline = host->deadline(request->call);

	hv_ksplit(environ, 64);
	put_fields(aTHX_ plugin, environ, about);
	put_request(aTHX_ plugin, environ, about);
	put_length(aTHX_ request, environ);
	put(aTHX_ environ, keys[KEY_VERSION], newRV_inc((SV *)plugin->version));
	put(aTHX_ environ, keys[KEY_INPUT], input_take(aTHX_ request));
	put(aTHX_ environ, keys[KEY_ERRORS], errors_take(aTHX_ plugin));
	put(aTHX_ environ, keys[KEY_MULTITHREAD], newSViv(0));
	put(aTHX_ environ, keys[KEY_MULTIPROCESS], newSViv(host->processes > 1));
	put(aTHX_ environ, keys[KEY_RUN_ONCE], newSViv(0));
	put(aTHX_ environ, keys[KEY_NONBLOCKING], newSViv(0));
	put(aTHX_ environ, keys[KEY_STREAMING], newSViv(1));
	bool kept = about->content_length >= 0 && about->content_length <= INPUT_KEPT;
	put(aTHX_ environ, keys[KEY_BUFFERED], newSViv(kept));
	put(aTHX_ environ, keys[KEY_HARAKIRI], newSViv(1));
	put(aTHX_ environ, keys[KEY_CLEANUP], newSViv(1));
	put(aTHX_ environ, keys[KEY_CLEANUP_HANDLERS], newRV_inc((SV *)request->handlers));
	put(aTHX_ environ, keys[KEY_LOGGER], code(aTHX_ plugin->logger));
	put(aTHX_ environ, keys[KEY_INFORMATIONAL], code(aTHX_ plugin->informational));
	put(aTHX_ environ, keys[KEY_CANCELLED], code(aTHX_ plugin->cancelled));
	if (connection_offered(plugin))
		put(aTHX_ environ, keys[KEY_IO], connection_take(aTHX_ plugin));
	if (deadline)
		put(aTHX_ environ, keys[KEY_DEADLINE], newSVnv((NV)deadline / 1e9));
	return environ;
}
