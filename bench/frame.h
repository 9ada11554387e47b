/*
 * What a generated packet looks like: Ethernet, IPv4 or IPv6, UDP, each checksum right.
 *
 * Law: flow n differs from every other flow in one endpoint, the varied one: its port is 1024 + n % 64512, its
 * address is the given one + n / 64512. The other endpoint and the payload stay the same.
 */
#ifndef FRAME_H
#define FRAME_H

#include <arpa/inet.h>
#include <net/ethernet.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/udp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#define FIRST_PORT 1024u
#define PORTS (65536u - FIRST_PORT)

struct endpoint {
	struct in6_addr address;	/* IPv4 in the last four octets */
	uint16_t port;
};

static inline struct endpoint vary(struct endpoint endpoint, uint64_t flow)
{
	struct in6_addr *address = &endpoint.address;

	address->s6_addr32[3] = htonl(ntohl(address->s6_addr32[3]) + (uint32_t)(flow / PORTS));
	endpoint.port = FIRST_PORT + flow % PORTS;
	return endpoint;
}

static inline size_t headers_length(int family)
{
	size_t ip_length = family == AF_INET ? sizeof(struct iphdr) : sizeof(struct ip6_hdr);

	return sizeof(struct ether_header) + ip_length + sizeof(struct udphdr);
}

/* Add up 16-bit words in network order (RFC 1071). Only the last part of a sum may have an odd length. */
static inline uint32_t sum_words(const void *data, size_t length, uint32_t sum)
{
	const uint8_t *octets = data;
	size_t i;

	for (i = 0; i + 1 < length; i += 2)
		sum += octets[i] << 8 | octets[i + 1];
	return length % 2 ? sum + (octets[length - 1] << 8) : sum;
}

static inline uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons(~sum & 0xffff);
}

static inline void write_ip(uint8_t *ip, int family, const struct endpoint *from, const struct endpoint *to,
			    uint16_t udp_length)
{
	if (family == AF_INET) {
		struct iphdr header = { .version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP };

		header.frag_off = htons(IP_DF);
		header.tot_len = htons(sizeof(header) + udp_length);
		header.saddr = from->address.s6_addr32[3];
		header.daddr = to->address.s6_addr32[3];
		header.check = fold(sum_words(&header, sizeof(header), 0));
		memcpy(ip, &header, sizeof(header));
	} else {
		struct ip6_hdr header = { .ip6_src = from->address, .ip6_dst = to->address };

		header.ip6_flow = htonl(6u << 28);
		header.ip6_plen = htons(udp_length);
		header.ip6_nxt = IPPROTO_UDP;
		header.ip6_hlim = 64;
		memcpy(ip, &header, sizeof(header));
	}
}

/* Write IP and UDP headers behind the Ethernet header. `payload_sum` is sum_words() of the payload that is there. */
static inline void write_headers(uint8_t *frame, int family, const struct endpoint *from, const struct endpoint *to,
				 size_t payload, uint32_t payload_sum)
{
	size_t unused = family == AF_INET ? 12 : 0;
	struct udphdr udp = {
		.source = htons(from->port),
		.dest = htons(to->port),
		.len = htons(sizeof(udp) + payload),
	};
	/* The pseudo-header of RFC 768 is addresses, protocol and length. */
	uint32_t sum = payload_sum + IPPROTO_UDP + ntohs(udp.len);

	write_ip(frame + sizeof(struct ether_header), family, from, to, ntohs(udp.len));
	sum = sum_words(from->address.s6_addr + unused, 16 - unused, sum);
	sum = sum_words(to->address.s6_addr + unused, 16 - unused, sum);
	udp.check = fold(sum_words(&udp, sizeof(udp), sum));
	if (!udp.check)
		udp.check = 0xffff;	/* RFC 768: "If the computed checksum is zero, it is transmitted as all ones" */
	memcpy(frame + headers_length(family) - sizeof(udp), &udp, sizeof(udp));
}

#endif
