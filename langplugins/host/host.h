/*
 * host.h - the worker host as the manager sees it: called through ctypes, so plain types only.
 *
 * In the manager: host_open, host_preload, and host_fork for each worker. Nothing here takes or needs a language's
 * lock, and the caller must not hold one, but for host_fork.
 */
#ifndef WEBSERVER_HOST_H
#define WEBSERVER_HOST_H

#include <stddef.h>
#include <stdint.h>

#include "langplugin.h"
#include "wire.h"

#define HOST_PUBLIC __attribute__((visibility("default")))

#define HOST_PATH 112 /* a unix socket path and its NUL; sun_path has 108 */
#define HOST_TEXT 4096

/* What a worker exits with. Below 64 so that an application's own exit codes of sysexits.h stay apart. */
enum host_exit {
	HOST_EXIT_DONE = 0,    /* orderly end */
	HOST_EXIT_LOAD = 40,   /* the application did not load: HOST_FAILED has been sent */
	HOST_EXIT_SYSTEM = 41, /* no page, no thread, no socket: HOST_FAILED has been sent */
	HOST_EXIT_ORPHAN = 42, /* the manager is gone */
	HOST_EXIT_GAVE_UP = 43 /* the plugin has said so, and why: HOST_FAILED has been sent */
};

struct host_frontend {
	uint32_t ordinal;
	uint32_t incarnation;
	char path[HOST_PATH];
};

/* Manager to worker, one SOCK_SEQPACKET packet each, no longer than its entries need. */
enum host_order_kind {
	HOST_FRONTENDS = 1, /* the front ends are now these */
	HOST_RETIRE = 2,    /* orderly end */
	HOST_STUCK = 3,	    /* show requests whose time is over, in the log, and interrupt them; HOST_RETIRE follows */
	HOST_SLOW = 4,	    /* show requests that have run for long, in the log */
	HOST_STACK = 5	    /* show everything, on the descriptor that comes along */
};

/* What has not come up yet writes where it is when it gets this signal, and may not live much longer. */
#define HOST_STACK_SIGNAL (SIGRTMAX - 3)

struct host_order {
	uint32_t kind;
	uint32_t count; /* of frontend; HOST_STUCK, HOST_SLOW: how long that is, in milliseconds */
	struct host_frontend frontend[WIRE_FRONTENDS];
};

/* Worker to manager. HOST_WORN: it has run as many requests as it was to tell of. */
enum host_report_kind { HOST_READY = 1, HOST_FAILED = 2, HOST_WORN = 3 };

struct host_report {
	uint32_t kind;
	uint32_t size;
	char text[HOST_TEXT]; /* size bytes */
};

struct host_options {
	uint32_t size;	     /* sizeof(struct host_options) */
	int32_t page;	     /* memfd of WIRE_PAGE_SIZE(threads) bytes or more */
	int32_t loans;	     /* memfd of WIRE_LOANS_SIZE(threads) bytes or more */
	int32_t control;     /* SOCK_SEQPACKET to the manager */
	int32_t log;	     /* standard output and error of the worker */
	int32_t manager;     /* its pid */
	uint32_t generation; /* of the group */
	uint32_t count;	     /* of frontend */
	uint32_t closing_count;
	uint64_t worker;     /* incarnation */
	uint64_t tell_after; /* requests; HOST_WORN is sent once; 0: never */
	const char *title;   /* process title */
	const char *name;    /* short name, 15 bytes */
	const struct host_frontend *frontend;
	const int32_t *closing; /* descriptors that a worker does not keep */
};

struct host;

/*
 * Open a plugin: dlopen with RTLD_NOW | RTLD_GLOBAL, check what it exports, call its open(). settings is an array of
 * count pairs. Returns NULL after writing a message that names what is wrong.
 */
HOST_PUBLIC struct host *host_open(const char *plugin, const struct langplugin_setting *settings, size_t count,
	int processes, int threads, char *message, size_t size);

/* 0, or -1 and a message. */
HOST_PUBLIC int host_preload(struct host *host, char *message, size_t size);

/*
 * Fork a worker: its pid, or -1 and errno. The child never returns: it lives its whole life in here and exits with one
 * of enum host_exit. Whoever calls this holds the lock of the manager's Python. options are the manager's again at its
 * end.
 */
HOST_PUBLIC int host_fork(struct host *host, const struct host_options *options);

/* "python", "3.11.2" */
HOST_PUBLIC const char *host_language(const struct host *host);
HOST_PUBLIC const char *host_language_version(const struct host *host);

/* Set the title that ps shows and the short name. Copies the environment out of the way first. */
HOST_PUBLIC void host_title(const char *title, const char *name);

/* Die with the parent: 0, or -1 if `parent` is not the parent (any more). */
HOST_PUBLIC int host_tie(int32_t parent);

/* One entry of the error log on descriptor 2, as the workers write it. Never waits. */
HOST_PUBLIC void host_log(int level, const char *text, size_t size);

#endif
