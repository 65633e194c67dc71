/*
 * The conformance application as a plugin: plugin.c has the paths, plugin_host.c what they have in common and the
 * plugin itself, sha256.c the digest of /length.
 */
#ifndef CONFORMANCE_PLUGIN_H
#define CONFORMANCE_PLUGIN_H

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "langplugin.h"

#ifndef FAULT
#define FAULT 0
#endif

/* What can be wrong with a plugin: -DFAULT=1 and so on. tests/test_plugin_kit.py names the test that finds each. */
enum fault {
	LOSES_THE_LAST_BYTE = 1,
	ASKS_FOR_A_BODY_IT_DOES_NOT_NEED,
	GOES_ON_AFTER_GONE,
	KEEPS_MEMORY,
	KEEPS_A_DESCRIPTOR,
	GIVES_NO_ANSWER,
	HOLDS_ON_AFTER_CANCEL,
	DOUBLES_A_FIELD,
	BREAKS_HEAD,
	WRITES_TO_A_FINISHED_CALL,
	JOINS_COOKIES,
	SWALLOWS_THE_QUERY,
	KEEPS_STATE
};

#define TEXT(literal)                                                                                                  \
	{                                                                                                              \
		literal, sizeof(literal) - 1                                                                           \
	}

/* What open() returned: one in each process. */
struct application {
	const struct langplugin_host *host;
	const char *scratch;
	int status;			  /* of the last answer of /status/N; only a fault looks at it */
	struct langplugin_call *finished; /* the same */
	char *kept;			  /* the same */
};

/* One request. */
struct run {
	struct application *application;
	const struct langplugin_host *host;
	struct langplugin_call *call;
	const struct langplugin_request *request;
	char token[64];	  /* of watch=TOKEN, or "" */
	long long number; /* what follows the path's first word */
};

static const struct langplugin_text no_reason = TEXT("");
static const struct langplugin_field plain = {TEXT("Content-Type"), TEXT("text/plain")};

/* plugin.c */
void answer(struct run *run);

/* plugin_host.c */
void begin(struct run *run, int status, const struct langplugin_field *fields, size_t count, int64_t length);
void say(struct run *run, const char *text);
int write_out(struct run *run, const char *data, size_t size); /* 0, or not: the client has gone */
ssize_t take(struct run *run, char *to, size_t size);	       /* a piece of the body; 0: its end; -1: gone */
void pause_for(long long milliseconds);
int open_in(struct run *run, const char *name, int flags); /* a file of SCRATCH */
void note(struct run *run, const char *name);
void gate(struct run *run);

/* sha256.c */
struct sha256 {
	uint32_t state[8];
	uint64_t size;
	unsigned char block[64];
};
void sha256_begin(struct sha256 *digest);
void sha256_add(struct sha256 *digest, const void *data, size_t size);
void sha256_end(struct sha256 *digest, char *text); /* 64 digits and a NUL */

#endif
