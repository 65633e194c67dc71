/*
 * The Rack environment: a copy of what the slot's requests have in common, then what this one says. Strings are bytes
 * (ASCII-8BIT). What is the same for many requests is frozen, as the constants of other servers are; paths and fields
 * are not, since applications change their encoding in place.
 */
#include <ruby/encoding.h>
#include <string.h>

#include "plugin.h"

#define LONG_VALUE 24  /* what does not fit into an object of Ruby's: its memory is shared with the last request's */
#define MOST_KEPT  512 /* bytes of one field */
#define MOST_NAME  48  /* bytes of a name that is kept */

/* clang-format off */
#define KEYS(X) \
	X(REQUEST_METHOD) X(REQUEST_URI) X(SCRIPT_NAME) X(PATH_INFO) X(QUERY_STRING) X(SERVER_NAME) X(SERVER_PORT) \
	X(SERVER_PROTOCOL) X(HTTP_VERSION) X(REMOTE_ADDR) X(REMOTE_PORT) X(DOCUMENT_ROOT) X(SERVER_ADDR) X(REQUEST_SCHEME) \
	X(SCRIPT_FILENAME) X(HTTPS)
/* clang-format on */

enum key {
#define X(name) KEY_##name,
	KEYS(X)
#undef X
		KEY_URL_SCHEME,
	KEY_INPUT,
	KEY_PROTOCOL,
	KEY_HIJACK,
	KEY_EARLY_HINTS,
	KEY_AFTER_REPLY,
	KEY_RESPONSE_FINISHED,
	KEY_REQUEST_ID,
	KEY_SITE,
	KEY_CANCELLED,
	KEY_TRAILERS,
	KEY_DEADLINE,
	KEY_COUNT
};

/* Made for each request. What they have in common holds the key's number in such a place, and no other number. */
static const bool is_made[KEY_COUNT] = {
	[KEY_REQUEST_URI] = true,
	[KEY_PATH_INFO] = true,
	[KEY_QUERY_STRING] = true,
	[KEY_REMOTE_PORT] = true,
	[KEY_INPUT] = true,
	[KEY_HIJACK] = true,
	[KEY_EARLY_HINTS] = true,
	[KEY_AFTER_REPLY] = true,
	[KEY_RESPONSE_FINISHED] = true,
	[KEY_REQUEST_ID] = true,
	[KEY_CANCELLED] = true,
	[KEY_TRAILERS] = true,
	[KEY_DEADLINE] = true,
};

/* Interned, immortal: names are the language's, not a request's. */
static VALUE keys[KEY_COUNT];
static VALUE nothing; /* "" */

static VALUE interned(const char *text, size_t size)
{
	VALUE string = rb_interned_str(text, (long)size);

	rb_gc_register_mark_object(string);
	return string;
}

static void make_keys(void)
{
	static const char *const names[KEY_COUNT] = {
#define X(name) #name,
		KEYS(X)
#undef X
			"rack.url_scheme",
		"rack.input",
		"rack.protocol",
		"rack.hijack",
		"rack.early_hints",
		"rack.after_reply",
		"rack.response_finished",
		"webserver.request_id",
		"webserver.site",
		"webserver.cancelled",
		"webserver.trailers",
		"webserver.deadline",
	};
	for (int i = 0; i < KEY_COUNT; i++)
		keys[i] = interned(names[i], strlen(names[i]));
	nothing = interned("", 0);
}

static void set(VALUE hash, const char *name, VALUE value)
{
	rb_hash_aset(hash, interned(name, strlen(name)), value);
}

void environ_make(struct plugin *plugin)
{
	const struct langplugin_host *host = plugin->host;
	VALUE common = rb_hash_new();

	make_keys();
	plugin->common = common;
	set(common, "rack.version", rb_obj_freeze(rb_ary_new_from_args(2, INT2FIX(1), INT2FIX(3))));
	set(common, "rack.multithread", host->threads > 1 ? Qtrue : Qfalse);
	set(common, "rack.multiprocess", host->processes > 1 ? Qtrue : Qfalse);
	set(common, "rack.run_once", Qfalse);
	set(common, "rack.hijack?", host->take_over ? Qtrue : Qfalse);
	set(common, "rack.errors", plugin->errors);
	set(common, "SERVER_SOFTWARE", interned("webserver", 9));
	set(common, "GATEWAY_INTERFACE", interned("CGI/1.1", 7));
	/*
	 * What each request sets, for its place: a table of more than 32 has room for 64, and grows in no request but
	 * those with very many fields.
	 */
	for (int i = 0; i < KEY_COUNT; i++)
		if (i != KEY_SCRIPT_FILENAME && i != KEY_HTTPS && i != KEY_PROTOCOL &&
			(i != KEY_HIJACK || host->take_over))
			rb_hash_aset(common, keys[i], is_made[i] ? INT2FIX(i) : Qnil);
	plugin->names = ALLOC_N(VALUE, host->known_count);
	for (unsigned i = 0; i < host->known_count; i++)
		plugin->names[i] = interned(host->known[i].data, host->known[i].size);
}

