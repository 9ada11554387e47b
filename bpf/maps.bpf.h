/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Every map. MAX_FLOWS, FILTER_WORDS, MAX_FRAGMENTS and RING_PAGES come from the configuration, as -D. */
#ifndef MAPS_BPF_H
#define MAPS_BPF_H

#include "netwatch.h"

/*
 * flows_0, flows_1, flows_2: the flows of an epoch, by flow key. In rotation: programs write to the current one and
 * only read the previous one; user space reads the previous one and clears the idle one, so no entry is ever read
 * and written at once across that border. Programs on several CPUs share an entry: sums by atomic addition, the home
 * and the observed hooks by compare-and-swap. Preallocated, because inserting then costs a third of what the
 * allocator takes, and never fails for want of memory in a softirq.
 * Size: MAX_FLOWS x (144 B entry + 48 B head) x 3 + 16 B a bucket x 3; 82 MB of kernel memory at the default 131,072. User space
 * replaces a map that was well filled by a new one rather than deleting its rows, so for a moment there may be a fourth.
 * Full: the packet is lost (COUNTER_LOST_MAP_FULL); known flows go on.
 */
BPF_TABLE("hash", struct flow_key, struct flow_value, flows_0, MAX_FLOWS);
BPF_TABLE("hash", struct flow_key, struct flow_value, flows_1, MAX_FLOWS);
BPF_TABLE("hash", struct flow_key, struct flow_value, flows_2, MAX_FLOWS);

/*
 * flow_maps: the three by number. Written by user space: at start, and again at each drain, with what is already
 * there, because that update returns only after every program that runs has ended (the kernel waits for an RCU grace
 * period after each change of a map in a map).
 */
BPF_ARRAY_OF_MAPS(flow_maps, "flows_0", FLOW_MAPS);

/*
 * flow_filter: a Bloom filter of each flow map's keys, two bits of one word for a key. A new flow looks into the previous map only
 * where the filter says that it may be there: that look walks a chain of strangers, 600 ns of cache misses when the map is large, and most
 * new flows are nowhere. Programs set bits, before they insert the row; user space clears the filter of the idle map, through a mapping.
 * FILTER_WORDS (-D) is a power of 2 with 8 bits for each flow that the map takes: 3 x 128 kB at the default; 5 % of the looks are in vain.
 */
BPF_F_TABLE("array", int, u64, flow_filter, FLOW_MAPS * FILTER_WORDS, BPF_F_MMAPABLE);

/* epoch: one word (EPOCH_* in netwatch.h). Written by user space at a drain, read once by each run of a program. */
BPF_ARRAY(epoch, u64, 1);

/*
 * full: since when the current map takes no more flows. Written by programs, without exclusion: the worst race costs
 * one futile insert. A failed insert walks every CPU's free list (1.8 us measured), so for FULL_FOR_NS after one no
 * other is tried in that epoch.
 */
struct fullness {
	u64 epoch_word;
	u64 since_ns;
};
BPF_ARRAY(full, struct fullness, 1);
#define FULL_FOR_NS 10000000ull

/*
 * counters: per CPU, index 2 x enum counter + parity of the epoch. Programs add, user space reads the half of the closed epoch
 * and takes the difference to its last reading, so nothing is ever reset.
 */
BPF_PERCPU_ARRAY(counters, struct tally, COUNTERS * COUNTED_EPOCHS);

/*
 * hooks: per CPU, what reached each hook: a table of HOOK_SLOTS with the slot chosen by the interface index. The first hook
 * that comes owns a slot; a hook that finds it taken counts in hook_overflow. An array costs 3 ns where a hash costs 38,
 * and every packet pays it. Size: 512 x 40 B = 20 kB a CPU; 256 interfaces of consecutive index have a slot each.
 * User space frees the slots of interfaces that are gone.
 */
BPF_PERCPU_ARRAY(hooks, struct hook_tally, HOOK_SLOTS);

/*
 * hook_overflow: as hooks, by hook, for those without a slot. Full at 4,096 hooks: COUNTER_SEEN_ELSEWHERE counts, so that
 * the sum stays exact while the hook is unknown.
 */
BPF_TABLE("percpu_hash", u32, struct hook_tally, hook_overflow, 4096);

/*
 * ethertypes: per CPU, what is not IP, by 2 x Ethernet type + parity of the epoch. Full at 512 types:
 * COUNTER_IGNORED_ETHERTYPE counts.
 */
BPF_TABLE("percpu_hash", u32, struct tally, ethertypes, 1024);

