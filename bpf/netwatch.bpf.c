// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The program at the hooks of an interface. The way of a packet: measure it, parse it, count that it was seen, then account it to
 * its flow, or count where else it ended. A packet always passes.
 *
 * Configuration comes as -D: MAX_FLOWS, MAX_FRAGMENTS, SAMPLING (one packet in so many), GSO_WIRE (0 or 1).
 */
#include <linux/types.h>
#include <uapi/linux/bpf.h>
#include <asm-generic/errno-base.h>
#include "account.bpf.h"
#include "dns.bpf.h"
#include "gso.bpf.h"
#include "tcp.bpf.h"

/* TCX_NEXT and TC_ACT_UNSPEC alike: the next program of the hook decides. */
#define GO_ON (-1)

#define TEXT(x) #x
#define MACRO_TEXT(x) TEXT(x)

/*
 * Which of the four programs this is. It is compiled once, because clang takes 0.3 s for each copy, and loaded four times:
 * netwatch/kernel/compile.py writes the answer into the one instruction that has this number. To the verifier it is a constant, and it
 * removes the branches that are not taken.
 */
static __always_inline u64 program_kind(void)
{
	u64 kind;

	asm volatile("%0 = " MACRO_TEXT(PROGRAM_KIND_MARK) : "=r"(kind));
	return kind;
}

int netwatch(struct __sk_buff *skb)
{
	u64 kind = program_kind(), now;
	struct source from = { .skb = skb };
	struct packet packet = {};
	struct passage passage = { .hook = skb->ifindex | (kind & PROGRAM_EGRESS ? HOOK_EGRESS : 0) };
	int zero = 0, end = COUNTER_IGNORED_NOT_SAMPLED;
	int is_sampled = is_packet_sampled();
	u64 *word = epoch.lookup(&zero);

	if (!word)
		return GO_ON;
	passage.epoch_word = *word;
	measure_buffer(skb, &passage);
	/* A packet that is not sampled is parsed only where that is needed to count it as it is on the wire. */
	if (is_sampled || (GSO_WIRE && skb->gso_size))
		end = parse(&from, !(kind & PROGRAM_IP), &packet);
	if (GSO_WIRE && end == IN_FLOW)
		measure_segments(&from, &packet, &passage);
	count_seen(&passage);
	if (!is_sampled || (end == IN_FLOW && !is_flow_sampled(&packet.key)))
		end = COUNTER_IGNORED_NOT_SAMPLED;
	if (end == IN_FLOW) {
		now = bpf_ktime_get_ns();
		end = account(skb, &packet, &passage, now);
		if (ENRICH_DNS && (end == IN_FLOW || end == COUNTER_IN_RING))
			tell_dns(&from, &packet, passage.hook, now);
	}
	if (end == NOT_IP)
		count_ethertype(packet.eth_type, &passage);
	else if (end != IN_FLOW)
		count(end, &passage);
	return GO_ON;
}

/*
 * The other hooks. Arguments of a BTF tracepoint are those of its TP_PROTO, in order; the verifier knows their types.
 * Which of these functions are loaded, netwatch/kernel/compile.py decides.
 */
int on_drop(u64 *ctx)
{
	u64 skb = ctx[0];

	tell_drop(skb, DROP_HAS_REASON ? ctx[2] : 0, DROP_HAS_SOCKET ? ctx[3] : 0);
	return 0;
}

int on_tcp_state(u64 *ctx)
{
	u64 sk = ctx[0];
	u16 protocol;

	LOAD("u16", protocol, sk, K_SOCK_PROTOCOL);
	if (protocol == IPPROTO_TCP)
		tell_tcp_state((void *)sk, ctx[1], ctx[2]);
	return 0;
}

int on_tcp_retransmit(u64 *ctx)
{
	tell_retransmit(ctx[0], ctx[1]);
	return 0;
}

int on_tcp_reset_sent(u64 *ctx)
{
	tell_reset_sent(ctx[0], ctx[1]);
	return 0;
}

int on_tcp_reset_received(u64 *ctx)
{
	tell_reset_received(ctx[0]);
	return 0;
}

/* A process makes a socket. Returns whether it may: always. */
int on_socket(struct bpf_sock *sk)
{
	struct socket_note *note = sockets.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (note)
		own(note);
	return 1;
}
