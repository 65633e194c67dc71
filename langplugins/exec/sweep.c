/* Everything below this process is killed: for the wardens of programs (exec) and of companions (webserver/warden). */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/wait.h>

#include "sweep.h"

/* Kill the children that the kernel lists for one of our threads. False: no list, or nobody is in it. */
static bool kill_listed(const char *thread)
{
	char path[320];
	int pid;
	bool any = false;

	snprintf(path, sizeof(path), "/proc/self/task/%s/children", thread);
	FILE *list = fopen(path, "re");
	if (!list)
		return false;
	while (fscanf(list, "%d", &pid) == 1)
		any |= kill(pid, SIGKILL) == 0;
	fclose(list);
	return any;
}

static bool kill_children(void)
{
	DIR *threads = opendir("/proc/self/task");
	bool any = false;

	if (!threads)
		return false;
	for (struct dirent *entry; (entry = readdir(threads)) != NULL;)
		if (entry->d_name[0] != '.')
			any |= kill_listed(entry->d_name);
	closedir(threads);
	return any;
}

/* Children of those that die become ours, and are killed in their turn. */
void sweep(void)
{
	for (;;) {
		bool any = kill_children();
		pid_t pid = waitpid(-1, NULL, any ? 0 : WNOHANG);
		if (pid == 0 || (pid < 0 && errno != EINTR))
			return;
	}
}
