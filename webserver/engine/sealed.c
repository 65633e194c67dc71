/* See sealed.h. */
#include "sealed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef F_GET_SEALS
#define F_GET_SEALS   1034
#define F_SEAL_SHRINK 2
#endif

void *sealed_map(int fd, size_t size, int protection, const char *what, char *message, size_t message_size)
{
	struct stat st;
	int seals = -1;
	void *map = MAP_FAILED;

	message[0] = 0;
	if (fstat(fd, &st) < 0)
		snprintf(message, message_size, "fstat: %s", strerror(errno));
	else if (st.st_size < 0 || (uint64_t)st.st_size < size)
		snprintf(message, message_size, "the %s has %lld bytes and not %zu", what, (long long)st.st_size, size);
	else if ((seals = fcntl(fd, F_GET_SEALS)) < 0 || !(seals & F_SEAL_SHRINK))
		snprintf(message, message_size, "the %s is not sealed against shrinking", what);
	else if ((map = mmap(NULL, size, protection, MAP_SHARED, fd, 0)) == MAP_FAILED)
		snprintf(message, message_size, "mmap: %s", strerror(errno));
	close(fd);
	return map == MAP_FAILED ? NULL : map;
}
