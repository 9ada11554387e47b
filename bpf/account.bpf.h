/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * A packet into its flow, once.
 *
 * Law: a packet counts at its flow's home, the hook that saw the flow first; elsewhere it is a duplicate. So each packet that
 * comes here either is in its row when account() returns, or account() names the counter that it belongs to.
 *
 * Atomics, not a spin lock: measured on this path, a lock and its interrupt masking cost 60 ns a packet, two atomic additions
 * not 5. What needs more than an addition (home, observed hooks) is a compare-and-swap, and rare.
 */
#ifndef ACCOUNT_BPF_H
#define ACCOUNT_BPF_H

#include "count.bpf.h"
#include "filter.bpf.h"
#include "packet.bpf.h"

/* A flow whose home has been silent for so long has moved: a second, because queues hold packets for less. */
#define HOME_SILENCE_NS 1000000000ll

static __always_inline u64 swap_if(u64 *word, u64 was, u64 becomes)
{
	return __sync_val_compare_and_swap(word, was, becomes);
}

static __always_inline int holds(u64 word, u32 hook)
{
	return (u32)word == hook || word >> 32 == hook;
}

/* Note a hook among the observed ones. Past six it is not noted. */
static __always_inline void observe(struct flow_value *row, u32 hook)
{
#pragma unroll
	for (int i = 0; i < OBSERVED_WORDS; i++) {
		u64 word = row->observed[i];

		if (holds(word, hook))
			return;
		/* Where another processor comes first, its hook stands, and ours is noted with the next packet. */
		if (!(u32)word) {
			swap_if(&row->observed[i], word, word | hook);
			return;
		}
		if (!(word >> 32)) {
			swap_if(&row->observed[i], word, word | (u64)hook << 32);
			return;
		}
	}
}

static __always_inline int is_silent(u64 last_ns, u64 now)
{
	/* Signed: another processor's clock reading may be a little later than ours. */
	return (s64)(now - last_ns) >= HOME_SILENCE_NS;
}

/*
 * Say whether packets at this hook count, and move the home here where it has been silent. The new home may then stand among
 * the observed hooks as well; user space takes it out.
 */
static __always_inline int is_at_home(struct flow_value *row, u32 hook, u64 now)
{
	u64 home = row->home;
	int moves;

	if (home == hook)
		return 1;
	moves = is_silent(row->last_ns, now);
	observe(row, moves ? home : hook);
	return moves && (swap_if(&row->home, home, hook) == home || row->home == hook);
}

/* A row for a packet whose flow has none in this epoch. Returns whether the packet counts in it. */
static __always_inline int fill_row(struct flow_value *row, const struct packet *packet, const struct passage *passage,
				    const struct flow_value *before, u64 now)
{
	row->eth_type = packet->eth_type;
	row->dscp = packet->dscp;
	row->sampling = SAMPLING;
	if (before && before->home != passage->hook && !is_silent(before->last_ns, now)) {
		/* The home lives on. The row is not exported unless a packet comes there in this epoch. */
		row->home = before->home;
		row->last_ns = before->last_ns;
		row->observed[0] = passage->hook;
		__builtin_memcpy(row->src_mac, before->src_mac, sizeof(row->src_mac));
		__builtin_memcpy(row->dst_mac, before->dst_mac, sizeof(row->dst_mac));
		return 0;
	}
	row->home = passage->hook;
	row->first_ns = now;
	row->last_ns = now;
	row->packets = passage->packets;
	row->bytes = passage->bytes;
	row->flags = packet->flags;
	__builtin_memcpy(row->src_mac, packet->src_mac, sizeof(row->src_mac));
	__builtin_memcpy(row->dst_mac, packet->dst_mac, sizeof(row->dst_mac));
	return 1;
}

static __always_inline void add_to_row(struct flow_value *row, const struct packet *packet, const struct passage *passage,
				       u64 now)
{
	/* Plain stores: two processors may swap two times a few ns apart; user space keeps first before last. */
	if (!row->packets)
		row->first_ns = now;
	__sync_fetch_and_add(&row->packets, passage->packets);
	__sync_fetch_and_add(&row->bytes, passage->bytes);
	if (now > row->last_ns)
		row->last_ns = now;
	if (packet->flags & ~row->flags)
		__sync_fetch_and_or(&row->flags, packet->flags);
}

/* Insert a row with this packet in it. Returns where the packet ended, or -EEXIST where another processor was first. */
static __always_inline int open_row(void *flows, struct packet *packet, const struct passage *passage, u64 now)
{
	int previous = EPOCH_PREVIOUS(passage->epoch_word), zero = 0;
	struct fullness *fullness = full.lookup(&zero);
	struct flow_value row = {}, *before = NULL;
	u64 hash = hash_key(&packet->key);
	void *flows_before;
	long error = -E2BIG;
	int counts;

	if (!fullness)
		return COUNTER_LOST_INSERT_FAILED;
	note(EPOCH_CURRENT(passage->epoch_word), hash);
	if (may_hold(previous, hash)) {
		flows_before = flow_maps.lookup(&previous);
		if (flows_before)
			before = bpf_map_lookup_elem(flows_before, &packet->key);
	}
	counts = fill_row(&row, packet, passage, before, now);
	if (fullness->epoch_word != passage->epoch_word || now - fullness->since_ns > FULL_FOR_NS) {
		error = bpf_map_update_elem(flows, &packet->key, &row, BPF_NOEXIST);
		if (error == -EEXIST)
			return error;
		if (error == -E2BIG) {
			fullness->epoch_word = passage->epoch_word;
			fullness->since_ns = now;
		}
	}
	if (!counts)
		return COUNTER_DUPLICATE;
	if (!error)
		return IN_FLOW;
	return error == -E2BIG ? COUNTER_LOST_MAP_FULL : COUNTER_LOST_INSERT_FAILED;
}

/* Returns where the packet ended: IN_FLOW or a counter. */
static __always_inline int account(struct packet *packet, const struct passage *passage)
{
	int current = EPOCH_CURRENT(passage->epoch_word), end;
	void *flows = flow_maps.lookup(&current);
	u64 now = bpf_ktime_get_ns();
	struct flow_value *row;

	if (!flows)
		return COUNTER_LOST_INSERT_FAILED;
	row = bpf_map_lookup_elem(flows, &packet->key);
	if (!row) {
		end = open_row(flows, packet, passage, now);
		if (end != -EEXIST)
			return end;
		row = bpf_map_lookup_elem(flows, &packet->key);
		if (!row)
			return COUNTER_LOST_INSERT_FAILED;
	}
	if (!is_at_home(row, passage->hook, now))
		return COUNTER_DUPLICATE;
	add_to_row(row, packet, passage, now);
	return IN_FLOW;
}

#endif
