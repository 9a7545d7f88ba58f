/* SPDX-License-Identifier: MIT */
/* addr.c - address text, both ways; what text gives parses back to the same. */
#include "net/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int
fail(const char **why, const char *text)
{
	if (why != NULL)
		*why = text;
	return -EINVAL;
}

/* Decimal digits from *p to @end, all of them, at most @max. */
static bool
number(const char *p, const char *end, uint32_t max, uint32_t *out)
{
	uint64_t v = 0;

	if (p == end || end - p > 10 || (*p == '0' && end - p > 1))
		return false;
	for (; p < end; p++) {
		if (*p < '0' || *p > '9')
			return false;
		v = v * 10 + (unsigned)(*p - '0');
	}
	*out = (uint32_t)v;
	return v <= max;
}

/* "LOCAL:17" after its prefix, or "3:0" when @loop is wanted too. */
static int
parse_numbered(const char *p, const char *end, bool loop, struct net_addr *a,
    const char **why)
{
	const char *colon = loop ? memchr(p, ':', (size_t)(end - p)) : end;
	uint32_t port = 0;

	if (colon == NULL || !number(p, colon, UINT32_MAX, &a->id) ||
	    (loop && !number(colon + 1, end, UINT16_MAX, &port)))
		return fail(why, loop ? "expected sim:node:loop" :
		    "expected local:number");
	a->port = (uint16_t)port;
	return 0;
}

static int
parse_ip6(const char *host, const char *end, struct net_addr *a,
    const char **why)
{
	char buf[INET6_ADDRSTRLEN];
	const char *scope = memchr(host, '%', (size_t)(end - host));
	size_t n = (size_t)((scope != NULL ? scope : end) - host);

	if (scope != NULL && !number(scope + 1, end, UINT32_MAX, &a->id))
		return fail(why, "scope after % is not a number");
	if (n >= sizeof(buf))
		return fail(why, "not an IPv6 address");
	memcpy(buf, host, n);
	buf[n] = '\0';
	if (strlen(buf) != n || inet_pton(AF_INET6, buf, a->ip) != 1)
		return fail(why, "not an IPv6 address");
	return 0;
}

static int
parse_ip4(const char *host, const char *end, struct net_addr *a,
    const char **why)
{
	char buf[INET_ADDRSTRLEN];
	size_t n = (size_t)(end - host);

	if (n >= sizeof(buf))
		return fail(why, "not an IPv4 address");
	memcpy(buf, host, n);
	buf[n] = '\0';
	if (strlen(buf) != n || inet_pton(AF_INET, buf, a->ip) != 1)
		return fail(why, "not an IPv4 address");
	return 0;
}

static int
parse(const char *p, const char *end, struct net_addr *a, const char **why)
{
	const char *host_end;
	uint32_t port;
	int rc;

	if (end - p >= 6 && memcmp(p, "local:", 6) == 0) {
		a->kind = NET_ADDR_LOCAL;
		return parse_numbered(p + 6, end, false, a, why);
	}
	if (end - p >= 4 && memcmp(p, "sim:", 4) == 0) {
		a->kind = NET_ADDR_SIM;
		return parse_numbered(p + 4, end, true, a, why);
	}
	if (p < end && *p == '[') {
		a->kind = NET_ADDR_TCP6;
		host_end = memchr(p, ']', (size_t)(end - p));
		if (host_end == NULL)
			return fail(why, "missing ]");
		rc = parse_ip6(p + 1, host_end++, a, why);
	} else {
		a->kind = NET_ADDR_TCP4;
		host_end = memchr(p, ':', (size_t)(end - p));
		if (host_end == NULL)
			return fail(why, "missing :port");
		rc = parse_ip4(p, host_end, a, why);
	}
	if (rc != 0)
		return rc;
	if (host_end == end || *host_end != ':')
		return fail(why, "missing :port");
	if (!number(host_end + 1, end, UINT16_MAX, &port))
		return fail(why, "port is not a number from 0 to 65535");
	a->port = (uint16_t)port;
	return 0;
}

int
net_addr_parse(const char *text, size_t n, struct net_addr *out,
    const char **why)
{
	struct net_addr a = { .kind = NET_ADDR_NONE };
	int rc = n == 0 ? fail(why, "empty address") :
	    parse(text, text + n, &a, why);

	if (rc == 0)
		*out = a;
	return rc;
}

void
net_addr_text(const struct net_addr *a, char out[NET_ADDR_TEXT])
{
	char ip[INET6_ADDRSTRLEN] = "", scope[16] = "";

	out[0] = '\0';
	switch ((enum net_addr_kind)a->kind) {
	case NET_ADDR_NONE:
		break;
	case NET_ADDR_TCP4:
		inet_ntop(AF_INET, a->ip, ip, sizeof(ip));
		snprintf(out, NET_ADDR_TEXT, "%s:%u", ip, a->port);
		break;
	case NET_ADDR_TCP6:
		/* 39 of address, 11 of scope, 6 of port, brackets */
		inet_ntop(AF_INET6, a->ip, ip, sizeof(ip));
		if (a->id != 0)
			snprintf(scope, sizeof(scope), "%%%" PRIu32, a->id);
		snprintf(out, NET_ADDR_TEXT, "[%.39s%.11s]:%u", ip, scope, a->port);
		break;
	case NET_ADDR_LOCAL:
		snprintf(out, NET_ADDR_TEXT, "local:%" PRIu32, a->id);
		break;
	case NET_ADDR_SIM:
		snprintf(out, NET_ADDR_TEXT, "sim:%" PRIu32 ":%u", a->id, a->port);
		break;
	}
}

bool
net_addr_eq(const struct net_addr *a, const struct net_addr *b)
{
	if (a->kind != b->kind)
		return false;
	switch ((enum net_addr_kind)a->kind) {
	case NET_ADDR_NONE:
		return true;
	case NET_ADDR_TCP4:
		return a->port == b->port && memcmp(a->ip, b->ip, 4) == 0;
	case NET_ADDR_TCP6:
		return a->port == b->port && a->id == b->id &&
		    memcmp(a->ip, b->ip, 16) == 0;
	case NET_ADDR_LOCAL:
		return a->id == b->id;
	case NET_ADDR_SIM:
		return a->id == b->id && a->port == b->port;
	}
	return false;
}

unsigned
net_addr_sockaddr(const struct net_addr *a, struct sockaddr_storage *out)
{
	struct sockaddr_in *in = (struct sockaddr_in *)out;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;

	memset(out, 0, sizeof(*out));
	if (a->kind == NET_ADDR_TCP4) {
		in->sin_family = AF_INET;
		in->sin_port = htons(a->port);
		memcpy(&in->sin_addr, a->ip, 4);
		return sizeof(*in);
	}
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(a->port);
	in6->sin6_scope_id = a->id;
	memcpy(&in6->sin6_addr, a->ip, 16);
	return sizeof(*in6);
}
