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
#include "owner.bpf.h"
#include "packet.bpf.h"
#include "rtt.bpf.h"

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

/* A hook that has no room in the row goes through the ring, once an epoch. */
static __always_inline void tell_hook(const struct flow_key *key, const struct passage *passage, u64 now)
{
	struct told_hook told = { .hook = passage->hook, .epoch = passage->epoch_word >> EPOCH_NUMBER_SHIFT };
	struct hook_event *event;
	u8 yes = 1;

	if (!ENRICH_INTERFACES)
		return;
	told.key = *key;
	if (told_hooks.lookup(&told)) {
		count_event(EVENT_HOOK, EVENT_THINNED);
		return;
	}
	event = reserve_event(EVENT_HOOK, key, passage->hook, now);
	if (!event)
		return;
	submit_event(event);
	told_hooks.update(&told, &yes);
}

/* Note a hook among the observed ones. Returns whether there is one more than the row has room for. */
static __always_inline int observe(struct flow_value *row, u32 hook)
{
#pragma unroll
	for (int i = 0; i < OBSERVED_WORDS; i++) {
		u64 word = row->observed[i];

		if (holds(word, hook))
			return 0;
		/* Where another processor comes first, its hook stands, and ours is noted with the next packet. */
		if (!(u32)word) {
			swap_if(&row->observed[i], word, word | hook);
			return 0;
		}
		if (!(word >> 32)) {
			swap_if(&row->observed[i], word, word | (u64)hook << 32);
			return 0;
		}
	}
	return 1;
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
static __always_inline int is_at_home(struct flow_value *row, const struct flow_key *key, const struct passage *passage,
				      u64 now)
{
	u64 home = row->home;
	u32 hook = passage->hook;
	int moves;

	if (home == hook)
		return 1;
	moves = is_silent(row->last_ns, now);
	if (observe(row, moves ? home : hook) && !moves)
		tell_hook(key, passage, now);
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

/* What a flow's socket tells, where it has not been told in this epoch. */
static __always_inline void enrich_row(struct __sk_buff *skb, struct flow_value *row, const struct packet *packet,
				       const struct passage *passage, u64 now)
{
	struct bpf_sock *sk;

	if (!(passage->hook & HOOK_EGRESS)) {
		if (ENRICH_PROCESS && !(row->told & TOLD_DESTINATION))
			tell_receiver(skb, row, packet, passage->hook, now);
		return;
	}
	if (!ENRICH_PROCESS && !ENRICH_RTT)
		return;
	/* Packets that were forwarded have none. */
	sk = skb->sk;
	if (!sk)
		return;
	if (ENRICH_PROCESS && !(row->told & TOLD_SOURCE))
		tell_sender(sk, row, packet, passage->hook, now);
	if (ENRICH_RTT && packet->key.protocol == IPPROTO_TCP)
		tell_rtt(sk, row, packet, passage->hook, now);
}

/* The map is full: the packet goes through the ring, as a flow of its own, and user space puts those of one flow together. */
static __always_inline int send_packet(const struct packet *packet, const struct passage *passage, u64 now)
{
	struct flow_event *event;

	if (!ENRICH_OVERFLOW)
		return COUNTER_LOST_MAP_FULL;
	event = reserve_event(EVENT_FLOW, &packet->key, passage->hook, now);
	if (!event)
		return COUNTER_LOST_MAP_FULL;
	event->bytes = passage->bytes;
	event->packets = passage->packets;
	event->sampling = SAMPLING;
	event->flags = packet->flags;
	event->eth_type = packet->eth_type;
	event->dscp = packet->dscp;
	__builtin_memcpy(event->src_mac, packet->src_mac, sizeof(event->src_mac));
	__builtin_memcpy(event->dst_mac, packet->dst_mac, sizeof(event->dst_mac));
	submit_event(event);
	return COUNTER_IN_RING;
}

static __always_inline const struct flow_value *find_before(struct packet *packet, u64 epoch_word, u64 hash)
{
	int previous = EPOCH_PREVIOUS(epoch_word);
	void *flows;

	if (!may_hold(previous, hash))
		return NULL;
	flows = flow_maps.lookup(&previous);
	return flows ? bpf_map_lookup_elem(flows, &packet->key) : NULL;
}

/* Insert a row with this packet in it. Returns where the packet ended, or -EEXIST where another processor was first. */
static __always_inline int open_row(struct __sk_buff *skb, void *flows, struct packet *packet,
				    const struct passage *passage, u64 now)
{
	struct flow_value row = {};
	int zero = 0, counts;
	struct fullness *fullness = full.lookup(&zero);
	u64 hash = hash_key(&packet->key);
	long error = -E2BIG;

	if (!fullness)
		return COUNTER_LOST_INSERT_FAILED;
	note(EPOCH_CURRENT(passage->epoch_word), hash);
	counts = fill_row(&row, packet, passage, find_before(packet, passage->epoch_word, hash), now);
	enrich_row(skb, &row, packet, passage, now);
	if (fullness->epoch_word != passage->epoch_word || now - fullness->since_ns > FULL_FOR_NS) {
		error = bpf_map_update_elem(flows, &packet->key, &row, BPF_NOEXIST);
		if (error == -EEXIST)
			return error;
		if (error == -E2BIG) {
			fullness->epoch_word = passage->epoch_word;
			fullness->since_ns = now;
		}
	}
	if (!error)
		return counts ? IN_FLOW : COUNTER_DUPLICATE;
	if (!counts)
		return COUNTER_DUPLICATE;
	return error == -E2BIG ? send_packet(packet, passage, now) : COUNTER_LOST_INSERT_FAILED;
}

/* Returns where the packet ended: IN_FLOW or a counter. */
static __always_inline int account(struct __sk_buff *skb, struct packet *packet, const struct passage *passage, u64 now)
{
	int current = EPOCH_CURRENT(passage->epoch_word), end;
	void *flows = flow_maps.lookup(&current);
	struct flow_value *row;

	if (!flows)
		return COUNTER_LOST_INSERT_FAILED;
	row = bpf_map_lookup_elem(flows, &packet->key);
	if (!row) {
		end = open_row(skb, flows, packet, passage, now);
		if (end != -EEXIST)
			return end;
		row = bpf_map_lookup_elem(flows, &packet->key);
		if (!row)
			return COUNTER_LOST_INSERT_FAILED;
	}
	enrich_row(skb, row, packet, passage, now);
	if (!is_at_home(row, &packet->key, passage, now))
		return COUNTER_DUPLICATE;
	add_to_row(row, packet, passage, now);
	return IN_FLOW;
}

#endif
