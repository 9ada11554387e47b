/*
 * Generate UDP traffic of which every packet is known: unique 5-tuples, an exact pace, one core.
 *
 * Law: the report counts a packet when the kernel has accepted it, and then once. Packets take the device's ordinary
 * way out (PACKET_QDISC_BYPASS stays off), so each passes the egress hooks. A packet that the device refuses may
 * have passed them before; it is sent again, and `errors` says how often that happened: where `errors` is 0, the
 * egress hooks have seen exactly `packets`. Every run is bounded by time and by count. At its end no packet is under
 * way: what went through a veth has passed the ingress hook there.
 *
 * Prints one line of JSON. bench/generator.py builds and runs it; bench/settings.h reads the
 * options, bench/frame.h says what flow n looks like.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>

#include "settings.h"

#define SECOND_NS 1000000000ull
#define BATCH 64u	/* packets in one sendmmsg: its cost is spread thin, and the burst stays short */
#define WINDOW 64u	/* flows whose packets take turns, so that a flow's packets do not come in one run */
#define MAX_FRAME 9216u
#define PAUSE_NS 100000ull
#define MAX_PAUSES 100000u	/* 10 s: a device may keep what it has */

/* What one sendmmsg needs. In packet mode a message is a whole frame; in socket mode its payload alone is sent. */
static struct mmsghdr messages[BATCH];
static struct iovec pieces[BATCH];
static struct sockaddr_in6 addresses[BATCH];
static uint8_t frames[BATCH][MAX_FRAME];
static uint32_t payload_sum;

static volatile sig_atomic_t stopped;

static void stop(int signal_number)
{
	(void)signal_number;
	stopped = 1;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * SECOND_NS + now.tv_nsec;
}

static void sleep_until(uint64_t at_ns)
{
	struct timespec at = { .tv_sec = at_ns / SECOND_NS, .tv_nsec = at_ns % SECOND_NS };

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);	/* a signal ends it early: the loop looks again */
}

/*
 * Flows take turns in windows: the first packet of each flow of the window, then the second of each, and so on.
 * Place `packet` in that order: its flow, and how many flows have begun before it.
 */
static uint64_t place(const struct settings *settings, uint64_t packet, uint64_t *begun)
{
	uint64_t in_window = WINDOW * settings->packets_per_flow;
	uint64_t first = packet / in_window * WINDOW;
	uint64_t width = settings->flows - first < WINDOW ? settings->flows - first : WINDOW;

	packet %= in_window;
	*begun = first + (packet < width ? packet : width);
	return width ? first + packet % width : first;
}

static void open_frames(const struct settings *settings, int fd)
{
	struct ifreq request = {};
	struct ether_header link = {};
	size_t length = headers_length(settings->family) + settings->payload;

	strncpy(request.ifr_name, settings->interface, sizeof(request.ifr_name) - 1);
	if (ioctl(fd, SIOCGIFMTU, &request) < 0)
		die("interface %s: %s", settings->interface, strerror(errno));
	if (length - sizeof(link) > (size_t)request.ifr_mtu || length > MAX_FRAME)
		die("payload of %zu octets: the packet exceeds the MTU of %s", settings->payload, settings->interface);
	if (ioctl(fd, SIOCGIFHWADDR, &request) < 0)
		die("interface %s: %s", settings->interface, strerror(errno));
	memcpy(link.ether_shost, request.ifr_hwaddr.sa_data, ETH_ALEN);
	memcpy(link.ether_dhost, &settings->destination_mac, ETH_ALEN);
	link.ether_type = htons(settings->family == AF_INET ? ETHERTYPE_IP : ETHERTYPE_IPV6);
	for (unsigned int i = 0; i < BATCH; i++) {
		memset(frames[i], 'n', length);
		memcpy(frames[i], &link, sizeof(link));
		pieces[i] = (struct iovec){ frames[i], length };
		messages[i].msg_hdr = (struct msghdr){ .msg_iov = &pieces[i], .msg_iovlen = 1 };
	}
	payload_sum = sum_words(frames[0] + length - settings->payload, settings->payload, 0);
}

/* A packet socket of protocol 0 sends and never receives: nothing is copied to it. */
static int open_packet_socket(const struct settings *settings)
{
	struct sockaddr_ll address = { .sll_family = AF_PACKET };
	int fd = socket(AF_PACKET, SOCK_RAW, 0);

	address.sll_ifindex = if_nametoindex(settings->interface);
	if (fd < 0 || !address.sll_ifindex || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		die("packet socket on interface %s: %s", settings->interface, strerror(errno));
	open_frames(settings, fd);
	return fd;
}

static socklen_t write_address(struct sockaddr_in6 *address, int family, const struct endpoint *endpoint)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)address;

	if (family == AF_INET6) {
		address->sin6_addr = endpoint->address;
	} else {
		v4->sin_addr.s_addr = endpoint->address.s6_addr32[3];
	}
	address->sin6_family = family;	/* family and port lie in the same places in both structures */
	address->sin6_port = htons(endpoint->port);
	return family == AF_INET6 ? sizeof(*address) : sizeof(*v4);
}

