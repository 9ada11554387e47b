/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Packet to flow key. Every bounds check lives here, in header_at().
 *
 * Law: no byte beyond the datagram's own length becomes a field (an Ethernet trailer is not a port), and no payload of a
 * later fragment does either.
 */
#ifndef PARSE_BPF_H
#define PARSE_BPF_H

#include <uapi/linux/if_ether.h>
#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include "fragment.bpf.h"
#include "packet.bpf.h"

#define VLAN_TAGS 2	/* in the frame; one more may be in the socket buffer */
#define EXTENSION_HEADERS 8
#define OFFSET_LIMIT 0x7fff	/* the verifier wants a bound on packet offsets: 8 extension headers x 2,048 B fit */

#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_FRAGMENT_OFFSET 0x1fff
#define IPV6_MORE_FRAGMENTS 0x0001
#define IPV6_FRAGMENT_OFFSET 0xfff8

struct vlan_tag {
	__be16 tci;
	__be16 type;
};

struct extension_header {
	u8 next;
	u8 length;		/* in 8-byte units without the first; in 4-byte units without the first two for AH */
	__be16 fragment;
	__be32 fragment_id;
};

struct tcp_header {
	__be16 src_port;
	__be16 dst_port;
	__be32 sequence[2];
	u8 data_offset;		/* high four bits, in 4-byte units */
	u8 flags;
	__be16 rest[3];
};

struct port_header {
	__be16 src_port;
	__be16 dst_port;
	__be32 rest;
};

struct icmp_header {
	u8 type;
	u8 code;
	__be16 checksum;
};

static __always_inline u32 bytes_of(const struct source *from)
{
	return from->copy ? from->bytes : from->skb->len;
}

/* Not looked for in a copy: a dropped packet of more than 64 KiB, whose header has no length (BIG TCP), is not told. */
static __always_inline u32 gso_size_of(const struct source *from)
{
	return from->copy ? 0 : from->skb->gso_size;
}

/*
 * A header of the packet: in place where it lies in the linear area, else copied into `buffer`. Copied, not pulled:
 * pulling makes the kernel unshare a cloned buffer, and TCP sends clones only.
 */
static __always_inline void *header_at(const struct source *from, u64 offset, void *buffer, u32 size)
{
	struct __sk_buff *skb = from->skb;
	void *data;

	/* Constants, because the verifier knows no variable places on the stack. */
	if (from->copy && offset == 0 && size <= COPIED_BYTES)
		return from->copy;
	if (from->copy && offset == sizeof(struct iphdr) && size <= COPIED_BYTES - sizeof(struct iphdr))
		return from->copy + sizeof(struct iphdr);
	if (from->copy)
		return bpf_probe_read_kernel(buffer, size, (void *)(from->base + offset)) ? NULL : buffer;
	data = (void *)(long)skb->data;
	/* Else clang checks one register and adds another: "R7 offset is outside of the packet". */
	asm volatile("" : "+r"(offset));
	if (offset > OFFSET_LIMIT)
		return NULL;
	if (data + offset + size <= (void *)(long)skb->data_end)
		return data + offset;
	if (bpf_skb_load_bytes(skb, offset, buffer, size))
		return NULL;
	return buffer;
}

/* A header that must also lie within the datagram. */
static __always_inline void *inner_header_at(const struct source *from, const struct packet *packet, u32 offset,
					     void *buffer, u32 size)
{
	if (offset + size > packet->end)
		return NULL;
	return header_at(from, offset, buffer, size);
}

static __always_inline int parse_ethernet(const struct source *from, struct packet *packet)
{
	struct ethhdr buffer, *ethernet = header_at(from, 0, &buffer, sizeof(buffer));
	u32 offset = sizeof(*ethernet);
	__be16 type;

	if (!ethernet)
		return COUNTER_IGNORED_TRUNCATED_LINK;
	__builtin_memcpy(packet->src_mac, ethernet->h_source, ETH_ALEN);
	__builtin_memcpy(packet->dst_mac, ethernet->h_dest, ETH_ALEN);
	type = ethernet->h_proto;
#pragma unroll
	for (int i = 0; i <= VLAN_TAGS; i++) {
		struct vlan_tag tag_buffer, *tag;

		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			break;
		if (i == VLAN_TAGS)
			return COUNTER_IGNORED_DEEP_HEADERS;
		tag = header_at(from, offset, &tag_buffer, sizeof(*tag));
		if (!tag)
			return COUNTER_IGNORED_TRUNCATED_LINK;
		type = tag->type;
		offset += sizeof(*tag);
	}
	packet->eth_type = bpf_ntohs(type);
	/* IEEE 802.3: below 0x600 it is a length, and one kind whatever the length. */
	if (packet->eth_type < ETH_P_802_3_MIN)
		packet->eth_type = 0;
	packet->network = offset;
	return IN_FLOW;
}

