/*
 * Any bytes as what a front end says, in pieces of any size. However they are cut, the same messages come out; none is
 * larger than may be, none comes before greeting and READY, and after a broken rule nothing comes at all.
 *
 * sources: langplugins/host/zmtp.c langplugins/host/message.c
 *
 * The first byte says how the stream is cut, and whether a right greeting and READY are put before the rest.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "zmtp.h"

#define LIMIT 4096
#define KEPT  64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct taken {
	unsigned count;
	size_t sizes[KEPT];
	uint64_t sum[KEPT];
	uint8_t state;
};

static void must(bool condition)
{
	if (!condition)
		abort();
}

static void note(struct taken *taken, const struct zmtp *zmtp, struct message *message)
{
	uint64_t sum = 14695981039346656037u;

	must(zmtp->state == ZMTP_TALKS && message->size <= LIMIT);
	for (size_t i = 0; i < message->size; i++)
		sum = (sum ^ (uint8_t)message->data[i]) * 1099511628211u;
	if (taken->count < KEPT) {
		taken->sizes[taken->count] = message->size;
		taken->sum[taken->count] = sum;
	}
	taken->count++;
	message_free(message);
}

/* cut 0: all at once. Else in pieces of that size, every other one straight into the message where there is room. */
static struct taken run(const char *data, size_t size, size_t cut)
{
	struct taken taken = {0};
	struct zmtp zmtp;
	bool direct = false;

	zmtp_init(&zmtp, LIMIT);
	for (size_t at = 0; at < size;) {
		size_t part = cut && cut < size - at ? cut : size - at;
		char *to = NULL;
		size_t room = direct ? zmtp_room(&zmtp, &to) : 0;
		struct message *message = NULL;
		if (room > 0) {
			part = part < room ? part : room;
			memcpy(to, data + at, part);
			message = zmtp_filled(&zmtp, part);
			at += part;
		} else {
			size_t used = zmtp_take(&zmtp, data + at, part, &message);
			must(used <= part && (used == part || message || zmtp.state == ZMTP_BROKEN));
			at += used;
		}
		direct = !direct && cut;
		if (message)
			note(&taken, &zmtp, message);
		if (zmtp.state == ZMTP_BROKEN)
			break;
	}
	taken.state = zmtp.state;
	zmtp_close(&zmtp);
	return taken;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	size_t cut = data[0] & 0x7f, before = 0;
	char *stream = malloc(ZMTP_OPENING + size);
	must(stream != NULL);
	if (data[0] & 0x80)
		before = zmtp_opening(stream, "0123456789abcdef", 16);
	memcpy(stream + before, data + 1, size - 1);
	struct taken whole = run(stream, before + size - 1, 0), pieces = run(stream, before + size - 1, cut);
	must(whole.count == pieces.count && whole.state == pieces.state);
	must(memcmp(whole.sizes, pieces.sizes, sizeof(whole.sizes)) == 0);
	must(memcmp(whole.sum, pieces.sum, sizeof(whole.sum)) == 0);
	free(stream);
	return 0;
}
