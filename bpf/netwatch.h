/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The ABI between the programs and user space: plain C, fixed widths, largest fields first.
 * netwatch/core/layout.py mirrors it field by field; tests/test_layout.py compiles this file and compares.
 */
#ifndef NETWATCH_H
#define NETWATCH_H

#include <linux/types.h>

/*
 * A hook is one direction of one interface: the interface index, with the top bit set for egress. An index is a
 * positive int, so the bit is free, and 0 is no hook.
 */
#define HOOK_EGRESS 0x80000000u

/* The kinds of program, bits that user space puts in the place of the mark: "KIND" in ASCII, which no constant has. */
#define PROGRAM_EGRESS 1
#define PROGRAM_IP 2	/* packets begin with the IP header */
#define PROGRAM_KIND_MARK 0x4b494e44

/* Flags that TCP does not have: pairs that collectors of pbflow expect, beside the eight bits of the header. */
#define FLAG_SYN_ACK 0x100
#define FLAG_FIN_ACK 0x200
#define FLAG_RST_ACK 0x400

/* Two observed hooks share a word, because BPF has no 32-bit compare-and-swap before its third instruction set. */
#define MAX_OBSERVED 6
#define OBSERVED_WORDS (MAX_OBSERVED / 2)

/* Flow maps in rotation: current, previous (read by the drain, and for a flow's home), idle (cleared). */
#define FLOW_MAPS 3

/*
 * The epoch is one 64-bit word, so that a program reads all of it at once: bits 0 and 1 name the current flow map,
 * bits 2 and 3 the previous one, bit 4 says which of two counters counts, and the rest is the epoch's number.
 */
#define EPOCH_CURRENT(word) ((__u32)(word) & 3)
#define EPOCH_PREVIOUS(word) ((__u32)(word) >> 2 & 3)
#define EPOCH_PARITY(word) ((__u32)(word) >> 4 & 1)
#define EPOCH_NUMBER_SHIFT 5

/* Counters are kept for two epochs: the one that counts, and the one that user space reads. */
#define COUNTED_EPOCHS 2

struct flow_key {
	__u8 src_addr[16];	/* IPv4 as ::ffff:a.b.c.d */
	__u8 dst_addr[16];
	__u16 src_port;		/* host order; 0 where the protocol has none */
	__u16 dst_port;
	__u8 protocol;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 pad;
};
_Static_assert(sizeof(struct flow_key) == 40, "five 64-bit words, no hidden padding");

/*
 * What each packet touches comes first: with the 48 bytes that the kernel keeps before the key of a hash entry, the fields up to `home`
 * end where the second cache line does, and an entry is three lines long.
 */
struct flow_value {
	__u64 packets;
	__u64 bytes;		/* link-layer frames without checksum */
	__u64 last_ns;		/* CLOCK_MONOTONIC, of the last counted packet, here or in the previous epoch */
	__u64 flags;		/* OR of all TCP flags and FLAG_* */
	__u64 home;		/* the hook where packets of this flow count */
	__u64 observed[OBSERVED_WORDS];	/* other hooks, two to a word, first the low half; 0: free */
	__u64 first_ns;		/* 0 while only duplicates were seen */
	__u32 sampling;		/* one packet in so many was looked at */
	__u16 eth_type;		/* host order */
	__u8 src_mac[6];
	__u8 dst_mac[6];
	__u8 dscp;
	__u8 told;		/* TOLD_*: which ends' owners are in the ring already */
	__u32 rtt_us;		/* the last round-trip time in the ring; not exported from here */
	__u8 pad[8];
};
_Static_assert(sizeof(struct flow_value) == 104, "48 of the kernel, 40 of the key: three cache lines");

#define TOLD_SOURCE 1
#define TOLD_DESTINATION 2

/* Packets and bytes of one kind. */
struct tally {
	__u64 packets;
	__u64 bytes;
};
_Static_assert(sizeof(struct tally) == 16, "no hidden padding");

/* What reached one hook on one CPU. A slot belongs to the first hook that came (bpf/count.bpf.h). */
struct hook_tally {
	struct tally tallies[COUNTED_EPOCHS];
	__u32 hook;		/* 0: free */
	__u32 pad;
};
_Static_assert(sizeof(struct hook_tally) == 40, "no hidden padding");
#define HOOK_SLOTS 512

/* A fragmented datagram whose first fragment has passed. */
struct fragment_key {
	__u8 src_addr[16];
	__u8 dst_addr[16];
	__u32 id;		/* network order */
	__u8 protocol;		/* IPv4 only: RFC 791 tells datagrams apart by it, RFC 8200 does not */
	__u8 pad[3];
};
_Static_assert(sizeof(struct fragment_key) == 40, "no hidden padding");

struct fragment_value {
	__u64 seen_ns;
	__u16 src_port;
	__u16 dst_port;
	__u8 protocol;		/* behind IPv6 extension headers only the first fragment knows it */
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 pad;
};
_Static_assert(sizeof(struct fragment_value) == 16, "no hidden padding");

/*
 * Where a packet that reached a hook can end, other than in a flow. Each is an index into the per-CPU counters.
 * Duplicates are counted elsewhere; ignored is by the user's wish or not a countable IP packet; lost is our failure.
 */
enum counter {
	COUNTER_DUPLICATE,
	COUNTER_IGNORED_NOT_SAMPLED,
	COUNTER_IGNORED_ETHERTYPE,	/* not IP, and no room in the table of Ethernet types */
	COUNTER_IGNORED_TRUNCATED_LINK,
	COUNTER_IGNORED_TRUNCATED_IP,
	COUNTER_IGNORED_BAD_IP,
	COUNTER_IGNORED_TRUNCATED_TRANSPORT,
	COUNTER_IGNORED_DEEP_HEADERS,
	COUNTER_LOST_MAP_FULL,
	COUNTER_LOST_INSERT_FAILED,
	COUNTER_IN_RING,	/* the flow map was full, and the packet left as an event (struct flow_event) */
	/* Not an end but a beginning: packets of hooks that found neither a slot nor room in the overflow map. */
	COUNTER_SEEN_ELSEWHERE,
	COUNTERS,
};