static __always_inline int parse_ipv4(const struct source *from, struct packet *packet)
{
	struct iphdr buffer, *ip = header_at(from, packet->network, &buffer, sizeof(buffer));
	u32 header_bytes, total_bytes, fragment;

	if (!ip)
		return COUNTER_IGNORED_TRUNCATED_IP;
	header_bytes = ip->ihl * 4;
	total_bytes = bpf_ntohs(ip->tot_len);
	/* A GSO packet of more than 64 kB has no total length (BIG TCP). */
	if (!total_bytes && gso_size_of(from))
		total_bytes = bytes_of(from) - packet->network;
	if (ip->version != 4 || header_bytes < sizeof(*ip) || total_bytes < header_bytes)
		return COUNTER_IGNORED_BAD_IP;
	packet->key.src_addr[10] = packet->key.src_addr[11] = 0xff;
	packet->key.dst_addr[10] = packet->key.dst_addr[11] = 0xff;
	__builtin_memcpy(packet->key.src_addr + 12, &ip->saddr, 4);
	__builtin_memcpy(packet->key.dst_addr + 12, &ip->daddr, 4);
	packet->key.protocol = ip->protocol;
	packet->dscp = ip->tos >> 2;
	packet->transport = packet->network + header_bytes;
	packet->end = packet->network + total_bytes;
	fragment = bpf_ntohs(ip->frag_off);
	if (fragment & IPV4_FRAGMENT_OFFSET)
		packet->fragment = FRAGMENT_LATER;
	else if (fragment & IPV4_MORE_FRAGMENTS)
		packet->fragment = FRAGMENT_FIRST;
	packet->fragment_id = ip->id;
	return IN_FLOW;
}

/* Walk the extension headers to the first that is none; a later fragment ends the walk. */
static __always_inline int parse_extensions(const struct source *from, struct packet *packet)
{
	u8 next = packet->key.protocol;

	/*
	 * Unrolled, because Linux 6.1 takes no loop that is entered by falling through:
	 * "back-edge from insn 294 to 295".
	 */
#pragma unroll
	for (int i = 0; i <= EXTENSION_HEADERS; i++) {
		struct extension_header buffer, *extension;
		u32 bytes;

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS &&
		    next != IPPROTO_FRAGMENT && next != IPPROTO_AH && next != IPPROTO_MH)
			break;
		/* RFC 6275 6.1.1: nothing follows a mobility header, so it is the protocol. */
		if (next == IPPROTO_MH)
			break;
		if (i == EXTENSION_HEADERS)
			return COUNTER_IGNORED_DEEP_HEADERS;
		extension = inner_header_at(from, packet, packet->transport, &buffer, sizeof(buffer));
		if (!extension)
			return COUNTER_IGNORED_TRUNCATED_IP;
		bytes = (extension->length + 1) * 8;
		if (next == IPPROTO_AH)
			bytes = (extension->length + 2) * 4;
		if (next == IPPROTO_FRAGMENT) {
			u32 fragment = bpf_ntohs(extension->fragment);

			bytes = sizeof(*extension);
			packet->fragment_id = extension->fragment_id;
			if (fragment & IPV6_FRAGMENT_OFFSET)
				packet->fragment = FRAGMENT_LATER;
			else if (fragment & IPV6_MORE_FRAGMENTS)
				packet->fragment = FRAGMENT_FIRST;
		}
		next = extension->next;
		packet->transport += bytes;
		if (packet->fragment == FRAGMENT_LATER)
			break;
	}
	packet->key.protocol = next;
	return IN_FLOW;
}

