/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Fragments. Only the first one of a datagram has a transport header; the later ones learn from it through a bounded table.
 * A later fragment that comes first, or whose entry is gone, belongs to the flow of its addresses and protocol without ports.
 */
#ifndef FRAGMENT_BPF_H
#define FRAGMENT_BPF_H

#include "maps.bpf.h"
#include "packet.bpf.h"

static __always_inline void fill_fragment_key(const struct packet *packet, struct fragment_key *key)
{
	__builtin_memcpy(key->src_addr, packet->key.src_addr, sizeof(key->src_addr));
	__builtin_memcpy(key->dst_addr, packet->key.dst_addr, sizeof(key->dst_addr));
	key->id = packet->fragment_id;
	if (packet->eth_type == ETH_P_IP)
		key->protocol = packet->key.protocol;
}

static __always_inline void remember_fragment(const struct packet *packet)
{
	struct fragment_key key = {};
	struct fragment_value value = {
		.seen_ns = bpf_ktime_get_ns(),
		.src_port = packet->key.src_port,
		.dst_port = packet->key.dst_port,
		.protocol = packet->key.protocol,
		.icmp_type = packet->key.icmp_type,
		.icmp_code = packet->key.icmp_code,
	};

	fill_fragment_key(packet, &key);
	/* Cannot fail for want of room; if it fails, the later fragments count without ports. */
	fragments.update(&key, &value);
}

static __always_inline void recall_fragment(struct packet *packet)
{
	struct fragment_key key = {};
	struct fragment_value *value;

	fill_fragment_key(packet, &key);
	value = fragments.lookup(&key);
	if (!value || bpf_ktime_get_ns() - value->seen_ns > FRAGMENT_LIFETIME_NS)
		return;
	packet->key.src_port = value->src_port;
	packet->key.dst_port = value->dst_port;
	packet->key.protocol = value->protocol;
	packet->key.icmp_type = value->icmp_type;
	packet->key.icmp_code = value->icmp_code;
}

#endif
