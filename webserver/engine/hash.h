/*
 * A keyed hash for texts that a stranger chose (hosts, paths).
 *
 * A polynomial over the prime 2^61 - 1 at a secret point: two different texts of n words collide with probability
 * n / 2^61, whatever they are, as long as the point is not known. It is continued word by word, which lets the hashes
 * of all prefixes of a path come out of one pass; SipHash would need one run for each of them.
 */
#ifndef WEBSERVER_ENGINE_HASH_H
#define WEBSERVER_ENGINE_HASH_H

#include <stdint.h>
#include <string.h>

#include "api.h"

#define HASH_PRIME ((UINT64_C(1) << 61) - 1)

struct hash_key {
	uint64_t point; /* below HASH_PRIME */
	uint64_t mix;	/* odd; spreads a hash over a table's buckets */
};

/* From getrandom; 0 or -1 with errno. */
int hash_key_make(struct hash_key *key);

/* word is below 2^61. */
static inline uint64_t hash_word(const struct hash_key *key, uint64_t hash, uint64_t word)
{
	unsigned __int128 product = (unsigned __int128)(hash + word + 1) * key->point;
	uint64_t folded = (uint64_t)(product & HASH_PRIME) + (uint64_t)(product >> 61);
	return folded >= HASH_PRIME ? folded - HASH_PRIME : folded;
}

/* Seven bytes a word, their number above them, so that no two texts make the same words. */
static inline uint64_t hash_bytes(const struct hash_key *key, uint64_t hash, const char *data, size_t size)
{
	while (size >= 8) {
		uint64_t word;
		memcpy(&word, data, 8);
		hash = hash_word(key, hash, (word & ((UINT64_C(1) << 56) - 1)) | UINT64_C(7) << 56);
		data += 7;
		size -= 7;
	}
	if (size > 0) {
		uint64_t word = 0;
		size_t taken = size > 7 ? 7 : size;
		for (size_t i = 0; i < taken; i++)
			word |= (uint64_t)(unsigned char)data[i] << (8 * i);
		hash = hash_word(key, hash, word | (uint64_t)taken << 56);
	}
	return hash;
}

#endif