static __always_inline int parse_ipv6(const struct source *from, struct packet *packet)
{
	struct ipv6hdr buffer, *ip = header_at(from, packet->network, &buffer, sizeof(buffer));
	u32 payload_bytes;

	if (!ip)
		return COUNTER_IGNORED_TRUNCATED_IP;
	if (ip->version != 6)
		return COUNTER_IGNORED_BAD_IP;
	__builtin_memcpy(packet->key.src_addr, &ip->saddr, 16);
	__builtin_memcpy(packet->key.dst_addr, &ip->daddr, 16);
	packet->key.protocol = ip->nexthdr;
	packet->dscp = (ip->priority << 4 | ip->flow_lbl[0] >> 4) >> 2;
	packet->transport = packet->network + sizeof(*ip);
	payload_bytes = bpf_ntohs(ip->payload_len);
	packet->end = packet->transport + payload_bytes;
	/* RFC 2675: a jumbogram's length is in its hop-by-hop options; a GSO packet of more than 64 kB has none. */
	if (!payload_bytes && (gso_size_of(from) || ip->nexthdr == IPPROTO_HOPOPTS))
		packet->end = bytes_of(from);
	return parse_extensions(from, packet);
}

static __always_inline int parse_tcp(const struct source *from, struct packet *packet)
{
	struct tcp_header buffer, *tcp = inner_header_at(from, packet, packet->transport, &buffer, sizeof(buffer));

	if (!tcp)
		return COUNTER_IGNORED_TRUNCATED_TRANSPORT;
	packet->key.src_port = bpf_ntohs(tcp->src_port);
	packet->key.dst_port = bpf_ntohs(tcp->dst_port);
	packet->header_bytes = packet->transport + (tcp->data_offset >> 4) * 4;
	packet->flags = tcp->flags;
	if (tcp->flags & 0x10) {	/* ACK */
		packet->flags |= tcp->flags & 0x02 ? FLAG_SYN_ACK : 0;
		packet->flags |= tcp->flags & 0x01 ? FLAG_FIN_ACK : 0;
		packet->flags |= tcp->flags & 0x04 ? FLAG_RST_ACK : 0;
	}
	return IN_FLOW;
}

static __always_inline int parse_transport(const struct source *from, struct packet *packet)
{
	if (packet->key.protocol == IPPROTO_TCP)
		return parse_tcp(from, packet);
	if (packet->key.protocol == IPPROTO_UDP || packet->key.protocol == IPPROTO_SCTP) {
		struct port_header buffer, *ports;

		ports = inner_header_at(from, packet, packet->transport, &buffer, sizeof(buffer));
		if (!ports)
			return COUNTER_IGNORED_TRUNCATED_TRANSPORT;
		packet->key.src_port = bpf_ntohs(ports->src_port);
		packet->key.dst_port = bpf_ntohs(ports->dst_port);
		/* RFC 768: 8 octets; RFC 9260 3.1: 12, the common header, which SCTP's segments repeat. */
		packet->header_bytes = packet->transport + (packet->key.protocol == IPPROTO_SCTP ? 12 : 8);
	}
	if (packet->key.protocol == IPPROTO_ICMP || packet->key.protocol == IPPROTO_ICMPV6) {
		struct icmp_header buffer, *icmp;

		icmp = inner_header_at(from, packet, packet->transport, &buffer, sizeof(buffer));
		if (!icmp)
			return COUNTER_IGNORED_TRUNCATED_TRANSPORT;
		packet->key.icmp_type = icmp->type;
		packet->key.icmp_code = icmp->code;
	}
	return IN_FLOW;
}

/* The datagram of which `packet` has the Ethernet type and the offset. Returns IN_FLOW, a counter, or NOT_IP. */
static __always_inline int parse_datagram(const struct source *from, struct packet *packet)
{
	int end = NOT_IP;

	if (packet->eth_type == ETH_P_IP)
		end = parse_ipv4(from, packet);
	else if (packet->eth_type == ETH_P_IPV6)
		end = parse_ipv6(from, packet);
	if (end != IN_FLOW)
		return end;
	if (packet->fragment == FRAGMENT_LATER) {
		recall_fragment(packet);
		return IN_FLOW;
	}
	return parse_transport(from, packet);
}

/* Fill `packet`, which is all zero. Returns IN_FLOW, a counter, or NOT_IP. */
static __always_inline int parse(const struct source *from, int has_ethernet, struct packet *packet)
{
	int end = IN_FLOW;

	if (has_ethernet)
		end = parse_ethernet(from, packet);
	else
		packet->eth_type = bpf_ntohs(from->skb->protocol);
	if (end == IN_FLOW)
		end = parse_datagram(from, packet);
	if (end == IN_FLOW && packet->fragment == FRAGMENT_FIRST)
		remember_fragment(packet);
	return end;
}

#endif
