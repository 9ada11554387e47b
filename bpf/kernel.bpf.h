/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Fields of kernel structures, at the offsets that the running kernel's BTF gives (K_*, -D). LOAD is for pointers that the
 * verifier knows (arguments of a BTF tracepoint, and what they lead to): one instruction, checked against BTF at load, and a bad pointer reads as 0.
 *
 * In assembly, because BCC would make a call of bpf_probe_read_kernel() out of the C expression: 20 ns instead of 1.
 */
#ifndef KERNEL_BPF_H
#define KERNEL_BPF_H

#include "event.bpf.h"
#include "parse.bpf.h"

#define LOAD(type, value, base, offset) \
	asm volatile("%0 = *(" type " *)(%1 + %2)" : "=r"(value) : "r"(base), "i"(offset))

/* include/net/tcp_states.h: a contract with user space, and the same everywhere. */
enum { TCP_ESTABLISHED = 1, TCP_SYN_SENT, TCP_TIME_WAIT = 6, TCP_CLOSE, TCP_CLOSE_WAIT, TCP_LISTEN = 10 };

#define AF_INET 2
#define AF_INET6 10

/* Kernel addresses have the top bit set. A UDP socket keeps a number in place of a queued packet's device. */
static __always_inline int is_kernel_address(u64 address)
{
	return (s64)address < 0;
}

static __always_inline void *kernel(u64 base, u64 offset)
{
	return (void *)(base + offset);
}

/* NETNS (-D) is the inode number of the network namespace to watch, 0 for all. */
static __always_inline int is_our_namespace(u64 net)
{
	u32 number = 0;

	if (!NETNS)
		return 1;
	if (!net)
		return 0;
	LOAD("u32", number, net, K_NET_NUMBER);
	return number == NETNS;
}

static __always_inline int is_our_socket(u64 sk)
{
	u64 net;

	LOAD("u64", net, sk, K_SOCK_NET);
	return is_our_namespace(net);
}

/* The key of what a TCP socket sends. The local port is inet_sport: a socket that closes has given up skc_num by then. */
static __always_inline int key_of_socket(u64 sk, struct flow_key *key)
{
	__be16 src_port = 0, dst_port;
	u16 family;

	LOAD("u16", family, sk, K_SOCK_FAMILY);
	if (family == AF_INET) {
		key->src_addr[10] = key->src_addr[11] = 0xff;
		key->dst_addr[10] = key->dst_addr[11] = 0xff;
		bpf_probe_read_kernel(key->src_addr + 12, 4, kernel(sk, K_SOCK_SADDR));
		bpf_probe_read_kernel(key->dst_addr + 12, 4, kernel(sk, K_SOCK_DADDR));
	} else if (family == AF_INET6) {
		bpf_probe_read_kernel(key->src_addr, 16, kernel(sk, K_SOCK_SADDR6));
		bpf_probe_read_kernel(key->dst_addr, 16, kernel(sk, K_SOCK_DADDR6));
	} else {
		return 0;
	}
	bpf_probe_read_kernel(&src_port, 2, kernel(sk, K_SOCK_SPORT));
	LOAD("u16", dst_port, sk, K_SOCK_DPORT);
	key->src_port = bpf_ntohs(src_port);
	key->dst_port = bpf_ntohs(dst_port);
	key->protocol = IPPROTO_TCP;
	return 1;
}

/* The key of the other direction, but for what only ICMP has. `turned` is zero before. */
static __always_inline void turn_key(const struct flow_key *key, struct flow_key *turned)
{
	__builtin_memcpy(turned->src_addr, key->dst_addr, sizeof(turned->src_addr));
	__builtin_memcpy(turned->dst_addr, key->src_addr, sizeof(turned->dst_addr));
	turned->src_port = key->dst_port;
	turned->dst_port = key->src_port;
	turned->protocol = key->protocol;
}

/* A datagram somewhere in the kernel: fills `packet`, and `from`, whose base is the IP header; `from->copy` is there. Returns IN_FLOW or why not. */
static __always_inline int parse_kernel_packet(u64 skb, struct source *from, struct packet *packet)
{
	u64 head, data;
	u16 network;
	__be16 protocol;

	LOAD("u16", protocol, skb, K_SKB_PROTOCOL);
	packet->eth_type = bpf_ntohs(protocol);
	if (packet->eth_type != ETH_P_IP && packet->eth_type != ETH_P_IPV6)
		return NOT_IP;
	LOAD("u64", head, skb, K_SKB_HEAD);
	LOAD("u64", data, skb, K_SKB_DATA);
	LOAD("u16", network, skb, K_SKB_NETWORK_HEADER);
	LOAD("u32", from->bytes, skb, K_SKB_LEN);
	from->base = head + network;
	/* How much of it was pulled off, or how much stands before it. */
	from->bytes += data - from->base;
	/* Behind the end of a short packet it reads what stands there; header_at() is asked for no more than the datagram has. */
	if (bpf_probe_read_kernel(from->copy, COPIED_BYTES, (void *)from->base))
		return COUNTER_IGNORED_TRUNCATED_IP;
	return parse_datagram(from, packet);
}

#endif