static int open_udp_socket(const struct settings *settings)
{
	const char *interface = settings->interface;
	struct sockaddr_in6 address = {};
	socklen_t length = write_address(&address, settings->family, &settings->source);
	int level = settings->family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
	int option = settings->family == AF_INET ? IP_RECVERR : IPV6_RECVERR;
	int one = 1, fd = socket(settings->family, SOCK_DGRAM, 0);

	/* Without RECVERR, UDP keeps quiet about a packet that the device refused, and it would be counted. */
	if (fd < 0 || setsockopt(fd, level, option, &one, sizeof(one)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, interface, strlen(interface)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) < 0 ||
	    bind(fd, (struct sockaddr *)&address, length) < 0)
		die("udp socket on interface %s: %s", interface, strerror(errno));
	open_frames(settings, fd);
	for (unsigned int i = 0; i < BATCH; i++) {
		pieces[i].iov_base = frames[i] + headers_length(settings->family);
		pieces[i].iov_len = settings->payload;
		messages[i].msg_hdr.msg_name = &addresses[i];
		messages[i].msg_hdr.msg_namelen = length;
	}
	return fd;
}

/* Send the next packets. Return how many the kernel took (the first ones, without a gap) or the negative errno. */
static int send_packets(const struct settings *settings, int fd, uint64_t next, unsigned int count)
{
	uint64_t begun;
	int accepted;

	for (unsigned int i = 0; i < count; i++) {
		uint64_t flow = settings->flow_offset + place(settings, next + i, &begun);
		struct endpoint varied;

		if (settings->mode == MODE_SOCKET) {
			varied = vary(settings->destination, flow);
			write_address(&addresses[i], settings->family, &varied);
		} else {
			varied = vary(settings->source, flow);
			write_headers(frames[i], settings->family, &varied, &settings->destination, settings->payload,
				      payload_sum);
		}
	}
	accepted = sendmmsg(fd, messages, count, 0);
	return accepted < 0 ? -errno : accepted;
}

static int is_transient(int error)
{
	/* The last three are answers to earlier packets, kept for the socket: the packet at hand was not looked at. */
	return error == ENOBUFS || error == EAGAIN || error == EINTR || error == ECONNREFUSED ||
	       error == EHOSTUNREACH || error == ENETUNREACH;
}

static int run(const struct settings *settings, int fd)
{
	double rate = settings->flows_per_second * settings->packets_per_flow;
	uint64_t start_ns = now_ns(), end_ns = start_ns + settings->duration_s * SECOND_NS, at_ns = start_ns;
	uint64_t sent = 0, errors = 0, flows = 0;
	/* Half a millisecond's worth at once, so that many packets share a wake-up. */
	unsigned int at_once = rate < 2 * 2000 ? 1 : rate > BATCH * 2000 ? BATCH : rate / 2000;
	int result = 0;

	for (; !stopped && sent < settings->packets && at_ns < end_ns; at_ns = now_ns()) {
		uint64_t left = settings->packets - sent, wanted = left < at_once ? left : at_once, due = left;
		uint64_t due_ns;

		if (rate > 0) {
			due = (at_ns - start_ns) / 1e9 * rate + 1 - sent;
			due_ns = start_ns + (sent + wanted - 1) / rate * 1e9 + 1;
			if (due < wanted) {
				sleep_until(due_ns < end_ns ? due_ns : end_ns);
				continue;
			}
		}
		wanted = due < left ? due : left;
		wanted = wanted < BATCH ? wanted : BATCH;
		result = send_packets(settings, fd, sent, wanted);
		/* sendmmsg tells of a packet refused in mid-batch by its short count alone. */
		errors += result < (int)wanted;
		sent += result > 0 ? result : 0;
		if (result < 0 && !is_transient(-result)) {
			fprintf(stderr, "generator: send on %s: %s\n", settings->interface, strerror(-result));
			break;
		}
		result = 0;
	}
	place(settings, sent, &flows);
	printf("{\"flows\": %" PRIu64 ", \"packets\": %" PRIu64 ", \"bytes\": %" PRIu64
	       ", \"seconds\": %.9f, \"errors\": %" PRIu64 "}\n",
	       flows, sent, sent * (headers_length(settings->family) + settings->payload), (at_ns - start_ns) / 1e9, errors);
	return result ? 1 : 0;
}

/*
 * Wait until the kernel has let go of all packets. A packet belongs to its sending socket until it is dropped, has left
 * by the hardware, or has come to a receiver's IP layer, which is behind the hooks of a veth's other end. (That also
 * bounds what waits between the two ends: the socket's buffer has room for some 280 packets, the queue there for 1,000.)
 */
static void wait_until_taken(int fd)
{
	int octets = 0;

	for (unsigned int pauses = 0; pauses < MAX_PAUSES && !ioctl(fd, SIOCOUTQ, &octets) && octets > 0; pauses++)
		sleep_until(now_ns() + PAUSE_NS);
}

int main(int count, char **arguments)
{
	struct settings settings = parse_settings(count, arguments);
	struct sigaction action = { .sa_handler = stop };
	cpu_set_t cpus;
	int fd, result;

	if (settings.cpu >= 0) {
		CPU_ZERO(&cpus);
		CPU_SET(settings.cpu, &cpus);
		if (sched_setaffinity(0, sizeof(cpus), &cpus) < 0)
			die("--cpu %d: %s", settings.cpu, strerror(errno));
	}
	prctl(PR_SET_TIMERSLACK, 1ul);	/* the default lets a sleep run 50 us over */
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	fd = settings.mode == MODE_SOCKET ? open_udp_socket(&settings) : open_packet_socket(&settings);
	result = run(&settings, fd);
	fflush(stdout);
	wait_until_taken(fd);
	return result;
}
