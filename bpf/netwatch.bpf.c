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
#include "gso.bpf.h"

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
	u64 kind = program_kind();
	struct packet packet = {};
	struct passage passage = { .hook = skb->ifindex | (kind & PROGRAM_EGRESS ? HOOK_EGRESS : 0) };
	int zero = 0, end = COUNTER_IGNORED_NOT_SAMPLED;
	int is_sampled = SAMPLING == 1 || bpf_get_prandom_u32() % SAMPLING == 0;
	u64 *word = epoch.lookup(&zero);

	if (!word)
		return GO_ON;
	passage.epoch_word = *word;
	measure_buffer(skb, &passage);
	/* A packet that is not sampled is parsed only where that is needed to count it as it is on the wire. */
	if (is_sampled || (GSO_WIRE && skb->gso_size))
		end = parse(skb, !(kind & PROGRAM_IP), &packet);
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
