/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Who owns the sockets at both ends of a flow: the process that made one, connected it, or listens on it.
 *
 * Law: an end is told once for each row, at the first packet whose socket is known. The sender's socket comes with the packet; the
 * receiver's is looked up, once a row, because at ingress no packet has one yet.
 */
#ifndef OWNER_BPF_H
#define OWNER_BPF_H

#include <uapi/linux/if_ether.h>
#include <uapi/linux/in.h>
#include "event.bpf.h"
#include "packet.bpf.h"

/* Returns whether the event is in the ring. */
static __always_inline int send_owner(struct bpf_sock *sk, enum flow_end end, const struct flow_key *key, u32 hook, u64 now)
{
	struct socket_note *note = sockets.sk_storage_get(sk, 0, 0);
	struct owner_event *event;

	if (!note || !note->owner.pid)
		return 0;
	event = reserve_event(EVENT_OWNER, key, hook, now);
	if (!event)
		return 0;
	event->owner = note->owner;
	event->end = end;
	submit_event(event);
	return 1;
}

static __always_inline void tell_sender(struct bpf_sock *sk, struct flow_value *row, const struct packet *packet, u32 hook,
					u64 now)
{
	/* SYN+ACK comes with a request instead of a socket: its listener's owner is as good. */
	struct bpf_sock *full = bpf_sk_fullsock(sk) ?: bpf_get_listener_sock(sk);

	/* Where the event found no room, the next packet tries again. */
	if (full && send_owner(full, END_SOURCE, &packet->key, hook, now))
		row->told |= TOLD_SOURCE;
}

static __always_inline struct bpf_sock *find_receiver(struct __sk_buff *skb, const struct packet *packet)
{
	const u8 *src = packet->key.src_addr, *dst = packet->key.dst_addr;
	int is_tcp = packet->key.protocol == IPPROTO_TCP;
	struct bpf_sock_tuple tuple = {};

	if (packet->eth_type == ETH_P_IP) {
		__builtin_memcpy(&tuple.ipv4.saddr, src + 12, 4);
		__builtin_memcpy(&tuple.ipv4.daddr, dst + 12, 4);
		tuple.ipv4.sport = bpf_htons(packet->key.src_port);
		tuple.ipv4.dport = bpf_htons(packet->key.dst_port);
		return is_tcp ? bpf_sk_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0)
			      : bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	}
	__builtin_memcpy(tuple.ipv6.saddr, src, 16);
	__builtin_memcpy(tuple.ipv6.daddr, dst, 16);
	tuple.ipv6.sport = bpf_htons(packet->key.src_port);
	tuple.ipv6.dport = bpf_htons(packet->key.dst_port);
	return is_tcp ? bpf_sk_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0)
		      : bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
}

static __always_inline void tell_receiver(struct __sk_buff *skb, struct flow_value *row, const struct packet *packet,
					  u32 hook, u64 now)
{
	struct bpf_sock *sk;

	/* Once a row, found or not: a packet that is forwarded has no receiver here, and each look costs 100 ns. */
	row->told |= TOLD_DESTINATION;
	if (packet->key.protocol != IPPROTO_TCP && packet->key.protocol != IPPROTO_UDP)
		return;
	sk = find_receiver(skb, packet);
	if (!sk)
		return;
	send_owner(sk, END_DESTINATION, &packet->key, hook, now);
	bpf_sk_release(sk);
}

/* Note the running process as the owner of a socket. */
static __always_inline void own(struct socket_note *note)
{
	note->owner.cgroup_id = bpf_get_current_cgroup_id();
	note->owner.pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(note->owner.command, sizeof(note->owner.command));
}

#endif