/*
 * The enrichment ring. An event and the 8 bytes that the kernel puts before it take whole slots, so that a slot never goes
 * around the end of the ring, and user space finds event n at slot n. Only DNS events may take more than one.
 */
#define EVENT_SLOT_BYTES 128
#define EVENT_HEAD_BYTES 8	/* BPF_RINGBUF_HDR_SZ */
#define EVENT_BYTES (EVENT_SLOT_BYTES - EVENT_HEAD_BYTES)
#define EVENT_MAX_SLOTS 3

/* "RING" in ASCII, where a program names the ring in a way that the compiler does not know (bpf/event.bpf.h). */
#define RING_MARK 0x52494e47

enum event_kind {
	EVENT_DROP,
	EVENT_RTT,
	EVENT_DNS,
	EVENT_TCP,
	EVENT_OWNER,
	EVENT_HOOK,
	EVENT_FLOW,
	EVENT_KINDS,
};

/* Counted for each kind, per CPU, never reset: index kind x EVENT_COUNTERS + one of these. */
enum event_counter {
	EVENT_MADE,	/* handed to the ring, or lost because it was full */
	EVENT_LOST,	/* of these, lost */
	EVENT_THINNED,	/* not made, because it would have said little: merged into another, or unchanged */
	EVENT_COUNTERS,
};

/* How each event begins. */
struct event {
	__u64 time_ns;		/* CLOCK_MONOTONIC */
	struct flow_key key;
	__u32 hook;		/* 0: not at a hook of ours */
	__u16 kind;		/* enum event_kind */
	__u16 size_bytes;	/* whole, with what follows */
};
_Static_assert(sizeof(struct event) == 56, "no hidden padding");

/* Packets of one flow that the kernel dropped for one reason: one, or several that came close together. */
struct drop_event {
	struct event event;	/* the time is the last packet's, and the hook is where the packet was, or would have come next */
	__u64 first_ns;
	__u64 bytes;		/* as a flow's bytes: with link-layer header */
	__u64 packets;
	__u32 reason;		/* enum skb_drop_reason, or a subsystem's; 0 where the kernel gives none */
	__u16 flags;		/* as in struct flow_value, of the last packet */
	__u16 eth_type;
	__u8 tcp_state;		/* of the socket that the last packet was for; 0: no socket */
	__u8 dscp;
	__u8 pad[30];
};
_Static_assert(sizeof(struct drop_event) == EVENT_BYTES, "one slot");

struct rtt_event {
	struct event event;
	__u32 smoothed_us;
	__u32 minimum_us;	/* the kernel's own, of the last five minutes; 0: not known here */
	__u8 is_handshake;	/* measured by SYN and SYN+ACK */
	__u8 pad[55];
};
_Static_assert(sizeof(struct rtt_event) == EVENT_BYTES, "one slot");

/* A DNS message. What is behind the header and the first question is cut off; user space reads it. */
struct dns_event {
	struct event event;
	__u16 message_bytes;	/* as long as it was on the wire */
	__u8 pad[6];
	__u8 message[EVENT_BYTES - 64];	/* and more, in events of several slots */
};
_Static_assert(sizeof(struct dns_event) == EVENT_BYTES, "one slot");

enum tcp_happening {
	TCP_RETRANSMITTED,
	TCP_CHANGED_STATE,
	TCP_RESET_SENT,
	TCP_RESET_RECEIVED,
};

struct tcp_event {
	struct event event;	/* the key is that of the packets which the socket sends */
	__u64 bytes;		/* retransmitted, as a flow's bytes */
	__u32 packets;		/* retransmitted */
	__u32 connect_us;	/* from connect(2) to established, or to its failure; 0: not ours to connect */
	__u16 error;		/* errno of a failed connect */
	__u8 happening;		/* enum tcp_happening */
	__u8 state;		/* the kernel's TCP_*: after the change, or at the moment */
	__u8 old_state;
	__u8 pad[43];
};
_Static_assert(sizeof(struct tcp_event) == EVENT_BYTES, "one slot");

/* Who a socket belongs to: the process that made it, connected it or listens on it. */
struct owner {
	__u64 cgroup_id;
	__u32 pid;
	__u32 pad;
	__u8 command[16];	/* ends with a zero */
};
_Static_assert(sizeof(struct owner) == 32, "no hidden padding");

enum flow_end { END_SOURCE, END_DESTINATION };

struct owner_event {
	struct event event;
	struct owner owner;
	__u8 end;		/* enum flow_end: whose socket it is */
	__u8 pad[31];
};
_Static_assert(sizeof(struct owner_event) == EVENT_BYTES, "one slot");

/* A flow passed a hook for which its row had no room: the one in the head. */
struct hook_event {
	struct event event;
	__u8 pad[64];
};
_Static_assert(sizeof(struct hook_event) == EVENT_BYTES, "one slot");

/* A packet that found no room in the flow map. */
struct flow_event {
	struct event event;
	__u64 bytes;
	__u32 packets;
	__u32 sampling;
	__u16 flags;
	__u16 eth_type;
	__u8 src_mac[6];
	__u8 dst_mac[6];
	__u8 dscp;
	__u8 pad[31];
};
_Static_assert(sizeof(struct flow_event) == EVENT_BYTES, "one slot");

#endif
