/*
 * The PHP plugin's inside.
 *
 *   plugin.c     what langplugin.h asks for: open, preload, fork, one request, close
 *   settings.c   the group's settings, and its ini values as php.ini text
 *   script.c     the file to run and its directory
 *   sapi.c       the SAPI module: output, headers, request body, log
 *   ini.c        the group's [ini] values
 *   variables.c  $_SERVER and getenv()
 *   functions.c  what PHP programs expect of a server named fpm-fcgi, and headers_send()
 *   transfer.c   files as answers; whether the client is still there
 *   userini.c    .user.ini files
 *   trace.c      where a script is, and its end when its time is over
 *
 * Debian's PHP is not thread-safe: there is one interpreter in the process and its state lies in libphp's own globals.
 * That is why the SAPI's callbacks, which are given no pointer of ours, reach the plugin through sapi_plugin().
 */
#ifndef WEBSERVER_PHP_PLUGIN_H
#define WEBSERVER_PHP_PLUGIN_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <main/php.h>
#include <main/SAPI.h>
#include <main/php_main.h>
#include <main/php_variables.h>
#include <main/php_ini.h>

#include "langplugin.h"

/* The last script that was looked at; it is the working directory's too. */
struct script {
	char path[MAXPATHLEN];
	size_t size;
	uint64_t seen_ns; /* 0: to be looked at again */
};

struct plugin {
	const struct langplugin_host *host;
	char *application;   /* the script that answers everything; NULL: the requested file */
	char *preload;	     /* scripts to compile before the fork, ":" between them; NULL: none */
	char *ini;	     /* the group's ini values as php.ini text */
	zend_string **names; /* CGI names by the host's numbers, made once, kept for ever */
	HashTable user_ini;  /* directory -> struct user_ini */
	struct script script;
	bool started;
};

/* What one request needs beside PHP's own state; on handle()'s stack, SG(server_context) points at it. */
struct run {
	struct plugin *plugin;
	struct langplugin_call *call;
	const struct langplugin_request *request;
	const char *script;
	bool gone;  /* the client is: PHP has been told */
	bool ended; /* fastcgi_finish_request() was called */
};

static inline struct run *current_run(void)
{
	return (struct run *)SG(server_context);
}

/* settings.c: 0, or -1 and a message */
int settings_read(struct plugin *plugin, const struct langplugin_setting *settings, size_t count, char *message,
	size_t message_size);
void settings_free(struct plugin *plugin);

/* script.c */
void script_watch(void);
/* Look at it and go where it is: 0, or the status of the answer that says why not. */
int script_ready(struct plugin *plugin, const char *path);

/* sapi.c */
extern sapi_module_struct webserver_sapi;
void sapi_set_plugin(struct plugin *plugin);
struct plugin *sapi_plugin(void);
void sapi_client_gone(struct run *run); /* tells PHP, once; may end the script */
/* A header line as a field; false: it is none, or belongs to the connection. */
bool sapi_field(const sapi_header_struct *header, struct langplugin_field *field);

/* transfer.c */
void transfer_watch(void);

/* ini.c */
int ini_add(struct plugin *plugin, const char *name, const char *value, char *message, size_t size);
int ini_check(const struct langplugin_setting *settings, size_t count, char *message, size_t size);

/* variables.c */
int variables_make(struct plugin *plugin);
void variables_free(struct plugin *plugin);
void variables_register(zval *track_vars_array);
char *variables_getenv(const char *name, size_t size);

/* functions.c */
extern zend_module_entry webserver_php_module;

/* userini.c: apply the .user.ini files from the document root down to the script's directory */
void userini_make(struct plugin *plugin);
void userini_free(struct plugin *plugin);
void userini_activate(struct run *run);

/* trace.c */
void trace_watch(void); /* once, when PHP has started */
void trace_dump(void *state, int fd);
int trace_ask(void *state);

#endif