/*
 * fragments: what the first fragment of a datagram told, for the later ones. Least recently used entries make room: a
 * fragment that comes after its entry went counts in a flow without ports. 4,096 x (56 B + 56 B head) = 0.5 MB.
 */
BPF_TABLE("lru_hash", struct fragment_key, struct fragment_value, fragments, MAX_FRAGMENTS);
/* Linux itself gives a datagram 30 s (IPv4) or 60 s (IPv6) to become whole; an identifier may return after that. */
#define FRAGMENT_LIFETIME_NS 30000000000ull

/*
 * ring: the events, struct event in netwatch.h first. Written by all programs, read by user space through a mapping. RING_PAGES
 * (-D) is a power of 2; 8 MiB at the default: 65,536 slots of 128 B, 131 ms of 500,000 events a second, and user space comes
 * after 100 ms at the latest. Full: the event is lost (EVENT_LOST of its kind); a packet that was to go this way is lost, too
 * (COUNTER_LOST_MAP_FULL).
 */
BPF_RINGBUF_OUTPUT(ring, RING_PAGES);
#define RING_WAKE_BYTES (RING_PAGES * 4096ull / 4)

/* ring_wake: for which consumer position user space was woken, so that it is woken once; and how often in all. */
struct ring_wake {
	u64 position;
	u64 count;
};
BPF_ARRAY(ring_wake, struct ring_wake, 1);

/* event_counters: per CPU, index enum event_kind x EVENT_COUNTERS + enum event_counter. Only ever grows. */
BPF_PERCPU_ARRAY(event_counters, u64, EVENT_KINDS * EVENT_COUNTERS);

/*
 * drop_tables: per CPU, the drops that are being merged: each waits in a slot for others of its flow and reason. The slot is chosen by a
 * hash; another flow that comes to it sends what is in it and takes its place. Two halves: programs use that of the current turn, user space
 * takes what is in the other, so nothing is read while it is written. Exclusive: the kernel never runs the drop
 * program within itself on a CPU.
 * 64: where most flows drop once, each comes to a slot that has grown cold. With 256 that takes 70 ns longer.
 * drop_turn: mapped by user space. `number` is written there: which turn it is. Not the epoch: a turn ends after the grace of a drain, so that
 * a packet that was counted in the epoch's last microsecond and then dropped is told with its flow. `used` is written by programs:
 * the latest turn in which each half was used. What was not used needs not be read.
 */
#define DROP_HALVES 2
#define DROP_SLOTS 64
struct drop_slot {
	struct drop_event pending;
	u64 turn;		/* of another turn: nothing is pending */
};
struct drop_table {
	struct drop_slot slots[DROP_SLOTS];
};
BPF_PERCPU_ARRAY(drop_tables, struct drop_table, DROP_HALVES);
struct drop_turn {
	u64 number;		/* from 1, so that 0 is none */
	u64 used[DROP_HALVES];
};
BPF_F_TABLE("array", int, struct drop_turn, drop_turn, 1, BPF_F_MMAPABLE);

/*
 * sockets: what is known of a socket: its owner, and since when it connects. Written where a process makes, connects or opens a socket, and
 * by user space for those that were there before; read where its packets pass. Accepted sockets inherit it (BPF_F_CLONE).
 * Goes with the socket. Not to be had without memory: then the socket has no owner (struct owner in no event).
 */
struct socket_note {
	struct owner owner;
	u64 connecting_ns;
};
struct sockets_table_t {
	int key;
	struct socket_note leaf;
	void *(*sk_storage_get)(void *, void *, int);
	int (*sk_storage_delete)(void *);
	u32 flags;
};
__attribute__((section("maps/sk_storage")))
struct sockets_table_t sockets = { .flags = BPF_F_NO_PREALLOC | BPF_F_CLONE };
BPF_ANNOTATE_KV_PAIR(sockets, int, struct socket_note);

/* dns_scratch: per CPU, an event that is longer than the stack has room for. Programs at packet hooks do not nest. */
struct dns_scratch {
	struct dns_event event;
	u8 more[EVENT_SLOT_BYTES * (EVENT_MAX_SLOTS - 1)];
};
BPF_PERCPU_ARRAY(dns_scratch, struct dns_scratch, 1);

/*
 * told_hooks: hooks beyond the six of a row that were told already, in this epoch. Least recently used entries make room:
 * then a hook is told once more, which changes nothing. 8,192 x (56 B + 56 B head) = 0.9 MB.
 */
struct told_hook {
	struct flow_key key;
	u32 hook;
	u32 epoch;
};
BPF_TABLE("lru_hash", struct told_hook, u8, told_hooks, 8192);

#endif
