/*
 * Status, headers, and a body that is an array. What breaks PSGI's rules dies here, with the text that its author
 * needs: in the code that called the responder if the answer was delayed, else as the request's own exception.
 */
#include "plugin.h"

static const struct langplugin_text no_reason = {"", 0};

void answer_die(pTHX_ const struct request *request, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	SV *text = sv_2mortal(vnewSVpvf(format, &arguments));
	va_end(arguments);
	/* Where none of the application's lines is running, perl would name one of ours. */
	if (PL_curcop == request->cop)
		sv_catpvs(text, "\n");
	croak_sv(mess_sv(text, 1));
}

struct langplugin_text answer_bytes(pTHX_ const struct request *request, SV *value, const char *what)
{
	STRLEN size;
	const char *data = SvPV(value, size);

	if (SvUTF8(value)) {
		SV *copy = newSVpvn_flags(data, size, SVf_UTF8 | SVs_TEMP);
		if (!sv_utf8_downgrade(copy, TRUE))
			answer_die(aTHX_ request,
				"Wide character in %s: bytes are expected, encoded by the application", what);
		data = SvPV_nomg(copy, size);
	}
	return (struct langplugin_text){data, size};
}

static bool named(struct langplugin_text name, const char *word, size_t size)
{
	return name.size == size && foldEQ(name.data, word, (I32)size);
}

/* Every PSGI server has its own way with the connection, and what applications say of it is a wish. */
static bool is_wish(struct langplugin_text name)
{
	return named(name, "connection", 10) || named(name, "keep-alive", 10) || named(name, "proxy-connection", 16);
}

size_t answer_fields(pTHX_ const struct request *request, AV *array, struct langplugin_field small[ANSWER_FIELDS],
	struct langplugin_field **fields)
{
	SSize_t count = (SSize_t)av_count(array);
	size_t made = 0;

	if (count % 2)
		answer_die(aTHX_ request,
			"the headers must be pairs of a name and a value, and their array has %ld elements",
			(long)count);
	*fields = small;
	if (count / 2 > ANSWER_FIELDS)
		*fields = (struct langplugin_field *)(void *)SvPVX(
			sv_2mortal(newSV((STRLEN)(count / 2) * sizeof(**fields))));
	for (SSize_t i = 0; i < count; i += 2) {
		SV **name = av_fetch(array, i, 0), **value = av_fetch(array, i + 1, 0);
		struct langplugin_field *field = &(*fields)[made];
		if (!name)
			answer_die(aTHX_ request, "the name of a header is undef");
		field->name = answer_bytes(aTHX_ request, *name, "the name of a header");
		SvGETMAGIC(*name);
		if (!value || !(SvGMAGICAL(*value) || SvOK(*value)))
			field->value = (struct langplugin_text){"", 0};
		else
			field->value = answer_bytes(aTHX_ request, *value, field->name.data);
		made += !is_wish(field->name);
	}
	return made;
}

const char *answer_objection(const struct langplugin_field *fields, size_t count, const struct langplugin_field **bad)
{
	for (size_t i = 0; i < count; i++) {
		const struct langplugin_text name = fields[i].name, value = fields[i].value;
		*bad = &fields[i];
		if (named(name, "transfer-encoding", 17) || named(name, "upgrade", 7) || named(name, "te", 2) ||
			named(name, "trailer", 7))
			return "belongs to the connection, which is the server's";
		for (size_t k = 0; k < value.size; k++)
			if (((unsigned char)value.data[k] < 0x20 && value.data[k] != '\t') || value.data[k] == 0x7f)
				return "has a control character in its value";
		if (name.size == 0 || strcspn(name.data, " \t\r\n:\"(),/;<=>?@[\\]{}") < name.size)
			return "has a name that is none";
	}
	*bad = NULL;
	return NULL;
}

/* -1: not a length, which is for the host to say. */
static int64_t number_of(struct langplugin_text text)
{
	int64_t number = 0;

	for (size_t i = 0; i < text.size; i++) {
		if (!isDIGIT(text.data[i]) || i > 17)
			return -1;
		number = number * 10 + (text.data[i] - '0');
	}
	return text.size ? number : -1;
}

static int status_of(pTHX_ const struct request *request, AV *answer)
{
	SV **status = av_fetch(answer, 0, 0);
	IV number = status ? SvIV(*status) : 0;

	if (number < 200 || number > 999)
		answer_die(aTHX_ request, "\"%s\" is not the status of an answer",
			status && SvOK(*status) ? SvPV_nolen(*status) : "undef");
	return (int)number;
}

static AV *array_of(SV **value)
{
	return value && SvROK(*value) && SvTYPE(SvRV(*value)) == SVt_PVAV ? (AV *)SvRV(*value) : NULL;
}

/* length -1: not known. */
static void send_head(pTHX_ struct request *request, AV *answer, int64_t length)
{
	const struct langplugin_host *host = request->plugin->host;
	struct langplugin_field small[ANSWER_FIELDS], *fields;
	const struct langplugin_field *bad;
	AV *headers = array_of(av_fetch(answer, 1, 0));
	int status = status_of(aTHX_ request, answer);

	if (!headers)
		answer_die(aTHX_ request, "the headers must be an array reference");
	size_t count = answer_fields(aTHX_ request, headers, small, &fields), kept = 0;
	request->left = length;
	for (size_t i = 0; i < count; i++) {
		if (named(fields[i].name, "transfer-encoding", 17) && named(fields[i].value, "chunked", 7)) {
			request->decoder = dechunk_begin(&request->decoding);
			continue;
		}
		/* Its own word counts more than our sum. */
		if (named(fields[i].name, "content-length", 14)) {
			request->left = number_of(fields[i].value);
			length = -1;
		}
		fields[kept++] = fields[i];
	}
	if (request->decoder)
		request->left = length = -1;
	int result = host->respond(request->call, status, no_reason, fields, kept, length);
	if (result == LP_INVALID) {
		const char *why = answer_objection(fields, kept, &bad);
		if (bad)
			answer_die(aTHX_ request, "the header \"%.*s\" %s", (int)bad->name.size, bad->name.data, why);
		answer_die(aTHX_ request, "the answer's status and headers are not valid");
	}
	request->answered = request->begun = true;
	request->gone = result == LP_GONE;
	request->bodiless = status == 204 || status == 304 || request->about->head;
	if (request->bodiless)
		request->left = -1;
}

