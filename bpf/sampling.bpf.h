/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Which packets are looked at. SAMPLING (-D): one in so many; SAMPLE_FLOWS: whole conversations instead of packets, so that every hook comes
 * to the same answer by itself.
 */
#ifndef SAMPLING_BPF_H
#define SAMPLING_BPF_H

#include "netwatch.h"

/* The same for both directions: the ends are hashed alike and added. */
static __always_inline u32 conversation_hash(const struct flow_key *key)
{
	const u64 *source = (const u64 *)key->src_addr, *destination = (const u64 *)key->dst_addr;
	u64 one = (source[0] ^ source[1] * 0x9e3779b97f4a7c15ull ^ key->src_port) * 0xc2b2ae3d27d4eb4full;
	u64 other = (destination[0] ^ destination[1] * 0x9e3779b97f4a7c15ull ^ key->dst_port) * 0xc2b2ae3d27d4eb4full;

	return ((one ^ one >> 32) + (other ^ other >> 32)) * 0x165667b19e3779f9ull >> 32;
}

/* Where packets are sampled, what belongs to a flow without a row is left out by user space. */
static __always_inline int is_flow_sampled(const struct flow_key *key)
{
	return !SAMPLE_FLOWS || conversation_hash(key) % SAMPLING == 0;
}

static __always_inline int is_packet_sampled(void)
{
	return SAMPLE_FLOWS || SAMPLING == 1 || bpf_get_prandom_u32() % SAMPLING == 0;
}

#endif
