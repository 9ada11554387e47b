/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Packets that the kernel drops: the tracepoint kfree_skb, which runs for each buffer that is freed for another reason than its use.
 *
 * Law: the sums are exact. A drop waits in a slot, and each like it within DROP_WINDOW_NS is added to it. It leaves when a later or another one
 * needs the slot, or with the drain: nobody looks at it before.
 */
#ifndef DROPS_BPF_H
#define DROPS_BPF_H

#include "filter.bpf.h"
#include "kernel.bpf.h"
#include "sampling.bpf.h"

static __always_inline void send_drop(const struct drop_event *drop)
{
	struct drop_event *event = claim_event(EVENT_DROP);

	if (!event)
		return;
	*event = *drop;
	submit_event(event);
}

static __always_inline int is_same_key(const struct flow_key *one, const struct flow_key *other)
{
	const u64 *a = (const u64 *)one, *b = (const u64 *)other;

	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3] && a[4] == b[4];
}

/* Add a drop to what its slot holds; what it holds of another flow, or for too long, is sent and makes room. */
static __always_inline void merge_drop(const struct drop_event *drop)
{
	int zero = 0, table_number;
	struct drop_turn *current = drop_turn.lookup(&zero);
	struct drop_event *pending;
	struct drop_table *table;
	struct drop_slot *slot;
	u64 turn, half;

	if (!current)
		return;
	turn = current->number;
	/*
	 * A map's key lies on the stack, and the verifier of Linux 6.1 and 6.12 forgets the bounds
	 * of what is read back from there: "math between map_value pointer and register with
	 * unbounded min value is not allowed". So the index is a variable of its own.
	 */
	table_number = half = turn & (DROP_HALVES - 1);
	table = drop_tables.lookup(&table_number);
	/* 0: user space does not take them yet. */
	if (!table || !turn)
		return;
	slot = &table->slots[(hash_key(&drop->event.key) + drop->reason) >> 32 & (DROP_SLOTS - 1)];
	pending = &slot->pending;
	/* What an earlier turn left here, user space has taken. */
	if (slot->turn == turn) {
		if (pending->reason == drop->reason && is_same_key(&pending->event.key, &drop->event.key) &&
		    drop->event.time_ns - pending->first_ns < DROP_WINDOW_NS) {
			pending->event.time_ns = drop->event.time_ns;
			pending->event.hook = drop->event.hook;
			pending->bytes += drop->bytes;
			pending->packets += drop->packets;
			pending->flags = drop->flags;
			pending->tcp_state = drop->tcp_state;
			pending->dscp = drop->dscp;
			count_event(EVENT_DROP, EVENT_THINNED);
			return;
		}
		send_drop(pending);
	} else if (current->used[half] != turn) {
		current->used[half] = turn;
	}
	*pending = *drop;
	slot->turn = turn;
}

/* The device that a packet is to leave by, where it has not come to one yet: that of its route. */
static __always_inline u64 route_device(u64 skb)
{
	u64 route, device = 0;

	LOAD("u64", route, skb, K_SKB_ROUTE);
	route &= ~1ull;	/* SKB_DST_NOREF */
	if (route)
		bpf_probe_read_kernel(&device, sizeof(device), kernel(route, K_ROUTE_DEVICE));
	return device;
}

/* Where the packet was, and how long its link-layer header is or would be. */
static __always_inline u16 locate_drop(u64 skb, u64 device, struct drop_event *drop)
{
	u16 mac, network, link_bytes = 0;
	u32 ifindex = 0, came_by;

	LOAD("u16", mac, skb, K_SKB_MAC_HEADER);
	LOAD("u16", network, skb, K_SKB_NETWORK_HEADER);
	LOAD("u32", came_by, skb, K_SKB_CAME_BY);
	if (is_kernel_address(device)) {
		LOAD("u32", ifindex, device, K_DEVICE_IFINDEX);
		LOAD("u16", link_bytes, device, K_DEVICE_HEADER_BYTES);
	} else {
		device = route_device(skb);
		if (device) {
			bpf_probe_read_kernel(&ifindex, sizeof(ifindex), kernel(device, K_DEVICE_IFINDEX));
			bpf_probe_read_kernel(&link_bytes, sizeof(link_bytes), kernel(device, K_DEVICE_HEADER_BYTES));
		}
	}
	if (ifindex)
		drop->event.hook = ifindex | (ifindex != came_by ? HOOK_EGRESS : 0);
	/* All ones: it has none yet. */
	return mac < network ? network - mac : link_bytes;
}