VALUE environ_after_reply(VALUE env)
{
	return rb_hash_lookup(env, keys[KEY_AFTER_REPLY]);
}

VALUE environ_response_finished(VALUE env)
{
	return rb_hash_lookup(env, keys[KEY_RESPONSE_FINISHED]);
}

VALUE environ_protocol(VALUE env)
{
	return rb_hash_lookup(env, keys[KEY_PROTOCOL]);
}

static bool same(VALUE string, struct langplugin_text text)
{
	return (size_t)RSTRING_LEN(string) == text.size && memcmp(RSTRING_PTR(string), text.data, text.size) == 0;
}

static VALUE frozen(struct langplugin_text text)
{
	return text.size ? rb_obj_freeze(bytes(text)) : nothing;
}

/* Into what the slot's requests have in common, unless it is there. True: it is another one. */
static bool remember(struct thread *thread, enum remembered as, enum key key, struct langplugin_text text)
{
	VALUE last = thread->last[as];

	if (!NIL_P(last) && same(last, text))
		return false;
	thread->last[as] = frozen(text);
	rb_hash_aset(thread->common, keys[key], thread->last[as]);
	return true;
}

/* RFC 3986, section 3.3: pchar and "/". */
static const bool plain[256] = {
	['!'] = true,
	['$'] = true,
	['&' ... ';'] = true,
	['='] = true,
	['@' ... 'Z'] = true,
	['_'] = true,
	['a' ... 'z'] = true,
	['~'] = true,
};

/* Percent-encoded: what reads a path in Ruby decodes it, as SPEC lets servers pass it on. */
static VALUE encoded(struct langplugin_text path)
{
	static const char digits[] = "0123456789ABCDEF";
	size_t special = 0;

	for (size_t i = 0; i < path.size; i++)
		special += !plain[(unsigned char)path.data[i]];
	if (!special)
		return bytes(path);
	VALUE result = rb_str_new(NULL, (long)(path.size + 2 * special));
	char *to = RSTRING_PTR(result);
	for (size_t i = 0; i < path.size; i++) {
		unsigned char c = (unsigned char)path.data[i];
		if (plain[c]) {
			*to++ = (char)c;
		} else {
			*to++ = '%';
			*to++ = digits[c >> 4];
			*to++ = digits[c & 15];
		}
	}
	return result;
}

static void remember_request(struct thread *thread, const struct langplugin_request *r)
{
	remember(thread, REMEMBER_METHOD, KEY_REQUEST_METHOD, r->method);
	remember(thread, REMEMBER_SERVER_NAME, KEY_SERVER_NAME, r->server_name);
	remember(thread, REMEMBER_SERVER_PORT, KEY_SERVER_PORT, r->server_port);
	remember(thread, REMEMBER_REMOTE_ADDR, KEY_REMOTE_ADDR, r->remote_addr);
	remember(thread, REMEMBER_DOCUMENT_ROOT, KEY_DOCUMENT_ROOT, r->document_root);
	remember(thread, REMEMBER_SERVER_ADDR, KEY_SERVER_ADDR, r->server_addr);
	remember(thread, REMEMBER_SITE, KEY_SITE, r->site);
	if (remember(thread, REMEMBER_PROTOCOL, KEY_SERVER_PROTOCOL, r->protocol))
		rb_hash_aset(thread->common, keys[KEY_HTTP_VERSION], thread->last[REMEMBER_PROTOCOL]);
	if (remember(thread, REMEMBER_SCHEME, KEY_URL_SCHEME, r->scheme)) {
		rb_hash_aset(thread->common, keys[KEY_REQUEST_SCHEME], thread->last[REMEMBER_SCHEME]);
		if (r->scheme.size == 5)
			rb_hash_aset(thread->common, keys[KEY_HTTPS], rb_interned_str_cstr("on"));
		else
			rb_hash_delete(thread->common, keys[KEY_HTTPS]);
	}
	if (NIL_P(thread->last[REMEMBER_SCRIPT_NAME]) || !same(thread->last[REMEMBER_SCRIPT_NAME], r->script_name)) {
		thread->last[REMEMBER_SCRIPT_NAME] = frozen(r->script_name);
		rb_hash_aset(thread->common, keys[KEY_SCRIPT_NAME], rb_obj_freeze(encoded(r->script_name)));
	}
}

