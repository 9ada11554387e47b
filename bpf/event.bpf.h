/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The enrichment ring: how an event gets into it, and when user space is woken.
 *
 * Law: each event that a program wants to send is counted as made; one that finds no room is counted as lost beside it. So what user space
 * takes out is what was made less what was lost, exactly.
 *
 * Waking is what costs: a wake-up for each event limits the ring to a million events a second. Without a flag the kernel wakes for
 * the one event that the consumer would take next: so for the first into an empty ring, and for no other until that is taken.
 * User space lets events gather before it comes. Past RING_WAKE_BYTES it is asked to come at once, and that once for each position
 * of the consumer.
 */
#ifndef EVENT_BPF_H
#define EVENT_BPF_H

#include "maps.bpf.h"

/* Atomic: a program in a process may be interrupted by another that sends the same kind. */
static __always_inline void count_event(u32 kind, u32 what)
{
	int index = kind * EVENT_COUNTERS + what;
	u64 *counter = event_counters.lookup(&index);

	if (counter)
		__sync_fetch_and_add(counter, 1);
}

/* BCC's dialect cannot ask a ring how full it is: netwatch/kernel/compile.py puts the descriptor in the place of this number. */
static __always_inline u64 query_ring(u64 what)
{
	return bpf_ringbuf_query((void *)bpf_pseudo_fd(1, RING_MARK), what);
}

static __always_inline u64 wake_flag(void)
{
	int zero = 0;
	struct ring_wake *wake;
	u64 position;

	if (query_ring(BPF_RB_AVAIL_DATA) < RING_WAKE_BYTES)
		return 0;
	wake = ring_wake.lookup(&zero);
	/* One more than the position, so that 0 is none. */
	position = query_ring(BPF_RB_CONS_POS) + 1;
	if (!wake || wake->position == position)
		return BPF_RB_NO_WAKEUP;
	wake->position = position;
	__sync_fetch_and_add(&wake->count, 1);
	return BPF_RB_FORCE_WAKEUP;
}

/* Room for an event of one slot, for the caller to fill to the last byte; NULL where it is lost. */
static __always_inline void *claim_event(u32 kind)
{
	void *event;

	count_event(kind, EVENT_MADE);
	event = ring.ringbuf_reserve(EVENT_BYTES);
	if (!event)
		count_event(kind, EVENT_LOST);
	return event;
}

/* The same with its head filled and the rest zero. */
static __always_inline void *reserve_event(u32 kind, const struct flow_key *key, u32 hook, u64 now)
{
	struct event *event = claim_event(kind);

	if (!event)
		return NULL;
	__builtin_memset(event, 0, EVENT_BYTES);
	event->time_ns = now;
	event->key = *key;
	event->hook = hook;
	event->kind = kind;
	event->size_bytes = EVENT_BYTES;
	return event;
}

static __always_inline void submit_event(void *event)
{
	ring.ringbuf_submit(event, wake_flag());
}

#endif
