/* An answer's body from a file. */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker.h"

int answer_send_file(struct langplugin_call *call, int fd, int64_t offset, int64_t length)
{
	struct stat st;
	char *block;

	if (offset < 0 || fstat(fd, &st))
		return LP_INVALID;
	if (length < 0)
		length = st.st_size > offset ? st.st_size - offset : 0;
	if (call->answer.no_body)
		return answer_write(call, NULL, (size_t)length, 0);
	block = malloc(WIRE_PIECE);
	if (!block)
		return LP_FAILED;
	int result = LP_OK;
	while (length > 0 && result == LP_OK) {
		ssize_t got = pread(fd, block, length < WIRE_PIECE ? (size_t)length : WIRE_PIECE, offset);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			result = LP_FAILED;
		if (got <= 0)
			break; /* it has become shorter: a declared length makes that an abort */
		result = answer_write(call, block, (size_t)got, 0);
		offset += got;
		length -= got;
	}
	free(block);
	return result;
}
