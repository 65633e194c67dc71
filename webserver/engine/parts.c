/* Several ranges of a file as multipart/byteranges (RFC 9110 section 14.6). */
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "static.h"

#define BOUNDARY_BYTES 16 /* random: no file holds it but by a guess of 128 bits */
#define BOUNDARY       (2 * BOUNDARY_BYTES)
#define PART_HEAD      256 /* two lines without the type */

static bool make_boundary(char *boundary)
{
	unsigned char bytes[BOUNDARY_BYTES];
	if (getrandom(bytes, sizeof bytes, GRND_NONBLOCK) != sizeof bytes)
		return false;
	for (size_t i = 0; i < sizeof bytes; i++)
		sprintf(boundary + 2 * i, "%02x", bytes[i]);
	return true;
}

void parts_send(struct request *r, const struct representation *is, const struct range *ranges, size_t count)
{
	struct file *f = is->file;
	char boundary[BOUNDARY + 1], type[64];
	size_t ends[RANGES_MAX + 1], have = 0;
	uint64_t length = 0;
	char *heads = request_alloc(r, (count + 1) * (PART_HEAD + is->type.size));
	if (heads == NULL || !make_boundary(boundary)) {
		answer_status(r, 503, "no memory for the heads of several ranges", 1);
		return;
	}
	for (size_t i = 0; i < count; i++) {
		have += (size_t)snprintf(heads + have, PART_HEAD + is->type.size,
			"%s--%s\r\nContent-Type: %.*s\r\nContent-Range: bytes %llu-%llu/%llu\r\n\r\n",
			i == 0 ? "" : "\r\n", boundary, (int)is->type.size, is->type.data,
			(unsigned long long)ranges[i].first, (unsigned long long)(ranges[i].first + ranges[i].size - 1),
			(unsigned long long)f->size);
		ends[i] = have;
		length += ranges[i].size;
	}
	have += (size_t)snprintf(heads + have, PART_HEAD, "\r\n--%s--\r\n", boundary);
	ends[count] = have;
	length += have;

	int size = snprintf(type, sizeof type, "multipart/byteranges; boundary=%s", boundary);
	struct field *fields = represent_fields(r, is, (struct engine_text){type, (size_t)size});
	if (fields == NULL || reply_begin(r, 206, TEXT(""), fields, is->count, length, 0) < 0)
		return;
	for (size_t i = 0; i <= count; i++) {
		size_t start = i == 0 ? 0 : ends[i - 1];
		if (reply_data(r, heads + start, ends[i] - start) < 0)
			return;
		if (i < count && represent_bytes(r, f, ranges[i].first, ranges[i].size) < 0)
			return;
	}
	reply_end(r);
}
