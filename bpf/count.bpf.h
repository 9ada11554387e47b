/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The counters that the drain audits itself against: what came in, and where it went other than into a flow. */
#ifndef COUNT_BPF_H
#define COUNT_BPF_H

#include "maps.bpf.h"

/* What one run of a program knows of its packet before it looks inside. */
struct passage {
	u64 epoch_word;
	u32 hook;
	u32 packets;
	u32 bytes;
};

/*
 * Plain additions: the tables are per CPU, and a program at these hooks runs with bottom halves off, so no other run
 * on the same CPU comes between.
 */
static __always_inline void add(struct tally *tally, const struct passage *passage)
{
	tally->packets += passage->packets;
	tally->bytes += passage->bytes;
}

static __always_inline void count(enum counter counter, const struct passage *passage)
{
	int index = counter * COUNTED_EPOCHS + EPOCH_PARITY(passage->epoch_word);
	struct tally *tally = counters.lookup(&index);

	if (tally)
		add(tally, passage);
}

static __always_inline void count_seen(const struct passage *passage)
{
	u32 hook = passage->hook;
	int slot = (hook << 1 | hook >> 31) & (HOOK_SLOTS - 1);
	struct hook_tally *mine = hooks.lookup(&slot);

	if (mine && !mine->hook)
		mine->hook = hook;
	if (!mine || mine->hook != hook) {
		struct hook_tally zero = {};

		mine = hook_overflow.lookup_or_try_init(&hook, &zero);
	}
	if (mine)
		add(&mine->tallies[EPOCH_PARITY(passage->epoch_word)], passage);
	else
		count(COUNTER_SEEN_ELSEWHERE, passage);
}

static __always_inline void count_ethertype(u16 eth_type, const struct passage *passage)
{
	u32 key = eth_type * COUNTED_EPOCHS + EPOCH_PARITY(passage->epoch_word);
	struct tally zero = {};
	struct tally *tally = ethertypes.lookup_or_try_init(&key, &zero);

	if (tally)
		add(tally, passage);
	else
		count(COUNTER_IGNORED_ETHERTYPE, passage);
}

#endif
