/*
 * A companion's warden: the process between the supervisor and a program that it looks after.
 *
 *   warden.c   its life: starts the program, tells the supervisor, ends with the program and all that it has started
 *   ready.c    how a program shows that it works
 *   output.c   copies what a program prints into the log, where a line of it is waited for
 *
 *   warden TITLE READY PROGRAM [ARGUMENT ...]
 *
 * READY is one of
 *
 *   started              it has been exec'ed
 *   finished             never told: its end with status 0 is what the supervisor waits for
 *   notify               it sends READY=1 to the socket in NOTIFY_SOCKET (sd_notify(3))
 *   output:EXPRESSION    a line that it prints matches (POSIX extended, regex(7))
 *   file:PATH            there is a file that was not there before, or is another one now
 *   unix:PATH            somebody accepts there
 *   inet:ADDRESS:PORT, inet6:ADDRESS:PORT
 *
 * It runs as the companion's user, so whatever it looks at is looked at with that user's rights. Descriptor 3 is its
 * control connection (DESIGN.md 2.1), descriptor 2 the log:
 *
 *   {"op":"up","pid":N}             the program runs
 *   {"op":"ready"}                  once
 *   {"op":"said","text":"..."}      what a program says of itself with STATUS=, at most once a second
 *   {"op":"failed","text":"..."}    it could not be started; the warden ends
 *   {"op":"ended","status":N}       last of all: the wait status by which the warden ends
 *   {"op":"signal","number":N}      from the supervisor: send it to the program
 *
 * The warden ends as the program did, by the same status or signal.
 */
#ifndef WEBSERVER_WARDEN_H
#define WEBSERVER_WARDEN_H

#include <poll.h>
#include <regex.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define SAID_BYTES 512

uint64_t milliseconds(void); /* CLOCK_MONOTONIC */

/* ---- ready.c */
enum ready_kind { READY_STARTED, READY_FINISHED, READY_NOTIFY, READY_OUTPUT, READY_FILE, READY_ADDRESS };

struct ready {
	enum ready_kind kind;
	bool done;
	regex_t expression;
	const char *path;
	struct stat before; /* of the file; st_ino 0: it was not there */
	struct sockaddr_storage address;
	socklen_t address_size;
	int socket;	       /* of NOTIFY_SOCKET, or a connection that is being made; -1: none */
	char name[16];	       /* NOTIFY_SOCKET's value */
	int wait_ms;	       /* until the next look, 0: an event will tell */
	char said[SAID_BYTES]; /* STATUS= */
	bool said_is_new;
};

/* Before the program is started. Returns "", or what is wrong. */
const char *ready_open(struct ready *ready, const char *text);
/* What is to be polled for it: fd -1 if nothing is. */
struct pollfd ready_poll(const struct ready *ready);
/* Look again, after an event or the wait; sets `done`. */
void ready_look(struct ready *ready, bool event);
/* A line that the program has printed. */
void ready_line(struct ready *ready, const char *line);

/* ---- output.c */
#define COPY_BYTES 65536
#define LINE_BYTES 4096 /* of a line that are compared */

struct output {
	int in;	 /* what the program prints, -1: it prints into the log itself, or its end has come */
	int out; /* the log */
	size_t start, end;
	char bytes[COPY_BYTES];
	size_t line_size;
	char line[LINE_BYTES];
};

bool output_open(struct output *output, int *program_end); /* false: errno says why */
void output_poll(const struct output *output, struct pollfd *in, struct pollfd *out);
/* Copy what can be copied without waiting, and show whole lines to `ready` until it is done. */
void output_move(struct output *output, struct ready *ready);
/* The program has ended: copy what is left, but wait no longer than a second for the log. */
void output_end(struct output *output, struct ready *ready);

#endif