/* What the packet counts as: link-layer header and segments, as in a flow's row. */
static __always_inline void measure_drop(u64 skb, u64 device, const struct source *from, const struct packet *packet,
					 struct drop_event *drop)
{
	u16 link_bytes = locate_drop(skb, device, drop), segments = 0;
	u64 head;
	u32 end;

	drop->packets = 1;
	drop->bytes = from->bytes + link_bytes;
	if (!GSO_WIRE)
		return;
	LOAD("u64", head, skb, K_SKB_HEAD);
	LOAD("u32", end, skb, K_SKB_END);
	bpf_probe_read_kernel(&segments, sizeof(segments), kernel(head + end, K_SHARED_GSO_SEGMENTS));
	if (segments > 1) {
		drop->packets = segments;
		drop->bytes += (u64)(segments - 1) * (packet->header_bytes + link_bytes);
	}
}

/* Whether the packet, or the socket that it is for, is in the namespace to watch. */
static __always_inline int is_our_packet(u64 device, u64 sk)
{
	u64 net = 0;

	if (!NETNS)
		return 1;
	if (is_kernel_address(device))
		LOAD("u64", net, device, K_DEVICE_NET);
	else if (sk)
		LOAD("u64", net, sk, K_SOCK_NET);
	return is_our_namespace(net);
}

/*
 * A FIN that has done what it was for, and is freed as if it had been dropped: from the queue of a socket that closes, or when it comes to
 * one that has closed (TIME_WAIT). With these, nearly every connection would end with a drop.
 */
static __always_inline int is_used_fin(u32 reason, u8 state, const struct packet *packet)
{
	if (packet->key.protocol != IPPROTO_TCP || !(packet->flags & 1) || packet->end > packet->header_bytes)
		return 0;
	return reason == K_REASON_QUEUE_PURGE || (reason == K_REASON_NOT_SPECIFIED && state == TCP_TIME_WAIT);
}

static __always_inline void tell_drop(u64 skb, u32 reason, u64 receiver)
{
	u8 copy[COPIED_BYTES] __attribute__((aligned(8)));
	struct source from = { .copy = copy };
	struct packet packet = {};
	struct drop_event drop = {};
	u64 device, sk = receiver;
	u8 state = 0;

	LOAD("u64", device, skb, K_SKB_DEVICE);
	if (!sk)
		LOAD("u64", sk, skb, K_SKB_SOCKET);
	if (!is_our_packet(device, sk) || parse_kernel_packet(skb, &from, &packet) != IN_FLOW)
		return;
	if (sk && packet.key.protocol == IPPROTO_TCP)
		LOAD("u8", state, sk, K_SOCK_STATE);
	if (!is_flow_sampled(&packet.key) || is_used_fin(reason, state, &packet))
		return;
	drop.event.key = packet.key;
	drop.event.kind = EVENT_DROP;
	drop.event.size_bytes = EVENT_BYTES;
	drop.event.time_ns = drop.first_ns = bpf_ktime_get_ns();
	drop.reason = reason;
	drop.eth_type = packet.eth_type;
	drop.dscp = packet.dscp;
	drop.flags = packet.flags;
	drop.tcp_state = state;
	measure_drop(skb, device, &from, &packet, &drop);
	if (DROP_WINDOW_NS)
		merge_drop(&drop);
	else
		send_drop(&drop);
}

#endif
