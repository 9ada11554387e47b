/*
 * What the generator is told on its command line, checked.
 *
 * Law: a run without limits does not exist: what is not said ends after ten seconds, what is said has a ceiling. Where
 * a count is given, it is the count that ends the run, however busy the machine is, unless a duration is given too.
 */
#ifndef SETTINGS_H
#define SETTINGS_H

#include <getopt.h>
#include <netinet/ether.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "frame.h"

/* A forgotten generator ends by itself, and 64 windows of packets stay far from the end of 64 bits. */
#define MAX_PACKETS 1000000000ull
#define MAX_DURATION_S 3600.0
#define DEFAULT_DURATION_S 10.0
#define NOT_SAID -1.0

enum mode {
	MODE_FLOWS,	/* whole frames through a packet socket; the source varies */
	MODE_ONE_FLOW,	/* the same, and nothing varies */
	MODE_SOCKET,	/* an ordinary UDP socket; the destination varies */
};

struct settings {
	enum mode mode;
	const char *interface;
	int family, source_family;
	struct endpoint source, destination;
	struct ether_addr destination_mac;
	uint64_t flows, packets_per_flow, packets, flow_offset;
	double flows_per_second, duration_s;	/* 0 flows per second: as fast as it goes */
	size_t payload;
	int cpu;	/* -1: any */
};

static inline void __attribute__((noreturn, format(printf, 1, 2))) die(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fputs("generator: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
	exit(2);
}

static inline double parse_number(const char *option, const char *text, double most)
{
	char *end;
	double number = strtod(text, &end);

	if (end == text || *end || !(number >= 0 && number <= most))
		die("--%s %s: expected a number from 0 to %.0f", option, text, most);
	return number;
}

static inline int parse_address(const char *option, const char *text, struct in6_addr *address)
{
	memset(address, 0, sizeof(*address));
	if (inet_pton(AF_INET, text, &address->s6_addr32[3]) == 1)
		return AF_INET;
	if (inet_pton(AF_INET6, text, address) == 1)
		return AF_INET6;
	die("--%s %s: expected an IPv4 or IPv6 address", option, text);
}

static inline enum mode parse_mode(const char *text)
{
	static const char *const names[] = { "flows", "one-flow", "socket" };

	for (int mode = MODE_FLOWS; mode <= MODE_SOCKET; mode++)
		if (!strcmp(text, names[mode]))
			return mode;
	die("--mode %s: expected flows, one-flow or socket", text);
}

/* Bound the run and make the counts agree: one flow takes all packets; a last flow may be short of some. */
static inline void complete(struct settings *settings)
{
	if (!settings->interface || !settings->family || !settings->source_family)
		die("--interface, --source and --destination are needed");
	if (settings->family != settings->source_family)
		die("--source and --destination: expected addresses of one family");
	if (settings->duration_s == NOT_SAID)
		settings->duration_s = settings->flows || settings->packets ? MAX_DURATION_S : DEFAULT_DURATION_S;
	if (!settings->packets)
		settings->packets = MAX_PACKETS;
	if (settings->mode == MODE_ONE_FLOW) {
		settings->flows = 1;
		settings->packets_per_flow = settings->packets;
	}
	if (!settings->packets_per_flow)
		die("--packets-per-flow 0: expected at least 1");
	if (settings->flows && settings->flows < settings->packets / settings->packets_per_flow)
		settings->packets = settings->flows * settings->packets_per_flow;
	if (!settings->flows)
		settings->flows = (settings->packets + settings->packets_per_flow - 1) / settings->packets_per_flow;
}

static inline void apply(struct settings *settings, int letter, const char *name, const char *text)
{
	switch (letter) {
	case 'm': settings->mode = parse_mode(text); break;
	case 'i': settings->interface = text; break;
	case 's': settings->source_family = parse_address(name, text, &settings->source.address); break;
	case 'p': settings->source.port = parse_number(name, text, 65535); break;
	case 'd': settings->family = parse_address(name, text, &settings->destination.address); break;
	case 'P': settings->destination.port = parse_number(name, text, 65535); break;
	case 'M':
		if (!ether_aton_r(text, &settings->destination_mac))
			die("--%s %s: expected six octets in hexadecimal", name, text);
		break;
	case 'f': settings->flows = parse_number(name, text, MAX_PACKETS); break;
	case 'o': settings->flow_offset = parse_number(name, text, MAX_PACKETS); break;
	case 'k': settings->packets_per_flow = parse_number(name, text, MAX_PACKETS); break;
	case 'n': settings->packets = parse_number(name, text, MAX_PACKETS); break;
	case 'r': settings->flows_per_second = parse_number(name, text, 1e9); break;
	case 't': settings->duration_s = parse_number(name, text, MAX_DURATION_S); break;
	case 'l': settings->payload = parse_number(name, text, 9000); break;
	case 'c': settings->cpu = parse_number(name, text, 1023); break;
	}
}

static inline struct settings parse_settings(int count, char **arguments)
{
	static const struct option options[] = {
		{ "mode", 1, NULL, 'm' }, { "interface", 1, NULL, 'i' }, { "source", 1, NULL, 's' },
		{ "source-port", 1, NULL, 'p' }, { "destination", 1, NULL, 'd' }, { "destination-port", 1, NULL, 'P' },
		{ "destination-mac", 1, NULL, 'M' }, { "flows", 1, NULL, 'f' }, { "flow-offset", 1, NULL, 'o' },
		{ "packets-per-flow", 1, NULL, 'k' }, { "packets", 1, NULL, 'n' }, { "flows-per-second", 1, NULL, 'r' },
		{ "duration", 1, NULL, 't' }, { "payload", 1, NULL, 'l' }, { "cpu", 1, NULL, 'c' }, {},
	};
	struct settings settings = {
		.destination.port = 9, .packets_per_flow = 1, .duration_s = NOT_SAID, .payload = 100, .cpu = -1,
	};
	int letter, index;

	ether_aton_r("02:6e:77:00:00:00", &settings.destination_mac);	/* nobody's: the receiving stack drops it */
	while ((letter = getopt_long(count, arguments, "", options, &index)) != -1) {
		if (letter == '?')
			exit(2);	/* getopt_long has said why */
		apply(&settings, letter, options[index].name, optarg);
	}
	if (optind < count)
		die("%s: unexpected argument", arguments[optind]);
	complete(&settings);
	return settings;
}

#endif