struct filling {
	VALUE env;
	const VALUE *made; /* by key */
};

static int is_place(st_data_t key, st_data_t value, st_data_t filling, int error)
{
	(void)key;
	(void)filling;
	(void)error;
	return RB_FIXNUM_P((VALUE)value) ? ST_REPLACE : ST_CONTINUE;
}

static int fill_place(st_data_t *key, st_data_t *value, st_data_t argument, int existing)
{
	const struct filling *filling = (const struct filling *)argument;
	VALUE made = filling->made[FIX2INT((VALUE)*value)];

	(void)key;
	(void)existing;
	RB_OBJ_WRITTEN(filling->env, Qundef, made);
	*value = made;
	return ST_CONTINUE;
}

/* All of a request's own in one pass over the table: setting each by its name would hash the name each time. */
static void put_request(struct thread *thread, VALUE env, const struct langplugin_request *r)
{
	uint64_t deadline = thread->host->deadline(thread->call);
	const VALUE made[KEY_COUNT] = {
		[KEY_REQUEST_URI] = bytes(r->target),
		[KEY_PATH_INFO] = encoded(r->path_info),
		[KEY_QUERY_STRING] = r->query.size ? bytes(r->query) : nothing,
		[KEY_REMOTE_PORT] = bytes(r->remote_port),
		[KEY_INPUT] = input_of(thread),
		[KEY_HIJACK] = thread->host->take_over ? callable_hijack(thread) : Qnil,
		[KEY_EARLY_HINTS] = callable_early_hints(thread),
		[KEY_AFTER_REPLY] = rb_ary_new(),
		[KEY_RESPONSE_FINISHED] = rb_ary_new(),
		[KEY_REQUEST_ID] = bytes(r->request_id),
		[KEY_CANCELLED] = callable_cancelled(thread),
		[KEY_TRAILERS] = callable_trailers(thread),
		[KEY_DEADLINE] = deadline ? DBL2NUM((double)deadline / 1e9) : Qnil,
	};
	struct filling filling = {env, made};

	st_foreach_with_replace(RHASH_TBL(env), is_place, fill_place, (st_data_t)&filling);
	if (r->script_filename.size)
		rb_hash_aset(env, keys[KEY_SCRIPT_FILENAME], bytes(r->script_filename));
	if (r->upgrade.size) {
		VALUE upgrade = bytes(r->upgrade);
		rb_hash_aset(env, keys[KEY_PROTOCOL], load_call(thread->plugin, "protocols", 1, &upgrade));
	}
}

/* Names that the host has no number for are those of the last requests, mostly. */
static VALUE name_of(struct thread *thread, struct langplugin_text name)
{
	if (name.size > MOST_NAME)
		return rb_obj_freeze(rb_usascii_str_new(name.data, (long)name.size));
	size_t sum = name.size;
	for (size_t i = 0; i < name.size; i++)
		sum = sum * 31 + (unsigned char)name.data[i];
	VALUE *place = &thread->names[sum % NAMES];
	if (NIL_P(*place) || !same(*place, name))
		*place = rb_obj_freeze(rb_usascii_str_new(name.data, (long)name.size));
	return *place;
}

/* A long value is often that of the last request: its bytes are shared then, until somebody changes them. */
static VALUE known_value(struct thread *thread, const struct langplugin_variable *v)
{
	VALUE last = thread->seen[v->known];

	if (v->value.size < LONG_VALUE || v->value.size > MOST_KEPT)
		return bytes(v->value);
	if (NIL_P(last) || !same(last, v->value))
		last = thread->seen[v->known] = rb_obj_freeze(bytes(v->value));
	return rb_str_dup(last);
}

/* A field "Version" of the client's has the name of ours. */
static bool is_version(struct langplugin_text name)
{
	return name.size == 12 && memcmp(name.data, "HTTP_VERSION", 12) == 0;
}

static void put_fields(struct thread *thread, VALUE env, const struct langplugin_request *r)
{
	for (size_t i = 0; i < r->variable_count; i++) {
		const struct langplugin_variable *v = &r->variables[i];
		if (v->known && v->known < thread->host->known_count)
			rb_hash_aset(env, thread->plugin->names[v->known], known_value(thread, v));
		else if (!is_version(v->name))
			rb_hash_aset(env, name_of(thread, v->name), bytes(v->value));
	}
}

VALUE environ_of(struct thread *thread)
{
	const struct langplugin_request *request = thread->host->request(thread->call);

	remember_request(thread, request);
	VALUE env = rb_hash_dup(thread->common);
	put_request(thread, env, request);
	put_fields(thread, env, request);
	return env;
}
