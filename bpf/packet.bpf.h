/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* A packet as the programs see it: what parsing found. */
#ifndef PACKET_BPF_H
#define PACKET_BPF_H

#include "netwatch.h"

enum fragment_kind { FRAGMENT_NONE, FRAGMENT_FIRST, FRAGMENT_LATER };

/* Where a packet ends, beside the counters of netwatch.h. */
#define IN_FLOW (-1)
#define NOT_IP COUNTERS

/*
 * Where a packet's bytes are: at one of our hooks (`skb`), or, with a `copy`, in kernel memory from `base` on. The compiler knows
 * which, and leaves the other out.
 */
struct source {
	struct __sk_buff *skb;
	u8 *copy;		/* of what begins at `base`, COPIED_BYTES of it */
	u64 base;
	u32 bytes;		/* from `base` on */
};
#define COPIED_BYTES 40		/* an IPv6 header; an IPv4 header without options, and a TCP header */

struct packet {
	struct flow_key key __attribute__((aligned(8)));	/* read as words where it is hashed */
	u32 network;		/* offset of the IP header */
	u32 transport;		/* offset of what follows it and its extensions */
	u32 end;		/* offset behind the datagram, as its header says */
	u32 header_bytes;	/* all headers up to the payload; 0 where not known */
	u32 fragment_id;	/* network order */
	u16 fragment;		/* enum fragment_kind */
	u16 eth_type;
	u16 flags;
	u8 dscp;
	u8 src_mac[6];
	u8 dst_mac[6];
};

#endif
