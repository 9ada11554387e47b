/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Which flows may be in a flow map.
 *
 * Law: what was put in is always found; what was not may be found as well. A key is noted before its row is inserted, so a packet that has left
 * one hook is known at the next.
 */
#ifndef FILTER_BPF_H
#define FILTER_BPF_H

#include "maps.bpf.h"

static __always_inline u64 hash_key(const struct flow_key *key)
{
	const u64 *words = (const u64 *)key;
	u64 hash = 0;

#pragma unroll
	for (int i = 0; i < sizeof(*key) / sizeof(*words); i++) {
		/* 2^64 divided by the golden ratio: each multiplication carries every bit upwards, each shift brings the top down. */
		hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15ull;
		hash ^= hash >> 32;
	}
	return hash;
}

static __always_inline u64 *filter_word(u32 flow_map, u64 hash)
{
	int index = flow_map * FILTER_WORDS + (hash >> 32 & (FILTER_WORDS - 1));

	return flow_filter.lookup(&index);
}

static __always_inline u64 filter_bits(u64 hash)
{
	return 1ull << (hash & 63) | 1ull << (hash >> 6 & 63);
}

static __always_inline int may_hold(u32 flow_map, u64 hash)
{
	u64 *word = filter_word(flow_map, hash);

	return word && (*word & filter_bits(hash)) == filter_bits(hash);
}

static __always_inline void note(u32 flow_map, u64 hash)
{
	u64 *word = filter_word(flow_map, hash);

	if (word && (*word & filter_bits(hash)) != filter_bits(hash))
		__sync_fetch_and_or(word, filter_bits(hash));
}

#endif