/* The length of all parts; -1: they are chunked. Dies before anything is sent if one of them cannot be. */
static int64_t length_of(pTHX_ const struct request *request, AV *parts)
{
	int64_t length = 0;

	for (SSize_t i = 0, count = (SSize_t)av_count(parts); i < count; i++) {
		SV **part = av_fetch(parts, i, 0);
		if (part && SvOK(*part))
			length += (int64_t)answer_bytes(aTHX_ request, *part, "the body").size;
	}
	return length;
}

static void send_parts(pTHX_ struct request *request, AV *parts)
{
	for (SSize_t i = 0; i < (SSize_t)av_count(parts) && !request->bodiless; i++) {
		SV **part = av_fetch(parts, i, 0);
		if (part && SvOK(*part) &&
			!answer_write(aTHX_ request, answer_bytes(aTHX_ request, *part, "the body"), false))
			break;
	}
	answer_end(aTHX_ request);
}

/* The last byte of a Content-Length goes out with the end of the answer, in one message, and before the application is
   asked for more: what it does then keeps no client waiting. */
static bool write_last(struct request *request, struct langplugin_text bytes)
{
	const struct langplugin_host *host = request->plugin->host;

	int result = host->write(request->call, bytes.data, bytes.size, 0);

	if (result == LP_OK)
		result = host->end(request->call);
	request->left = 0;
	request->ended = true;
	request->gone = result != LP_OK;
	return !request->gone;
}

/* The whole Content-Length has been sent, and there is more. */
static bool surplus(struct request *request)
{
	static const char text[] = "the answer is longer than its Content-Length; the rest is cut off";

	if (!request->surplus)
		request->plugin->host->log(request->call, LP_ERROR, text, sizeof(text) - 1);
	request->surplus = true;
	return false;
}

static struct langplugin_text decoded(pTHX_ struct request *request, struct langplugin_text bytes, bool *last)
{
	char *copy = SvPVX(newSVpvn_flags(bytes.data, bytes.size, SVs_TEMP));
	ssize_t size = dechunk(request->decoder, copy, bytes.size, last);

	if (size < 0)
		answer_die(aTHX_ request, "the answer's Transfer-Encoding is chunked, and its body is not");
	return (struct langplugin_text){copy, (size_t)size};
}

bool answer_write(pTHX_ struct request *request, struct langplugin_text bytes, bool flush)
{
	const struct langplugin_host *host = request->plugin->host;
	bool last = false;

	if (request->gone)
		return false;
	if (request->ended)
		return bytes.size ? surplus(request) : true;
	if (request->decoder && bytes.size)
		bytes = decoded(aTHX_ request, bytes, &last);
	if (flush && bytes.size && request->left == (int64_t)bytes.size)
		return write_last(request, bytes);
	int result = bytes.size ? host->write(request->call, bytes.data, bytes.size, 0) : LP_OK;
	if (request->left >= 0)
		request->left = request->left > (int64_t)bytes.size ? request->left - (int64_t)bytes.size : 0;
	if (last) {
		answer_end(aTHX_ request);
		return false;
	}
	if (result == LP_OK && flush && bytes.size)
		result = host->flush(request->call, 0);
	request->gone = result != LP_OK;
	return !request->gone;
}

void answer_end(pTHX_ struct request *request)
{
	if (request->ended)
		return;
	if (request->decoder && !dechunk_over(request->decoder) && !request->gone && !request->bodiless)
		answer_die(aTHX_ request, "the answer's last chunk is missing");
	request->ended = true;
	request->plugin->host->end(request->call);
}

SV *answer_send(pTHX_ struct request *request, SV *value, bool delayed)
{
	AV *answer = array_of(&value);

	if (!answer)
		answer_die(aTHX_ request,
			"the application returned %s, expected an array of status, headers and body%s",
			!SvOK(value)   ? "undef"
			: SvROK(value) ? sv_reftype(SvRV(value), 1)
				       : "what is no reference",
			delayed ? "" : ", or a code reference");
	SSize_t count = (SSize_t)av_count(answer);
	if (count != 3 && !(delayed && count == 2))
		answer_die(aTHX_ request, "the answer has %ld elements, expected %s", (long)count,
			delayed ? "three, or two for a stream" : "three: status, headers and body");
	if (count == 2) {
		send_head(aTHX_ request, answer, -1);
		return writer_new(aTHX_ request);
	}
	SV **body = av_fetch(answer, 2, 0);
	AV *parts = array_of(body);
	if (parts && !SvOBJECT((SV *)parts)) {
		send_head(aTHX_ request, answer, length_of(aTHX_ request, parts));
		send_parts(aTHX_ request, parts);
	} else if (body && SvROK(*body)) {
		send_head(aTHX_ request, answer, -1);
		body_send(aTHX_ request, *body);
	} else {
		answer_die(aTHX_ request, "the body is %s, expected an array or a handle",
			body && SvOK(*body) ? "a string" : "undef");
	}
	return NULL;
}
