/* Whether a script has changed, and whether there is one: what plugins that run requested files look at. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker.h"

int script_mark(struct langplugin_call *call, const char *path, char mark[LANGPLUGIN_MARK])
{
	struct stat st;
	int error = stat(path, &st) ? errno : !S_ISREG(st.st_mode) ? ENOENT : access(path, R_OK) ? errno : 0;

	if (!error) {
		/* A file that has taken another's place may have its time and size. */
		snprintf(mark, LANGPLUGIN_MARK, "%lld.%09ld %lld %llu", (long long)st.st_mtim.tv_sec,
			st.st_mtim.tv_nsec, (long long)st.st_size, (unsigned long long)st.st_ino);
		return 0;
	}
	if (error == ENOENT || error == ENOTDIR)
		return 404;
	if (error == EACCES || error == ELOOP)
		return 403;
	log_format(call, LP_ERROR, "%s: %s", path, strerror(error));
	return 500;
}
