/* Stands in for what lies behind a request: no decisions, files, channel or logs. Linked to fuzz/http.c. */
#include "_http_parts.h"
#include "zmqlib.h"

#define NO_PART(name)                                                                                                  \
	int name##_make(struct engine *e)                                                                              \
	{                                                                                                              \
		(void)e;                                                                                               \
		return 0;                                                                                              \
	}                                                                                                              \
	void name##_free(struct engine *e)                                                                             \
	{                                                                                                              \
		(void)e;                                                                                               \
	}

NO_PART(decisions)
NO_PART(statics)
NO_PART(channel)
NO_PART(access)
NO_PART(errors)

void zmqlib_free(struct zmqlib *library)
{
	(void)library;
}

void posts_wake(struct engine *e)
{
	(void)e;
}

bool posts_sleep(struct engine *e)
{
	(void)e;
	return false;
}

bool channel_turn(struct engine *e)
{
	(void)e;
	return false;
}

void tunnels_leave(struct engine *e, const struct generation *gen, const struct worker *w)
{
	(void)e;
	(void)gen;
	(void)w;
}

int tunnels_limits(struct engine *e)
{
	(void)e;
	return 0;
}

void access_flush(struct engine *e)
{
	(void)e;
}

void access_record(struct request *r)
{
	(void)r;
}

void decision_release(struct decision *d)
{
	(void)d;
}

struct file *file_ref(struct file *f)
{
	return f;
}

void file_unref(struct file *f)
{
	(void)f;
}

int file_fd(const struct file *f)
{
	(void)f;
	return -1;
}

struct engine_text file_path(const struct file *f)
{
	(void)f;
	return (struct engine_text){"", 0};
}

void log_entry(struct engine *e, int level, const struct request *r, const char *format, ...)
{
	(void)e;
	(void)level;
	(void)r;
	(void)format;
}
