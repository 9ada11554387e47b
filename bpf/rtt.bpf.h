/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The round-trip time that the kernel measures for its own TCP sockets, read where they send.
 *
 * An event is made when the smoothed value has moved by more than 1/RTT_FRACTION since the last one, and at the first packet
 * of each row: so at least once for each drain. Read here rather than in the tcp_probe tracepoint, which runs for each received segment of
 * every socket of the machine.
 */
#ifndef RTT_BPF_H
#define RTT_BPF_H

#include "event.bpf.h"
#include "packet.bpf.h"

static __always_inline void tell_rtt(struct bpf_sock *sk, struct flow_value *row, const struct packet *packet, u32 hook,
				     u64 now)
{
	struct bpf_sock *full = bpf_sk_fullsock(sk);
	struct rtt_event *event;
	struct bpf_tcp_sock *tcp;
	u32 smoothed_us, moved_us;

	if (!full)
		return;
	tcp = bpf_tcp_sock(full);
	if (!tcp)
		return;
	smoothed_us = tcp->srtt_us >> 3;	/* the kernel keeps eight times the value */
	if (!smoothed_us)
		return;
	moved_us = smoothed_us > row->rtt_us ? smoothed_us - row->rtt_us : row->rtt_us - smoothed_us;
	if (moved_us * RTT_FRACTION <= row->rtt_us) {
		if (moved_us)
			count_event(EVENT_RTT, EVENT_THINNED);
		return;
	}
	event = reserve_event(EVENT_RTT, &packet->key, hook, now);
	if (!event)
		return;
	event->smoothed_us = smoothed_us;
	event->minimum_us = tcp->rtt_min;
	submit_event(event);
	row->rtt_us = smoothed_us;
}

#endif
