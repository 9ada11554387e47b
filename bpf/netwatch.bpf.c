// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The programs at the hooks of an interface. The way of a packet: measure it, parse it, count that it was seen, then account
 * it to its flow, or count why not. A packet always passes.
 *
 * Configuration comes as -D: MAX_FLOWS, MAX_FRAGMENTS, SAMPLING (one packet in so many), GSO_WIRE (0 or 1).
 */
#include <linux/types.h>
#include <uapi/linux/bpf.h>
#include <asm-generic/errno-base.h>
#include "account.bpf.h"
#include "gso.bpf.h"

/* TCX_NEXT and TC_ACT_UNSPEC alike: the next program of the hook decides. */
#define GO_ON (-1)

static __always_inline int on_packet(struct __sk_buff *skb, u32 direction, int has_ethernet)
{
	struct packet packet = {};
	struct passage passage = { .hook = skb->ifindex | direction };
	int zero = 0, end = COUNTER_IGNORED_NOT_SAMPLED;
	int is_sampled = SAMPLING == 1 || bpf_get_prandom_u32() % SAMPLING == 0;
	u64 *word = epoch.lookup(&zero);

	if (!word)
		return GO_ON;
	passage.epoch_word = *word;
	measure_buffer(skb, &passage);
	/* A packet that is not sampled is parsed only where that is needed to count it as it is on the wire. */
	if (is_sampled || (GSO_WIRE && skb->gso_size))
		end = parse(skb, has_ethernet, &packet);
	if (GSO_WIRE && end == IN_FLOW)
		measure_segments(skb, &packet, &passage);
	count_seen(&passage);
	if (!is_sampled)
		end = COUNTER_IGNORED_NOT_SAMPLED;
	else if (end == IN_FLOW)
		end = account(&packet, &passage);
	if (end == NOT_IP)
		count_ethertype(packet.eth_type, &passage);
	else if (end != IN_FLOW)
		count(end, &passage);
	return GO_ON;
}

int ingress_ethernet(struct __sk_buff *skb)
{
	return on_packet(skb, 0, 1);
}

int egress_ethernet(struct __sk_buff *skb)
{
	return on_packet(skb, HOOK_EGRESS, 1);
}

int ingress_ip(struct __sk_buff *skb)
{
	return on_packet(skb, 0, 0);
}

int egress_ip(struct __sk_buff *skb)
{
	return on_packet(skb, HOOK_EGRESS, 0);
}
