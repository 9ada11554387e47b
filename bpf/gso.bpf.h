/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * A GSO packet, as it will be or was on the wire: so many segments, each with all the headers.
 *
 * With GSO_WIRE = 0 a socket buffer counts as one packet of its own length. In both cases a VLAN tag that the device will
 * insert is part of the frame.
 */
#ifndef GSO_BPF_H
#define GSO_BPF_H

#include "parse.bpf.h"

/* RFC 7348: flags, reserved, network identifier, reserved; then an Ethernet frame. */
#define VXLAN_BYTES 8
#define VXLAN_FLAGS 0x08
#define VLAN_BYTES 4

/* The offset behind the TCP header of an IP packet inside a tunnel, whose datagram must reach to the end; else 0. */
static __always_inline u32 inner_header_bytes(const struct source *from, u32 network)
{
	struct ipv6hdr buffer, *ip = header_at(from, network, &buffer, sizeof(buffer));
	struct tcp_header tcp_buffer, *tcp;
	u32 transport, end;

	if (!ip)
		return 0;
	if (ip->version == 4) {
		struct iphdr *ipv4 = (struct iphdr *)ip;

		transport = network + ipv4->ihl * 4;
		end = network + bpf_ntohs(ipv4->tot_len);
		if (ipv4->protocol != IPPROTO_TCP)
			return 0;
	} else {
		transport = network + sizeof(*ip);
		end = transport + bpf_ntohs(ip->payload_len);
		if (ip->version != 6 || ip->nexthdr != IPPROTO_TCP)
			return 0;
	}
	/* Merged UDP datagrams that happen to carry VXLAN keep the inner lengths of the first: those end earlier. */
	if (end != bytes_of(from))
		return 0;
	tcp = header_at(from, transport, &tcp_buffer, sizeof(*tcp));
	if (!tcp)
		return 0;
	return transport + (tcp->data_offset >> 4) * 4;
}

/* All headers of each segment; for VXLAN and IP in IP up to the inner payload. */
static __always_inline u32 segment_header_bytes(const struct source *from, const struct packet *packet)
{
	u32 inner = 0;

	if (packet->key.protocol == IPPROTO_IPIP || packet->key.protocol == IPPROTO_IPV6)
		inner = inner_header_bytes(from, packet->transport);
	if (packet->key.protocol == IPPROTO_UDP) {
		u8 buffer, *flags = header_at(from, packet->header_bytes, &buffer, sizeof(buffer));

		if (flags && *flags == VXLAN_FLAGS)
			inner = inner_header_bytes(from, packet->header_bytes + VXLAN_BYTES + ETH_HLEN);
	}
	return inner ? inner : packet->header_bytes;
}

/* Set what a packet counts as before anything is known of its inside. */
static __always_inline void measure_buffer(struct __sk_buff *skb, struct passage *passage)
{
	passage->packets = 1;
	passage->bytes = skb->len;
	if (skb->vlan_present)
		passage->bytes += VLAN_BYTES;
}

/* Set what a GSO packet counts as, from its parsed headers. */
static __always_inline void measure_segments(const struct source *from, const struct packet *packet,
					     struct passage *passage)
{
	struct __sk_buff *skb = from->skb;
	u32 segment_bytes = skb->gso_size, header_bytes, segments = skb->gso_segs;

	if (!segment_bytes)
		return;
	header_bytes = segment_header_bytes(from, packet);
	/* A guest's packet comes without a count that the kernel believes. */
	if (!segments && header_bytes && skb->len > header_bytes)
		segments = (skb->len - header_bytes + segment_bytes - 1) / segment_bytes;
	if (segments < 2)
		return;
	passage->packets = segments;
	passage->bytes = skb->len + (segments - 1) * header_bytes;
	/* At egress the kernel has done the same sum and knows every tunnel's headers; at ingress this is skb->len. */
	if (skb->wire_len > passage->bytes)
		passage->bytes = skb->wire_len;
	if (skb->vlan_present)
		passage->bytes += segments * VLAN_BYTES;
}

#endif
