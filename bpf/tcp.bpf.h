/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What becomes of TCP connections: established or failed and after how long, retransmissions, resets, and how they end.
 *
 * The key of each event is that of the packets which the socket of this host sends.
 */
#ifndef TCP_BPF_H
#define TCP_BPF_H

#include "drops.bpf.h"
#include "owner.bpf.h"

static __always_inline struct tcp_event *reserve_tcp(const struct flow_key *key, enum tcp_happening happening)
{
	struct tcp_event *event;

	if (!is_flow_sampled(key))
		return NULL;
	event = reserve_event(EVENT_TCP, key, 0, bpf_ktime_get_ns());
	if (event)
		event->happening = happening;
	return event;
}

static __always_inline void send_handshake_rtt(u64 sk, const struct flow_key *key)
{
	struct rtt_event *event;
	u32 smoothed_us = 0;

	bpf_probe_read_kernel(&smoothed_us, sizeof(smoothed_us), kernel(sk, K_TCP_SRTT));
	smoothed_us >>= 3;
	if (!smoothed_us || !is_flow_sampled(key))
		return;
	event = reserve_event(EVENT_RTT, key, 0, bpf_ktime_get_ns());
	if (!event)
		return;
	event->smoothed_us = smoothed_us;
	event->is_handshake = 1;
	submit_event(event);
}

/*
 * Owners of both directions of a connection in another namespace, whose sockets our packet hooks do not see; nobody, once it has
 * ended. User space remembers them as long.
 */
static __always_inline void send_foreign_owner(const struct owner *owner, const struct flow_key *key)
{
	struct flow_key reverse = {};
	struct owner_event *event;
	u64 now = bpf_ktime_get_ns();

	if (!is_flow_sampled(key))
		return;
	turn_key(key, &reverse);
	event = reserve_event(EVENT_OWNER, key, 0, now);
	if (event) {
		event->owner = *owner;
		event->end = END_SOURCE;
		submit_event(event);
	}
	event = reserve_event(EVENT_OWNER, &reverse, 0, now);
	if (event) {
		event->owner = *owner;
		event->end = END_DESTINATION;
		submit_event(event);
	}
}

/* The states that a process brings about, in its own context: it is the owner now, whoever made the socket. */
static __always_inline int is_by_process(int state)
{
	return state == TCP_SYN_SENT || state == TCP_LISTEN;
}

static __always_inline void tell_tcp_state(void *socket, int old_state, int state)
{
	struct socket_note *note;
	struct tcp_event *event;
	struct flow_key key = {};
	u64 sk = (u64)socket, connecting_ns = 0;
	int is_ours = is_our_socket(sk);

	note = sockets.sk_storage_get(socket, 0, is_by_process(state) ? BPF_SK_STORAGE_GET_F_CREATE : 0);
	if (note && is_by_process(state)) {
		own(note);
		note->connecting_ns = state == TCP_SYN_SENT ? bpf_ktime_get_ns() : 0;
	}
	if (state != TCP_ESTABLISHED && state != TCP_CLOSE && state != TCP_CLOSE_WAIT) {
		if (ENRICH_TCP && is_ours)
			count_event(EVENT_TCP, EVENT_THINNED);
		return;
	}
	/* A listener that closes, and a socket that never had another end. */
	if (old_state == TCP_LISTEN || !key_of_socket(sk, &key) || !key.dst_port)
		return;
	if (ENRICH_PROCESS && !is_ours && note && note->owner.pid && state != TCP_CLOSE_WAIT) {
		struct owner nobody = {};

		send_foreign_owner(state == TCP_CLOSE ? &nobody : &note->owner, &key);
	}
	if (!is_ours)
		return;
	if (ENRICH_RTT && state == TCP_ESTABLISHED)
		send_handshake_rtt(sk, &key);
	if (!ENRICH_TCP)
		return;
	event = reserve_tcp(&key, TCP_CHANGED_STATE);
	if (!event)
		return;
	event->state = state;
	event->old_state = old_state;
	if (old_state == TCP_SYN_SENT && note && note->connecting_ns)
		event->connect_us = (event->event.time_ns - note->connecting_ns) / 1000;
	if (old_state == TCP_SYN_SENT && state == TCP_CLOSE) {
		u32 error = 0;

		bpf_probe_read_kernel(&error, sizeof(error), kernel(sk, K_SOCK_ERROR));
		event->error = error;
	}
	submit_event(event);
}

static __always_inline void tell_retransmit(u64 sk, u64 skb)
{
	struct tcp_event *event;
	struct flow_key key = {};
	u32 payload_bytes, header_bytes = ETH_HLEN;
	u16 segments = 0, tcp_header_bytes = 0, family;
	u8 state;

	if (!is_our_socket(sk) || !key_of_socket(sk, &key))
		return;
	event = reserve_tcp(&key, TCP_RETRANSMITTED);
	if (!event)
		return;
	LOAD("u8", state, sk, K_SOCK_STATE);
	LOAD("u16", family, sk, K_SOCK_FAMILY);
	LOAD("u32", payload_bytes, skb, K_SKB_LEN);
	bpf_probe_read_kernel(&segments, sizeof(segments), kernel(skb, K_SKB_TCP_SEGMENTS));
	bpf_probe_read_kernel(&tcp_header_bytes, sizeof(tcp_header_bytes), kernel(sk, K_TCP_HEADER_BYTES));
	/* The buffer has no headers yet: each segment will have an Ethernet, an IP and a TCP header. */
	header_bytes += tcp_header_bytes + (family == AF_INET6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	event->packets = segments ? segments : 1;
	event->bytes = payload_bytes + (u64)event->packets * header_bytes;
	event->state = state;
	submit_event(event);
}

static __always_inline void tell_reset(u64 sk, const struct flow_key *key, enum tcp_happening happening)
{
	struct tcp_event *event = reserve_tcp(key, happening);
	u8 state = 0;

	if (!event)
		return;
	if (sk)
		LOAD("u8", state, sk, K_SOCK_STATE);
	event->state = state;
	submit_event(event);
}

/* A reset answers the packet that it was sent for, where there is one: to a closed port there is no socket. */
static __always_inline void tell_reset_sent(u64 sk, u64 skb)
{
	u8 copy[COPIED_BYTES] __attribute__((aligned(8)));
	struct source from = { .copy = copy };
	struct packet packet = {};
	struct flow_key key = {};
	u64 device;

	if (!skb) {
		if (sk && is_our_socket(sk) && key_of_socket(sk, &key))
			tell_reset(sk, &key, TCP_RESET_SENT);
		return;
	}
	LOAD("u64", device, skb, K_SKB_DEVICE);
	if (!is_our_packet(device, sk) || parse_kernel_packet(skb, &from, &packet) != IN_FLOW)
		return;
	turn_key(&packet.key, &key);
	tell_reset(sk, &key, TCP_RESET_SENT);
}

static __always_inline void tell_reset_received(u64 sk)
{
	struct flow_key key = {};

	if (is_our_socket(sk) && key_of_socket(sk, &key))
		tell_reset(sk, &key, TCP_RESET_RECEIVED);
}

#endif
