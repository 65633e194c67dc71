/* What is known of a program that does not answer: that it is ending, and by what; or that it hangs. */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "exec.h"

#define NEWS_MS	   5000 /* for the news of a death that is known of; they come at once but on an overloaded machine */
#define PF_EXITING 0x4	/* include/linux/sched.h; proc(5), field 9 */

/* PF_EXITING of the kernel is set before a process's descriptors are closed: who sees a connection end and this not set
   knows that it was closed by the program. */
static bool is_ending(const struct program *program)
{
	char path[40], line[512], *at;
	unsigned long flags = 0;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)program->pid);
	FILE *file = fopen(path, "re");
	if (!file)
		return true;
	line[fread(line, 1, sizeof(line) - 1, file)] = 0;
	fclose(file);
	at = strrchr(line, ')');
	return !at || sscanf(at, ") %*c %*d %*d %*d %*d %*d %lu", &flags) != 1 || (flags & PF_EXITING);
}

const char *program_cause(struct program *program, struct langplugin_call *call)
{
	uint64_t until = clock_now() + (uint64_t)NEWS_MS * 1000000u;

	/* Once the news are here, its number may be another's. */
	if (!is_ending(program))
		until = 0;
	for (uint64_t now; (now = clock_now()) < until;) {
		int seen = program->host->wait(call, program->dead, POLLIN, (int)((until - now + 999999) / 1000000));
		if (seen > 0)
			return program->cause;
		if (seen < 0)
			break;
	}
	struct pollfd dead = {program->dead, POLLIN, 0};
	return poll(&dead, 1, 0) == 1 ? program->cause : "";
}

bool program_was_killed(struct program *program, struct langplugin_call *call)
{
	return *program_cause(program, call) && program->killed;
}

void program_hangs(struct program *program, unsigned requests)
{
	const char order = WARDEN_HANGS;
	unsigned none = 0;
	char text[300];

	if (atomic_load(&program->ending) || !atomic_compare_exchange_strong(&program->hung, &none, requests))
		return;
	snprintf(text, sizeof(text),
		"exec: %s (process %d) has answered none of the last %u requests within request_timeout; it is asked "
		"to "
		"end, and killed if it does not",
		program->settings->argv[0], (int)program->pid, requests);
	program->host->log(NULL, LP_ERROR, text, strlen(text));
	if (send(program->line, &order, 1, MSG_NOSIGNAL) < 0)
		return; /* it has ended already */
}
