/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * DNS messages, as they are: header and first question, copied into the ring. User space reads them (netwatch/core/dns_message.py):
 * names are no business of a program that may not loop for long.
 */
#ifndef DNS_BPF_H
#define DNS_BPF_H

#include "event.bpf.h"
#include "parse.bpf.h"

#define DNS_HEADER_BYTES 12	/* RFC 1035 4.1.1 */
#define DNS_LENGTH_BYTES 2	/* RFC 1035 4.2.2: before each message on TCP */
#define DNS_HEAD_BYTES 64	/* struct dns_event up to the message */
#define DNS_MOST_BYTES (EVENT_BYTES + EVENT_SLOT_BYTES * (EVENT_MAX_SLOTS - 1) - DNS_HEAD_BYTES)
_Static_assert(DNS_MOST_BYTES >= DNS_HEADER_BYTES + 255 + 4, "header, the longest name, type and class");

static __always_inline int is_dns_port(u16 port)
{
	return port && (port == DNS_PORT_0 || port == DNS_PORT_1 || port == DNS_PORT_2 || port == DNS_PORT_3);
}

/* Copy `bytes` of the message into an event and send it. */
static __always_inline void send_dns(const struct source *from, const struct packet *packet, u32 hook, u32 offset,
				     u32 bytes, u64 now)
{
	u64 copied = bytes < DNS_MOST_BYTES ? bytes : DNS_MOST_BYTES, size;
	int zero = 0;
	struct dns_scratch *scratch = dns_scratch.lookup(&zero);

	/*
	 * Neither can be: the map has its entry, and the packet was found to be long enough. Else clang checks one register
	 * and passes another: "R4 min value is negative".
	 */
	asm volatile("" : "+r"(copied));
	if (!scratch || copied < DNS_HEADER_BYTES || copied > DNS_MOST_BYTES)
		return;
	__builtin_memset(scratch, 0, sizeof(*scratch));
	count_event(EVENT_DNS, EVENT_MADE);
	if (bpf_skb_load_bytes(from->skb, offset, scratch->event.message, copied)) {
		count_event(EVENT_DNS, EVENT_LOST);
		return;
	}
	size = DNS_HEAD_BYTES + copied + EVENT_HEAD_BYTES + EVENT_SLOT_BYTES - 1;
	size = size / EVENT_SLOT_BYTES * EVENT_SLOT_BYTES - EVENT_HEAD_BYTES;
	scratch->event.event.time_ns = now;
	scratch->event.event.key = packet->key;
	scratch->event.event.hook = hook;
	scratch->event.event.kind = EVENT_DNS;
	scratch->event.event.size_bytes = size;
	scratch->event.message_bytes = bytes;
	asm volatile("" : "+r"(size));
	if (size > sizeof(*scratch))
		return;
	if (ring.ringbuf_output(scratch, size, wake_flag()))
		count_event(EVENT_DNS, EVENT_LOST);
}

/* A segment in the middle of a stream is no message: its third word would have to be by chance the count of one question. */
static __always_inline int is_dns_segment(const struct source *from, u32 offset)
{
	__be16 questions = 0;

	return !bpf_skb_load_bytes(from->skb, offset + 4, &questions, sizeof(questions)) && questions == bpf_htons(1);
}

/* Send the message of a packet that counted, if it is one: so each message is sent once, however many hooks it passes. */
static __always_inline void tell_dns(const struct source *from, const struct packet *packet, u32 hook, u64 now)
{
	u32 offset = packet->header_bytes;

	if (!is_dns_port(packet->key.src_port) && !is_dns_port(packet->key.dst_port))
		return;
	if (packet->fragment == FRAGMENT_LATER)
		return;
	if (packet->key.protocol == IPPROTO_TCP)
		offset += DNS_LENGTH_BYTES;
	else if (packet->key.protocol != IPPROTO_UDP)
		return;
	/* An empty segment, a SYN: no message. */
	if (!packet->header_bytes || offset + DNS_HEADER_BYTES > packet->end)
		return;
	if (packet->key.protocol == IPPROTO_TCP && !is_dns_segment(from, offset))
		return;
	send_dns(from, packet, hook, offset, packet->end - offset, now);
}

#endif
